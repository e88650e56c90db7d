"""Straight-through estimators that are exact: the value is the quantizer's own, to the last bit.

The textbook form `x + stop_gradient(q - x)` is an ulp off the grid for many float32 values, so that a tensor of 15
levels shows 21; here the value never touches `x`. All are `custom_jvp`: they work in forward and reverse mode, twice.

Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 3.4.
"""
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lightjax.core.typing import Array


@jax.custom_jvp
def straight_through(x: Array, value: Array) -> Array:
  """`value` in the forward pass, the identity on `x` in the backward pass.

  Args:
    x: any shape, what the gradient goes to.
    value: same shape, what the forward pass sees, bit for bit.
  Returns:
    `value`, with d/dx = 1 and d/dvalue = 0.
  """
  del x
  return value


@straight_through.defjvp
def _straight_through_jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
  x, value = primals
  return straight_through(x, value), tangents[0].astype(value.dtype)


@jax.custom_jvp
def round_(x: Array) -> Array:
  """Round half to even, to a zero of positive sign, as integers have it; the gradient is 1 everywhere."""
  return jnp.where(jnp.abs(x) <= 0.5, 0, jnp.round(x)).astype(x.dtype)


@round_.defjvp
def _round_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
  return round_(primals[0]), tangents[0]


def clip(x: Array, low: Array | float, high: Array | float) -> Array:
  """Clip to the closed range [low, high]; the gradient is 1 on the whole range, both bounds included, and 0 outside.

  `jnp.clip` has gradient 0.5 on a bound, where abs-max scaling puts the largest weight of every channel.

  Args:
    x: any shape.
    low: lower bound, broadcastable to x.
    high: upper bound, broadcastable to x.
  Returns:
    Same shape as x. With respect to a bound the gradient is 1 where x lies strictly beyond it.
  """
  return _clip(x, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype))


@jax.custom_jvp
def _clip(x: Array, low: Array, high: Array) -> Array:
  return jnp.clip(x, low, high)


@_clip.defjvp
def _clip_jvp(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
  x, low, high = primals
  slopes = (jnp.logical_and(x >= low, x <= high), x < low, x > high)
  terms = [jnp.where(slope, tangent, 0) for slope, tangent in zip(slopes, tangents, strict=True)]
  return _clip(x, low, high), terms[0] + terms[1] + terms[2]


@jax.custom_jvp
def sign(x: Array) -> Array:
  """Plus one where x >= 0, minus one elsewhere (`jnp.sign(0)` is 0, a third level); gradient 1 where |x| <= 1.

  Source: Courbariaux et al. 2016, arXiv:1602.02830, eq. 4.
  """
  return jnp.where(x >= 0, 1, -1).astype(x.dtype)


@sign.defjvp
def _sign_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
  return sign(primals[0]), jnp.where(jnp.abs(primals[0]) <= 1, tangents[0], 0)


@jax.custom_jvp
def scale_gradient(x: Array, factor: Array | float) -> Array:
  """`x` in the forward pass; its gradient times a factor in the backward pass.

  Args:
    x: any shape.
    factor: broadcastable to x.
  Returns:
    `x`, bit for bit, with d/dx = factor and d/dfactor = 0.
  Source: Esser et al. 2020, arXiv:1902.08153, appendix A (gradscale).
  """
  del factor
  return x


@scale_gradient.defjvp
def _scale_gradient_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
  return primals[0], (tangents[0] * primals[1]).astype(primals[0].dtype)
