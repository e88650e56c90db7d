"""Bop, an optimizer of binary weights without latent ones: a weight flips when a gradient pushes it long enough."""
from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lightjax.core.typing import Array, PyTree

__all__ = ['Flips', 'bop']


class Flips(NamedTuple):
  """State of `bop`: steps taken, and the moving average of the gradients, a tree like the params."""
  step: Array
  average: PyTree


def bop(adaptivity: optax.ScalarOrSchedule, *, threshold: float) -> optax.GradientTransformation:
  """Flips the sign of a weight where the average gradient is large and points against it.

    m = (1 - adaptivity) m + adaptivity g;   w = -w where |m| > threshold and sign(m) = sign(w)

  Args:
    adaptivity: weight of the newest gradient, 0..1, or a schedule of it.
    threshold: of the average gradient, 0 or more.
  Returns:
    An optax transformation for params of which only the sign counts (`binarize.weights(binarizers.bnn, clip=None)`);
    sizes stay as they were initialized. It needs the params in `update`. Zero counts as plus, and becomes -1.
  Raises:
    ValueError: a negative threshold; or `update` without params.
  Source: Helwegen et al. 2019, arXiv:1906.02107, algorithm 1.
  """
  if threshold < 0:
    raise ValueError(f'bop: threshold={threshold} is compared with |average gradient|; it is 0 or more.')

  def init(params: PyTree) -> Flips:
    return Flips(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

  def update(gradients: PyTree, state: Flips, params: PyTree | None = None) -> tuple[PyTree, Flips]:
    if params is None:
      raise ValueError('bop flips weights: call update(gradients, state, params).')
    rate = adaptivity(state.step) if callable(adaptivity) else adaptivity
    average = jax.tree.map(lambda m, g: ((1 - rate) * m + rate * g).astype(m.dtype), state.average, gradients)

    def flip(m: Array, w: Array) -> Any:
      against = (jnp.abs(m) > threshold) & ((m > 0) == (w >= 0))
      return jnp.where(against, jnp.where(w == 0, -1, -2 * w), 0).astype(w.dtype)

    return jax.tree.map(flip, average, params), Flips(state.step + 1, average)

  return optax.GradientTransformation(init, update)
