"""Observers of activation ranges: debiased moving averages of the ends of each batch's range, in float32.

They move in training only, never at init or in evaluation; under `jit` with a sharded batch the minimum is the global
one.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from lightjax.core.typing import Array

__all__ = ['Range', 'empty', 'extremes', 'limits', 'observe']


class Range(NamedTuple):
  """Sums of a moving average and the weight that they have gathered; dividing the one by the other removes the bias.

  Attributes:
    low: decayed sum of batch minima, float32 scalar.
    high: decayed sum of batch maxima.
    weight: decayed number of batches, 1 - decay^n; 0 means that nothing was seen.
  """
  low: Array
  high: Array
  weight: Array


def empty() -> Range:
  """A range that has seen nothing."""
  return Range(*(jnp.zeros((), jnp.float32) for _ in range(3)))


def extremes(x: Array) -> tuple[Array, Array]:
  """The smallest and the largest value."""
  return jnp.min(x), jnp.max(x)


def observe(
  seen: Range, x: Array, *, decay: float, limits: Callable[[Array], tuple[Array, Array]] = extremes
) -> Range:
  """The range after one more batch.

  Args:
    seen: the range so far.
    x: activations of a batch, any shape; no gradient passes.
    decay: weight of the past, 0..1; the first batch counts fully all the same.
    limits: x in float32 -> its range as two scalars; see `scales`.
  Returns:
    The new range.
  """
  low, high = limits(lax.stop_gradient(x).astype(jnp.float32))
  return Range(
    decay * seen.low + (1 - decay) * low,
    decay * seen.high + (1 - decay) * high,
    decay * seen.weight + (1 - decay),
  )


def limits(seen: Range) -> tuple[Array, Array]:
  """The debiased (low, high); (0, 0) where nothing was seen."""
  weight = jnp.where(seen.weight > 0, seen.weight, 1)
  return seen.low / weight, seen.high / weight
