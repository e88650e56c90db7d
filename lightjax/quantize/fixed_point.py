"""Integer arithmetic that a scale takes part in: multipliers with a shift, 64-bit products of 32-bit numbers, sums.

JAX computes in 32 bits unless told otherwise, so that products are made of 16-bit halves; they are exact.
"""
from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core.typing import Array
from lightjax.nn import convolution
from lightjax.quantize.program import Node

__all__ = ['accumulate', 'multiplier', 'rescale', 'rescaled_sum', 'sum_multipliers']

MOST_SHIFT = 62
# Sums of two products: 9-bit codes (differences to a zero point) times 21-bit multipliers leave room for the rounding.
SUM_BITS = 21

Accumulation = Literal['integer', 'float']


def multiplier(scale: Any) -> tuple[np.ndarray, np.ndarray]:
  """A factor as an integer and a shift: scale = m / 2^shift, m of 31 bits.

  Args:
    scale: positive numbers or zeros, any shape.
  Returns:
    (m, shift), int32, m in 2^30..2^31 - 1 and shift in 1..62; numbers under 2^-31 have fewer bits.
  Raises:
    ValueError: a number is negative, not finite or at least 2^30.
  Example:
    >>> multiplier(0.75)
    (array(1610612736, dtype=int32), array(31, dtype=int32))

  Source: Jacob et al. 2018, arXiv:1712.05877, section 2.2, eq. 6.
  """
  scale = np.asarray(scale, np.float64)
  if not ((scale >= 0) & (scale < 2.0**30)).all():
    raise ValueError(f'multiplier: {scale.min()}..{scale.max()} is not in 0..2^30; was an empty range calibrated?')
  _, exponent = np.frexp(scale)
  shift = np.minimum(31 - exponent, MOST_SHIFT)
  m = np.round(np.ldexp(scale, shift))
  is_full = m == 2.0**31
  return np.where(is_full, 2.0**30, m).astype(np.int32), np.where(is_full, shift - 1, shift).astype(np.int32)


def rescale(x: Array, m: Any, shift: Any) -> Array:
  """round(x * m / 2^shift), halves up, saturated to int32; the product has all its 64 bits.

  Args:
    x: int32.
    m: from `multiplier`, broadcastable to x.
    shift: likewise.
  Returns:
    int32, shape of x.
  """
  m, shift = jnp.asarray(m, jnp.int32), jnp.asarray(shift, jnp.int32)
  x_high, x_low = x >> 16, x & 0xffff
  m_high, m_low = m >> 16, m & 0xffff
  lowest = x_low.astype(jnp.uint32) * m_low.astype(jnp.uint32)
  middle = x_high * m_low + (lowest >> 16).astype(jnp.int32)
  other = x_low * m_high
  carried = (middle & 0xffff) + (other & 0xffff)
  high = x_high * m_high + (middle >> 16) + (other >> 16) + (carried >> 16)
  low = (carried.astype(jnp.uint32) << 16) | (lowest & 0xffff)
  # Half a unit of the result is added, in the lower word or in the upper one.
  one = jnp.uint32(1)
  half = jnp.where(shift <= 32, one << jnp.clip(shift - 1, 0, 31).astype(jnp.uint32), 0)
  rounded = low + half
  high = high + (rounded < low) + jnp.where(shift > 32, 1 << jnp.clip(shift - 33, 0, 31), 0)
  right = jnp.clip(shift, 1, 31)
  joined = (high << (32 - right)) | (rounded >> right.astype(jnp.uint32)).astype(jnp.int32)
  bound = 1 << (right - 1)
  joined = jnp.where(high >= bound, np.int32(2**31 - 1), jnp.where(high < -bound, np.int32(-2**31), joined))
  return jnp.where(shift >= 32, high >> jnp.clip(shift - 32, 0, 31), joined)


def sum_multipliers(*scales: float) -> tuple[tuple[int, ...], int]:
  """Factors of the terms of a sum as integers with one shift: scale_i = m_i / 2^shift.

  Args:
    *scales: positive.
  Returns:
    (integers of at most 21 bits, shift).
  Raises:
    ValueError: a factor is so large that no shift is left.
  """
  shift = SUM_BITS - math.frexp(max(scales))[1]
  if shift < 1:
    raise ValueError(f'sum_multipliers: {max(scales)} is too large; was an empty range calibrated?')
  shift = min(shift, 30)
  return tuple(round(math.ldexp(scale, shift)) for scale in scales), shift


def rescaled_sum(terms: Any, factors: tuple[int, ...], shift: int) -> Array:
  """round(sum of term_i * m_i / 2^shift), halves up.

  Args:
    terms: int32, at most 9 bits each.
    factors: from `sum_multipliers`.
    shift: likewise.
  Returns:
    int32.
  """
  total = sum(term * factor for term, factor in zip(terms, factors, strict=True))
  return (total + (1 << (shift - 1))) >> shift


def accumulate(node: Node, codes: Array, kernel: Array, offset: int, *, form: Accumulation) -> Array:
  """The products of a layer's codes, summed in int32: kernel * codes, with padding that stands for zero.

  Args:
    node: the layer.
    codes: int8, of its input.
    kernel: int8.
    offset: the code of zero, which pads.
    form: 'integer' asks the compiler for int8 operands and int32 sums. 'float' takes float32 for as many products as
      cannot exceed 2^24 and adds those sums in int32: the same numbers, on units that only floats are quick on.
  Returns:
    int32.
  """
  if node.window is not None:
    (top, bottom), (left, right) = node.window.padding
    codes = jnp.pad(codes, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=offset)
  if form == 'integer':
    return _products(node, codes, kernel, jnp.int32)
  largest = 128 * 127
  rows = kernel.shape[-2]
  each = max(1, 2**24 // (largest * math.prod(kernel.shape[:-2])))
  if rows <= each:
    return _products(node, codes.astype(jnp.float32), kernel.astype(jnp.float32), None).astype(jnp.int32)
  groups = 1 if node.window is None else node.window.groups
  grouped = codes.reshape(*codes.shape[:-1], groups, rows)
  total: Any = 0
  for start in range(0, rows, each):
    stop = min(start + each, rows)
    part = grouped[..., start:stop].reshape(*codes.shape[:-1], groups * (stop - start)).astype(jnp.float32)
    part = _products(node, part, kernel[..., start:stop, :].astype(jnp.float32), None)
    total = total + part.astype(jnp.int32)
  return total


def _products(node: Node, x: Array, kernel: Array, dtype: Any) -> Array:
  """A layer on codes that are padded already."""
  # HIGHEST keeps GPUs from cutting float32 operands down to 19 bits.
  precision = None if dtype is not None else lax.Precision.HIGHEST
  if node.window is None:
    return lax.dot_general(
      x, kernel, (((x.ndim - 1,), (0,)), ((), ())), precision=precision, preferred_element_type=dtype)
  strides, _, dilation, groups = node.window
  return convolution.conv_general_dilated(
    x, kernel, strides, ((0, 0), (0, 0)), rhs_dilation=dilation, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups, precision=precision, preferred_element_type=dtype)


def default_accumulation() -> Accumulation:
  """'integer' on TPU, whose units it is for; 'float' elsewhere: XLA's int8 convolutions on CPU are plain loops."""
  return 'integer' if jax.default_backend() == 'tpu' else 'float'
