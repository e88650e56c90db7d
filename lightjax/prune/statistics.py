"""BatchNorm's running statistics, estimated again for weights that changed without them."""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from lightjax.core.typing import Variables

__all__ = ['reestimate']

COLLECTION = 'batch_stats'


def reestimate(apply: Callable[[Variables, Any], Any], variables: Variables, batches: Iterable[Any]) -> Variables:
  """Running statistics from scratch: mean = E[m], var = E[v + m^2] - mean^2 over batches of mean m and variance v.

  Whatever the layers' momentum: a running statistic is an affine function of what it was, so that two passes from
  zeros and from ones tell the batch's own. Statistics of other names than 'mean' and 'var' are averaged.

  Args:
    apply: (variables, batch) -> the new 'batch_stats', in training mode:
      `lambda variables, x: model.apply(variables, x, train=True, mutable=['batch_stats'])[1]['batch_stats']`.
    variables: with the collection 'batch_stats'; whole, masked or with channels removed.
    batches: inputs of equal sizes, a few hundred examples in all or more.
  Returns:
    The variables with new statistics.
  Raises:
    ValueError: there are no batches, or no statistics; or a layer does not move its statistics in training.
  Source: Wu and Johnson 2021, arXiv:2105.07576, section 3.1 (PreciseBN).
  """
  if COLLECTION not in variables or not jax.tree.leaves(variables[COLLECTION]):
    raise ValueError(f'reestimate: the variables have no {COLLECTION!r}; a network without them needs nothing.')

  moved = _moved(apply)
  sums, count = None, 0
  for batch in batches:
    own, fractions = moved(variables, batch)
    if count == 0:
      for path, kept in jax.tree_util.tree_leaves_with_path(fractions):
        if not float(kept) < 1 - 1e-6:
          name = jax.tree_util.keystr(path, simple=True, separator='/')
          raise ValueError(f'reestimate: {name} does not move; let apply run in training mode and return {COLLECTION}.')
    moments = _raised(own, 1)
    sums = moments if sums is None else jax.tree.map(jnp.add, sums, moments)
    count += 1
  if count == 0:
    raise ValueError('reestimate: there are no batches.')
  averages = jax.tree.map(lambda leaf: leaf / count, sums)
  return {**variables, COLLECTION: _raised(averages, -1)}


@functools.lru_cache(maxsize=8)
def _moved(apply: Callable[[Variables, Any], Any]) -> Callable[[Variables, Any], tuple[Any, Any]]:
  """(variables, batch) -> the batch's statistics, and the fraction of the old ones that each layer keeps.

  Compiled once for a function, which may be asked again for the same network with other channels masked.
  """

  @jax.jit
  def moved(variables: Variables, batch: Any) -> tuple[Any, Any]:
    zeros, ones = (
      apply({**variables, COLLECTION: jax.tree.map(lambda leaf, value=value: jnp.full_like(leaf, value),
                                                   variables[COLLECTION])}, batch) for value in (0.0, 1.0))
    fraction = jax.tree.map(lambda one, zero: one - zero, ones, zeros)
    own = jax.tree.map(lambda zero, kept: zero / jnp.where(kept < 1, 1 - kept, 1), zeros, fraction)
    return own, jax.tree.map(lambda kept: jnp.max(kept), fraction)

  return moved


def _raised(statistics: Any, sign: int) -> Any:
  """Each 'var' with the square of its 'mean' added (1) or taken off (-1)."""
  leaves = {path: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(statistics)}

  def change(path: tuple[Any, ...], leaf: Any) -> Any:
    mean = leaves.get((*path[:-1], jax.tree_util.DictKey('mean')))
    if path[-1] != jax.tree_util.DictKey('var') or mean is None:
      return leaf
    return jnp.maximum(leaf + sign * jnp.square(mean), 0)

  return jax.tree_util.tree_map_with_path(change, statistics)
