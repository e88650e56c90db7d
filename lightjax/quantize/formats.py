"""Number formats: which codes there are, and how a range of values becomes a scale and a zero point.

  value = levels * scale, levels = codes - zero point

A format is one of three pieces of a quantizer, beside where the scale comes from (`scales`) and what shares one
(`granularities`). A config names it: 'symmetric', 'affine', 'e4m3', 'power_of_two(symmetric)'.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax

from lightjax.core import ste
from lightjax.core.encoded import Integers, spread
from lightjax.core.typing import Array
from lightjax.quantize import quantizers

__all__ = ['Format', 'affine', 'e4m3', 'e5m2', 'half_step', 'power_of_two', 'symmetric']

Rounding = Callable[[Array], Array]


class Format(NamedTuple):
  """A set of codes.

  Attributes:
    name: for messages, with the bits: 'int4'.
    kind: name of the function of this module that makes it, without a factor of its scales.
    bits: of a code.
    lowest: the smallest level with zero point 0.
    highest: the largest level with zero point 0.
    parameters: (low, high) -> (scale, zero point), float32, of the same shape: the range is covered, zero is a level,
      and an empty range gives scale 1.
    levels: (x, scale, zero point, rounding or None for to nearest) -> float32 levels, straight-through.
    encode: (levels, scale, zero point) -> what is stored; the scale may have an entry a block, see `encoded.spread`.
  """
  name: str
  kind: str
  bits: int
  lowest: float
  highest: float
  parameters: Callable[[Array, Array], tuple[Array, Array]]
  levels: Callable[[Array, Array, Array, Rounding | None], Array]
  encode: Callable[[Array, Array, Array], Integers]


def symmetric(bits: int) -> Format:
  """Signed integers -limit..limit, limit = 2^(bits - 1) - 1, zero point 0.

  Source: Krishnamoorthi 2018, arXiv:1806.08342, section 2.2.
  """
  limit = quantizers.limit(bits)

  def parameters(low: Array, high: Array) -> tuple[Array, Array]:
    return quantizers.symmetric_scale(jnp.maximum(-low, high), bits=bits), jnp.zeros(low.shape, jnp.float32)

  def levels(x: Array, scale: Array, zero_point: Array, rounding: Rounding | None) -> Array:
    return quantizers.codes(x, scale, bits=bits, rounding=rounding or ste.round_)

  def encode(levels: Array, scale: Array, zero_point: Array) -> Integers:
    return Integers(levels.astype(jnp.int8), scale, bits)

  return Format(f'int{bits}', 'symmetric', bits, -limit, limit, parameters, levels, encode)


def affine(bits: int) -> Format:
  """Unsigned integers 0..2^bits - 1 with a zero point among them; stored less 2^(bits - 1), as signed ones.

  Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1.
  """
  quantizers.limit(bits)
  half = 2 ** (bits - 1)

  def parameters(low: Array, high: Array) -> tuple[Array, Array]:
    return quantizers.affine_parameters(low, high, bits=bits)

  def levels(x: Array, scale: Array, zero_point: Array, rounding: Rounding | None) -> Array:
    return quantizers.affine_levels(x, scale, zero_point, bits=bits, rounding=rounding or ste.round_)

  def encode(levels: Array, scale: Array, zero_point: Array) -> Integers:
    zero_point = zero_point - half
    return Integers((levels + spread(zero_point, levels.shape)).astype(jnp.int8), scale, bits, zero_point)

  return Format(f'uint{bits}', 'affine', bits, 0, 2 * half - 1, parameters, levels, encode)


def half_step(bits: int) -> Format:
  """2^bits levels -1/2, 1/2, -3/2, 3/2, ... steps from zero, which itself is none: DoReFa's weights.

  Neither padding nor pruned weights can stand on it; `chain` refuses it after pruning.

  Source: Zhou et al. 2016, arXiv:1606.06160, section 2.3: 2 quantize_k(x / 2 + 1 / 2) - 1 for x in [-1, 1].
  """
  quantizers.limit(bits)
  half = 2 ** (bits - 1)

  def parameters(low: Array, high: Array) -> tuple[Array, Array]:
    step = jnp.maximum(-low, high) * np.float32(1 / (half - 0.5))
    return jnp.where(step >= quantizers.SMALLEST_STEP, step, 1), jnp.full(low.shape, -0.5, jnp.float32)

  def levels(x: Array, scale: Array, zero_point: Array, rounding: Rounding | None) -> Array:
    codes = (rounding or ste.round_)(x.astype(jnp.float32) / scale - 0.5)
    return ste.clip(codes, -half, half - 1) + 0.5

  def encode(levels: Array, scale: Array, zero_point: Array) -> Integers:
    return Integers((levels - 0.5).astype(jnp.int8), scale, bits, zero_point)

  return Format(f'half-step int{bits}', 'half_step', bits, 0.5 - half, half - 0.5, parameters, levels, encode)


def e4m3(bits: int = 8) -> Format:
  """8-bit floats of 4 exponent and 3 mantissa bits: up to 448, steps of 2^-9 below 2^-6; no infinities.

  The scale puts the largest value of a range on 448.

  Source: Micikevicius et al. 2022, arXiv:2209.05433, table 1.
  """
  return _float8('e4m3', bits, ml_dtypes.float8_e4m3fn)


def e5m2(bits: int = 8) -> Format:
  """8-bit floats of 5 exponent and 2 mantissa bits: up to 57344, steps of 2^-16 below 2^-14.

  Source: Micikevicius et al. 2022, arXiv:2209.05433, table 1.
  """
  return _float8('e5m2', bits, ml_dtypes.float8_e5m2)


def power_of_two(base: Callable[[int], Format]) -> Callable[[int], Format]:
  """A format whose scales are powers of two, the next at or above: multiplying by one is a shift.

  Args:
    base: `symmetric`, `affine`, ...
  Returns:
    A function of the bits, like `base`.
  Example:
    >>> power_of_two(symmetric)(8).parameters(jnp.array([-1.0]), jnp.array([0.5]))[0]
    Array([0.015625], dtype=float32)

  Source: Jain et al. 2020, arXiv:1903.08066 (thresholds that are powers of two).
  Deviations from the paper: the threshold is not trained.
  """

  def make(bits: int) -> Format:
    format_ = base(bits)

    def parameters(low: Array, high: Array) -> tuple[Array, Array]:
      # The same zero point: a range that grows by a factor about zero is still covered.
      scale, zero_point = format_.parameters(low, high)
      mantissa, exponent = jnp.frexp(scale)
      return jnp.ldexp(jnp.ones_like(scale), jnp.where(mantissa == 0.5, exponent - 1, exponent)), zero_point

    return format_._replace(name=f'{format_.name}, power-of-two scale', parameters=parameters)

  return make


def round_float8(x: Array, *, smallest_exponent: int, mantissa_bits: int) -> Array:
  """The nearest number of a float format of any range, ties to even; straight-through.

  Args:
    x: any shape, float32.
    smallest_exponent: of a normal number; below it steps no longer shrink.
    mantissa_bits: stored ones.
  Returns:
    Float32 numbers of the format, gradient 1.
  """
  constant = lax.stop_gradient(x)
  exponent = jnp.frexp(constant)[1] - 1
  step = jnp.ldexp(jnp.float32(1), jnp.maximum(exponent, smallest_exponent) - mantissa_bits)
  # Rounded in float32, where it is exact: XLA's casts to 8 bits may round twice.
  return ste.straight_through(x, jnp.round(constant / step) * step)


def _float8(kind: str, bits: int, dtype: type) -> Format:
  if bits != 8:
    raise ValueError(f'bits={bits}: {kind} has 8 bits.')
  about = ml_dtypes.finfo(dtype)
  largest = float(about.max)

  def parameters(low: Array, high: Array) -> tuple[Array, Array]:
    step = jnp.maximum(-low, high) * np.float32(1 / largest)
    return jnp.where(step >= quantizers.SMALLEST_STEP, step, 1), jnp.zeros(low.shape, jnp.float32)

  def levels(x: Array, scale: Array, zero_point: Array, rounding: Rounding | None) -> Array:
    if rounding is not None:
      raise ValueError(f'{kind} is rounded to nearest only; leave stochastic rounding to integers.')
    rounded = round_float8(
      x.astype(jnp.float32) * (1 / scale), smallest_exponent=int(about.minexp), mantissa_bits=int(about.nmant))
    return ste.clip(rounded, -largest, largest)

  def encode(levels: Array, scale: Array, zero_point: Array) -> Integers:
    return Integers(levels.astype(dtype), scale, 8)

  return Format(kind, kind, 8, -largest, largest, parameters, levels, encode)
