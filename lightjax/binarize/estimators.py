"""Two levels with the gradients that papers give them: signs, +1 where x >= 0 and -1 elsewhere, or `unit`'s 1 and 0.

The value is exact whatever the gradient is; see `lightjax.core.ste` for why that takes care.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp

from lightjax.core import ste
from lightjax.core.typing import Array

__all__ = ['error_decay', 'hard_tanh', 'identity', 'polynomial', 'unit']

# Of the error decay estimator: t goes from the first to the second.
SLOWEST, STEEPEST = 0.1, 10.0


def identity(x: Array) -> Array:
  """sign(x) with gradient 1 everywhere.

  Args:
    x: any shape.
  Returns:
    +1 and -1 in x's dtype.
  Source: Courbariaux, Bengio, David 2015, arXiv:1511.00363, algorithm 1.
  """
  return ste.straight_through(x, ste.sign(x))


def hard_tanh(x: Array) -> Array:
  """sign(x) with the gradient of clip(x, -1, 1): 1 where |x| <= 1, 0 beyond.

  Args:
    x: any shape.
  Returns:
    +1 and -1 in x's dtype.
  Source: Courbariaux et al. 2016, arXiv:1602.02830, section 1.3.
  """
  return ste.sign(x)


def unit(x: Array) -> Array:
  """1 where x >= 1/2, 0 elsewhere: DoReFa's activations of one bit, round(clip(x, 0, 1)); gradient 1 in 0..1, 0 beyond.

  Args:
    x: any shape; what follows a ReLU is welcome.
  Returns:
    1 and 0 in x's dtype.
  Source: Zhou et al. 2016, arXiv:1606.06160, section 2.4.
  """
  return ste.straight_through(ste.clip(x, 0, 1), (x >= 0.5).astype(x.dtype))


def polynomial(x: Array) -> Array:
  """sign(x) with the gradient of a piecewise polynomial: 2 - 2|x| where |x| <= 1, 0 beyond.

  Args:
    x: any shape.
  Returns:
    +1 and -1 in x's dtype.
  Source: Liu et al. 2018, arXiv:1808.00278 (Bi-Real Net), ApproxSign.
  """
  return pass_through(x, jax.lax.stop_gradient(ste.sign(x)), jnp.maximum(2 - 2 * jnp.abs(x), 0))


def error_decay(x: Array, progress: Array) -> Array:
  """sign(x) with the gradient of k tanh(t x), which grows from nearly the identity to nearly the sign.

    gradient = k t (1 - tanh(t x)^2),  t = 0.1 * 100^progress,  k = max(1 / t, 1)

  Args:
    x: any shape.
    progress: part of the training that is over, 0..1.
  Returns:
    +1 and -1 in x's dtype.
  Source: Qin et al. 2020, arXiv:1909.10788 (IR-Net), error decay estimator.
  """
  t = SLOWEST * (STEEPEST / SLOWEST) ** jnp.asarray(progress, x.dtype)
  slope = jnp.maximum(1 / t, 1) * t * (1 - jnp.tanh(t * x) ** 2)
  return pass_through(x, jax.lax.stop_gradient(ste.sign(x)), slope)


@jax.custom_jvp
def pass_through(x: Array, value: Array, slope: Array) -> Array:
  """`value` in the forward pass, bit for bit; in the backward pass `slope` times the gradient goes to `x`.

  Args:
    x: any shape.
    value: same shape; it gets the gradient as well.
    slope: same shape.
  Returns:
    `value`.
  """
  del x, slope
  return value


@pass_through.defjvp
def _pass_through_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
  x, value, slope = primals
  return pass_through(x, value, slope), tangents[1] + slope * tangents[0]
