"""Batch normalization in training whose sums over the batch XLA's CPU backend compiles well.

  mean = E[x]    var = E[x^2] - mean^2    y = (x - mean) rsqrt(var + epsilon) scale + bias

XLA computes a channel's sum of products of activations (E[x^2], and sum g x of the gradient) 3 to 10 times slower than
it could: it reduces all three axes at once. Here the examples are added up first, then the pixels, with a barrier
between the two that keeps XLA from joining them again; and the gradient is written out, so that it takes two such
sums and one pass over the activations.

The gradient consists of ordinary operations: gradients of gradients work, first-order forward mode does not.

Statistics that are frozen in the course of a training take the place of the batch's before anything is normalized, so
that a step costs the same before and after.
"""
from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lightjax.core import modes


def is_quicker(x: Array) -> bool:
  """Whether `normalize` is what this backend and mode want for activations of this shape: [b, h, w, c] on CPU."""
  return x.ndim == 4 and modes.takes_own_forms()


class Running(NamedTuple):
  """Statistics that may take the place of the batch's.

  Attributes:
    is_frozen: bool scalar, whether they do; it may change from step to step.
    mean: float32 [c].
    var: float32 [c].
  """
  is_frozen: Array
  mean: Array
  var: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x: Float[Array, 'b h w c'], scale: Float[Array, ' c'], bias: Float[Array, ' c'], epsilon: float,
    running: Running | None = None,
) -> tuple[Float[Array, 'b h w c'], Float[Array, ' c'], Float[Array, ' c']]:
  """Normalize by the statistics of the batch, or by frozen ones.

  Args:
    x: activations; statistics are computed in float32 or better.
    scale: one a channel.
    bias: one a channel.
    epsilon: added to the variance.
    running: what to normalize by where it is frozen, a constant for the gradient; None: the batch's alone.
  Returns:
    (normalized activations, mean, biased variance), the first of the dtype that x and scale promote to, the others
    those that it is normalized by.

  Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.
  """
  return _forward(x, scale, bias, epsilon, running)[0]


Saved = tuple[Array, Array, Array, Array, Array | None]


def _forward(
    x: Array, scale: Array, bias: Array, epsilon: float, running: Running | None,
) -> tuple[tuple[Array, Array, Array], Saved]:
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  count = x.size // x.shape[-1]
  mean = _channel_sum(wide) / count
  var = jnp.maximum(0.0, _channel_sum(wide * wide) / count - mean * mean)
  if running is not None:
    mean, var = jnp.where(running.is_frozen, running.mean, mean), jnp.where(running.is_frozen, running.var, var)
  factor = lax.rsqrt(var + epsilon)
  y = (wide - mean) * (factor * scale) + bias
  return (y, mean, var), (x, scale, mean, factor, None if running is None else running.is_frozen)


def _backward(
    epsilon: float, saved: Saved, cotangents: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, None]:
  x, scale, mean, factor, is_frozen = saved
  gradient, to_mean, to_var = cotangents
  wide = x.astype(mean.dtype)
  count = x.size // x.shape[-1]
  bias_gradient = _channel_sum(gradient)
  scale_gradient = (_channel_sum(gradient * wide) - mean * bias_gradient) * factor
  # y = (x - mean) factor scale + bias, with d mean / dx = 1 / n, d var / dx = 2 (x - mean) / n.
  through_mean = (to_mean - bias_gradient * factor * scale) / count
  through_var = (2 * to_var - scale_gradient * scale * factor * factor) / count
  if is_frozen is not None:
    through_mean, through_var = (jnp.where(is_frozen, 0, each) for each in (through_mean, through_var))
  x_gradient = gradient * (factor * scale) + (wide - mean) * through_var + through_mean
  return x_gradient.astype(x.dtype), scale_gradient.astype(scale.dtype), bias_gradient.astype(scale.dtype), None


normalize.defvjp(_forward, _backward)


def _channel_sum(x: Array) -> Array:
  return lax.optimization_barrier(x.sum(0)).sum((0, 1))
