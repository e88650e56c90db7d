"""Weights of two and three levels: codes, scale, and the value with the gradient that the method gives it.

A binarizer is a function of what it needs, by name: `weight`, the `axes` that an output channel sums over, `key` (None
in evaluation), `progress` of the training (0..1). It returns `Levels`.

Scales are rounded to so few bits that every sum of them is exact in float32 (`exact_scale`): then a layer's output does
not depend on the order of its additions, and integer arithmetic on packed bits gives the very same numbers.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lightjax.binarize import estimators
from lightjax.core import ste
from lightjax.core.typing import Array

__all__ = [
  'bi_real', 'binary_connect', 'bnn', 'dorefa', 'ir_net', 'stochastic_binary_connect', 'ternary', 'xnor',
]

# Bits of a float32 significand.
SIGNIFICAND = 24


class Levels(NamedTuple):
  """A weight on a few levels.

  Attributes:
    value: codes * scale, bit for bit, differentiable as the method says.
    codes: -1, 0 or 1 as float32; None where the value is the weight itself and is stored as it is.
    scale: float32, broadcastable to the codes; None likewise.
  """
  value: Array
  codes: Array | None
  scale: Array | None


def binary_connect(weight: Array) -> Levels:
  """sign(w), gradient 1; latent weights are clipped to [-1, 1] (`clip=1.0`).

  Args:
    weight: any shape.
  Returns:
    Two levels, scale 1.
  Source: Courbariaux, Bengio, David 2015, arXiv:1511.00363, eq. 1.
  """
  return _unscaled(estimators.identity(weight))


def stochastic_binary_connect(weight: Array, key: Array | None) -> Levels:
  """+1 with probability clip((w + 1) / 2, 0, 1), else -1, drawn in every step; gradient 1. Real weights in evaluation.

  Args:
    weight: any shape.
    key: of this step and parameter; None in evaluation, where the paper takes the real weights (section 2.6, its second
      way): they are what is stored.
  Returns:
    Two levels, scale 1; without a key the weight itself.
  Source: Courbariaux, Bengio, David 2015, arXiv:1511.00363, eq. 2 and 3.
  """
  if key is None:
    return Levels(weight, None, None)
  probability = jnp.clip((weight + 1) / 2, 0, 1)
  drawn = jnp.where(jax.random.uniform(key, weight.shape, probability.dtype) < probability, 1, -1).astype(weight.dtype)
  return _unscaled(ste.straight_through(weight, drawn))


def bnn(weight: Array) -> Levels:
  """sign(w), gradient 1 where |w| <= 1; latent weights are clipped to [-1, 1] (`clip=1.0`).

  Args:
    weight: any shape.
  Returns:
    Two levels, scale 1.
  Source: Courbariaux et al. 2016, arXiv:1602.02830, algorithm 1.
  """
  return _unscaled(estimators.hard_tanh(weight))


def xnor(weight: Array, axes: Sequence[int]) -> Levels:
  """sign(w) * mean|w| of each output channel, the scale being differentiated as well.

  Args:
    weight: any shape.
    axes: that an output channel sums over.
  Returns:
    Two levels a channel. The gradient is g * scale where |w| <= 1, plus sign(w) / n * sum(g * sign(w)).
  Source: Rastegari et al. 2016, arXiv:1603.05279, section 3.1.
  Deviations from the paper: its formula for the gradient leaves out what other weights get through the common scale;
    this is the whole derivative. Scales are rounded, see `exact_scale`.
  """
  return _scaled(estimators.hard_tanh(weight), exact_scale(_mean_size(weight, axes), weight, axes))


def dorefa(weight: Array, axes: Sequence[int]) -> Levels:
  """sign(w) * mean|w| of the whole layer, gradient 1.

  Args:
    weight: any shape.
    axes: that an output channel sums over; they only say how far the scale is rounded.
  Returns:
    Two levels.
  Source: Zhou et al. 2016, arXiv:1606.06160, section 2.3, one-bit weights.
  Deviations from the paper: the scale is rounded, see `exact_scale`.
  """
  scale = exact_scale(_mean_size(weight, range(weight.ndim)), weight, axes)
  return _straight(weight, ste.sign(weight), scale)


def bi_real(weight: Array, axes: Sequence[int]) -> Levels:
  """sign(w) * mean|w| of each output channel, gradient mean|w| where |w| <= 1; ReActNet's too.

  Args:
    weight: any shape.
    axes: that an output channel sums over.
  Returns:
    Two levels a channel; no gradient through the scale.
  Source: Liu et al. 2018, arXiv:1808.00278 (magnitude-aware gradient); Liu et al. 2020, arXiv:2003.03488.
  Deviations from the paper: scales are rounded, see `exact_scale`.
  """
  scale = exact_scale(lax.stop_gradient(_mean_size(weight, axes)), weight, axes)
  return _scaled(estimators.hard_tanh(weight), scale)


def ir_net(weight: Array, axes: Sequence[int], progress: Array) -> Levels:
  """sign(z) * 2^s of the standardized weight z = (w - mean) / deviation, s = round(log2(mean|z|)), for each channel.

  Args:
    weight: any shape.
    axes: that an output channel sums over.
    progress: part of the training that is over, 0..1, for the gradient of `estimators.error_decay`.
  Returns:
    Two levels a channel. The gradient goes through the standardization and not through the scale.
  Source: Qin et al. 2020, arXiv:1909.10788 (Libra parameter binarization).
  """
  centred = weight - jnp.mean(weight, axes, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axes, keepdims=True)
  standardized = centred * lax.rsqrt(jnp.where(variance > 0, variance, 1))
  size = lax.stop_gradient(_mean_size(standardized, axes))
  shift = jnp.round(jnp.log2(jnp.where(size > 0, size, 1))).astype(jnp.int32)
  return _scaled(estimators.error_decay(standardized, progress), jnp.ldexp(jnp.ones_like(size), shift))


def ternary(weight: Array, axes: Sequence[int]) -> Levels:
  """-a, 0 and a for a layer: 0 where |w| <= 0.7 mean|w|, a the mean|w| of the others; gradient 1.

  Args:
    weight: any shape.
    axes: that an output channel sums over; they only say how far the scale is rounded.
  Returns:
    Three levels. Zeros stay zero, so that it may follow pruning.
  Source: Li, Zhang, Liu 2016, arXiv:1605.04711 (ternary weight networks).
  Deviations from the paper: the scale is rounded, see `exact_scale`.
  """
  codes = threshold(weight, 0.7 * _mean_size(weight, range(weight.ndim)))
  return _straight(weight, codes, exact_scale(mean_of(weight, codes != 0), weight, axes))


def threshold(weight: Array, bound: Array) -> Array:
  """-1 where w < -bound, 1 where w > bound, 0 between: the codes of three levels, constants for the gradient."""
  return lax.stop_gradient((weight > bound).astype(jnp.float32) - (weight < -bound).astype(jnp.float32))


def mean_of(weight: Array, chosen: Array) -> Array:
  """mean|w| of the chosen entries, of the weight's rank; 1 where there is none."""
  count = jnp.sum(chosen, keepdims=True)
  total = jnp.sum(jnp.where(chosen, jnp.abs(weight.astype(jnp.float32)), 0), keepdims=True)
  return jnp.where(count > 0, total / jnp.maximum(count, 1), 1)


