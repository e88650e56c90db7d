"""Patterns: which entries may be zero together. A pattern turns the scores of a budget's group into masks."""
from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from lightjax.core.typing import Array, Path

__all__ = ['unstructured']


def unstructured(scores: Mapping[Path, Array], pruned: Array | int) -> dict[Path, Array]:
  """Any entry by itself: exactly the `pruned` lowest scores of the group become zero, ties broken by index.

  Args:
    scores: path to scores, any shapes, ranked together.
    pruned: how many entries to prune, 0..size; may be traced.
  Returns:
    Path to bool mask of the scores' shape, True where the entry is kept; their False entries number `pruned`.
  Example:
    >>> unstructured({'w': jnp.array([3.0, 1.0, 1.0, 2.0])}, 1)['w']
    Array([ True, False,  True,  True], dtype=bool)
  """
  flat = jnp.concatenate([score.astype(jnp.float32).ravel() for score in scores.values()])
  # One sort of the values and a count of the ties is cheaper than an argsort, and exact where many scores are equal.
  threshold = jnp.sort(flat)[jnp.maximum(pruned - 1, 0)]
  below, tied = flat < threshold, flat == threshold
  keep = ~(below | (tied & (jnp.cumsum(tied) <= pruned - below.sum())))
  ends = np.cumsum([score.size for score in scores.values()])[:-1]
  parts = jnp.split(keep, ends)
  return {path: part.reshape(score.shape) for (path, score), part in zip(scores.items(), parts, strict=True)}
