"""Uniform integer grids: codes, and the float values that they stand for.

Zero is a level of every grid (zero padding and pruned weights depend on it), empty channels give no NaN, and codes are
clipped before they are cast (a cast saturates in XLA and wraps in NumPy).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core import ste
from lightjax.core.typing import Array

__all__ = [
  'affine', 'affine_levels', 'affine_parameters', 'codes', 'limit', 'scale_absmax', 'stochastic', 'symmetric',
  'symmetric_scale',
]

SMALLEST_STEP = np.finfo(np.float32).tiny


def limit(bits: int) -> int:
  """The largest code of the symmetric grid, 2^(bits-1) - 1: 127 for 8 bits; -128 is not used.

  Raises:
    ValueError: bits outside 2..8.
  """
  if not 2 <= bits <= 8:
    raise ValueError(f'bits={bits}: an integer grid has 2 to 8 bits.')
  return 2 ** (bits - 1) - 1


def scale_absmax(weight: Array, *, bits: int, reduced_axes: Sequence[int]) -> Array:
  """The step that puts the largest |w| of a channel on the last level: max|w| / limit; 1 for an all-zero channel.

  A channel whose step would be subnormal, which hardware may take for zero, counts as all zero.

  Args:
    weight: any shape.
    bits: 2..8.
    reduced_axes: the axes that share a step; all but the output channels, or all.
  Returns:
    float32, the weight's rank, size 1 along the reduced axes. A constant for the gradient.
  Source: Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.
  """
  largest = jnp.max(jnp.abs(lax.stop_gradient(weight.astype(jnp.float32))), axis=tuple(reduced_axes), keepdims=True)
  return symmetric_scale(largest, bits=bits)


def symmetric_scale(largest: Array, *, bits: int) -> Array:
  """The step that puts a value on the last level: largest / limit; 1 where that is zero or subnormal.

  Args:
    largest: magnitudes, any shape, float32.
    bits: 2..8.
  Returns:
    Steps, the same shape, positive.
  """
  # A product with the reciprocal: XLA rewrites a division by a constant under jit, and the two would differ by an ulp.
  step = largest * np.float32(1 / limit(bits))
  return jnp.where(step >= SMALLEST_STEP, step, 1)


def stochastic(key: Array) -> Callable[[Array], Array]:
  """Rounding up with the probability of the fraction, so that the expected value is the input; integers stay.

  It takes the place of rounding to nearest in `codes` and `affine_levels`.

  Args:
    key: a key of its own for each array.
  Returns:
    Array -> integers as floats, gradient 1.
  Source: Gupta et al. 2015, arXiv:1502.02551, section 3.
  """

  def round_(x: Array) -> Array:
    constant = lax.stop_gradient(x)
    down = jnp.floor(constant)
    is_up = jax.random.uniform(key, x.shape, jnp.float32) < constant - down
    return ste.straight_through(x, down + is_up)

  return round_


def codes(weight: Array, scale: Array, *, bits: int, rounding: Callable[[Array], Array] = ste.round_) -> Array:
  """Integer codes of the symmetric grid as float32: round(w / s), clipped to +-limit, straight-through.

  Args:
    weight: any shape.
    scale: broadcastable to it, positive.
    bits: 2..8.
    rounding: straight-through; to nearest, or `stochastic(key)`.
  Returns:
    float32 integers in -limit..limit; the gradient with respect to w is 1 / s where w / s rounds to one of them, 0
    beyond.
  """
  bound = limit(bits)
  # Rounded first, clipped then: max|w| / s may lie an ulp beyond the bound, and the largest weight would lose its
  # gradient.
  return ste.clip(rounding(weight.astype(jnp.float32) / scale), -bound, bound)


def symmetric(weight: Array, scale: Array, *, bits: int) -> Array:
  """The weight on the symmetric grid: codes * scale, in float32, the very product that a stored file decodes to.

  Args:
    weight: any shape.
    scale: broadcastable, positive.
    bits: 2..8.
  Returns:
    Same shape and dtype as `weight`; gradient 1 where w / s rounds to a level (the closed range and half a step beyond
    it), 0 outside.
  """
  return (codes(weight, scale, bits=bits) * scale).astype(weight.dtype)


def affine_parameters(low: Array, high: Array, *, bits: int) -> tuple[Array, Array]:
  """Step and zero point of the unsigned grid 0..2^bits - 1 that covers [low, high] and holds zero exactly.

  Args:
    low: smallest value seen; taken as at most 0.
    high: largest value seen; taken as at least 0.
    bits: 2..8.
  Returns:
    (scale, zero point), float32; the zero point is an integer in 0..2^bits - 1, 0 where nothing negative was seen
    (outputs of a ReLU use the whole unsigned range). An empty range gives scale 1.
  Source: Jacob et al. 2018, arXiv:1712.05877, section 3.1 (nudged ranges).
  """
  levels = 2**bits - 1
  low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
  step = (high - low) * np.float32(1 / levels)
  scale = jnp.where(step >= SMALLEST_STEP, step, 1)
  return scale, jnp.clip(jnp.round(-low * (1 / scale)), 0, levels)


def affine(x: Array, scale: Array, zero_point: Array, *, bits: int) -> Array:
  """The input on the unsigned grid: clip(round(x * (1 / s)), -z, 2^bits - 1 - z) * s.

  Args:
    x: any shape.
    scale: broadcastable, positive.
    zero_point: broadcastable, integers as floats.
    bits: 2..8.
  Returns:
    Same shape and dtype; gradient 1 where x rounds to a level (the closed range of the grid and half a step beyond it),
    0 outside.
  """
  return (affine_levels(x, scale, zero_point, bits=bits) * scale).astype(x.dtype)


def affine_levels(
  x: Array, scale: Array, zero_point: Array, *, bits: int, rounding: Callable[[Array], Array] = ste.round_
) -> Array:
  """Codes of the unsigned grid less the zero point, as float32: clip(round(x * (1 / s)), -z, 2^bits - 1 - z).

  Args:
    x: any shape.
    scale: broadcastable, positive.
    zero_point: broadcastable, integers as floats.
    bits: 2..8.
    rounding: straight-through; to nearest, or `stochastic(key)`.
  Returns:
    float32 integers; the gradient with respect to x is 1 / s where it rounds to a level, 0 beyond.
  """
  levels = 2**bits - 1
  # The reciprocal first: a stored network has constant scales, and this product is the same bits there.
  return ste.clip(rounding(x.astype(jnp.float32) * (1 / scale)), -zero_point, levels - zero_point)