def exact_scale(scale: Array, weight: Array, axes: Sequence[int]) -> Array:
  """A scale with so few significant bits that any sum of n of them, plus or minus, is exact in float32.

  Args:
    scale: zero or positive.
    weight: that it is of.
    axes: that an output channel sums over; n is the product of their sizes.
  Returns:
    The nearest number of 24 - ceil(log2 n) significant bits (11 for a 3x3 convolution of 512 channels); gradient 1.
  """
  terms = math.prod(weight.shape[axis] for axis in axes)
  bits = max(SIGNIFICAND - math.ceil(math.log2(max(terms, 1))), 1)
  constant = lax.stop_gradient(scale)
  rounded = lax.reduce_precision(constant, exponent_bits=8, mantissa_bits=bits - 1)
  return ste.straight_through(scale, rounded)


def _mean_size(weight: Array, axes: Sequence[int]) -> Array:
  return jnp.mean(jnp.abs(weight.astype(jnp.float32)), tuple(axes), keepdims=True)


def _unscaled(signs: Array) -> Levels:
  return Levels(signs, signs.astype(jnp.float32), jnp.ones((1,) * signs.ndim, jnp.float32))


def _scaled(signs: Array, scale: Array) -> Levels:
  """Differentiable in both."""
  codes = signs.astype(jnp.float32)
  return Levels((codes * scale).astype(signs.dtype), codes, scale)


def _straight(weight: Array, codes: Array, scale: Array) -> Levels:
  """Gradient 1 to the weight, none to the scale."""
  codes = codes.astype(jnp.float32)
  return Levels(ste.straight_through(weight, (codes * scale).astype(weight.dtype)), codes, scale)
