"""Pruning as a transform: masks that a schedule moves, kept exactly in the view, the params and what is stored."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lightjax.core import rngs, trees
from lightjax.core.schedules import Schedule
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Leaves, Path, Variables

__all__ = ['prune']

_OFFERED = ('weight', 'gradient', 'key')


def prune(
  criterion: Callable[..., Array],
  pattern: Callable[[Mapping[Path, Array], Any], dict[Path, Array]],
  budget: Callable[[Mapping[Path, int], float], dict[tuple[Path, ...], int]],
  schedule: Schedule,
  *,
  every: int,
) -> Transform:
  """Zeros where the criterion is lowest, as many as the budget says at the schedule's sparsity, in the pattern's shape.

  The view is w * mask, and the optimizer's step is projected on the mask as well: momentum, weight decay and averages
  cannot revive a pruned weight. A new mask is ranked from the weights as they are and replaces the old one.

  Args:
    criterion: formula of `weight`, `gradient`, `key`; see `criteria`.
    pattern: scores and a number -> masks; see `patterns`.
    budget: sizes and a sparsity -> numbers; see `budgets`.
    schedule: sparsity (ratio 0..1 of zeros) over training steps; see `core.schedules`.
    every: steps between two moves of the mask.
  Returns:
    A transform that owns, as state, a bool mask for each parameter and the table of its moves (steps and exact counts):
    the sparsity is data, so that runs at other sparsities share one compiled step.
  Raises:
    ValueError: the criterion asks for what there is not; a sparsity lies outside 0..1.
  Source: Zhu and Gupta 2017, arXiv:1710.01878 (with the cubic schedule, the uniform budget and magnitude).
  Deviations from the paper: pruned weights are set to zero and do not come back, where the paper keeps their last
  value.
  """
  name = f'prune({getattr(criterion, "__name__", criterion)})'
  asked = tuple(inspect.signature(criterion).parameters)
  for parameter in asked:
    if parameter not in _OFFERED:
      raise ValueError(f'{name}: a criterion is offered {", ".join(_OFFERED)}, not {parameter!r}.')

  def init(variables: Variables, context: Context) -> Own:
    leaves = context.select(variables)
    sizes = {path: leaf.size for path, leaf in leaves.items()}
    moves = schedule.steps(every)
    sparsities = [schedule.value(int(step)) for step in moves]
    for step, sparsity in zip(moves, sparsities, strict=True):
      if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f'{name}: the schedule gives sparsity {sparsity} at step {step}; it is a ratio 0..1.')
    budgets = [budget(sizes, sparsity) for sparsity in sparsities]
    return Own(state={
      'masks': {path: jnp.ones(leaf.shape, bool) for path, leaf in leaves.items()},
      'steps': jnp.asarray(moves),
      'counts': {'|'.join(group): jnp.array([each[group] for each in budgets], jnp.int32) for group in budgets[0]},
      'moved': jnp.zeros((), jnp.int32),  # how many moves are done
    })

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    leaves, masks = trees.flatten(variables), own.state['masks']
    return trees.replace(variables, {path: jnp.where(mask, leaves[path], 0) for path, mask in masks.items()})

  def scores(leaves: Leaves, paths: tuple[Path, ...], context: Context) -> dict[Path, Array]:
    gradients = context.need('gradients', name)() if 'gradient' in asked else {}
    key = rngs.fold(context.need('key', name), context.step) if 'key' in asked else None
    scored = {}
    for path in paths:
      own_key = None if key is None else rngs.fold(key, path)
      offer = {'weight': leaves[path], 'gradient': gradients.get(path), 'key': own_key}
      scored[path] = criterion(**{parameter: offer[parameter] for parameter in asked})
      if scored[path].shape != leaves[path].shape:
        raise ValueError(
          f'{name}: scores of {path!r} have shape {scored[path].shape}; a criterion returns one score a weight, '
          f'shape {leaves[path].shape}.'
        )
    return scored

  def update(variables: Variables, own: Own, context: Context) -> Own:
    state, leaves = own.state, trees.flatten(variables)
    last = state['steps'].shape[0] - 1
    # A run that starts or resumes late makes the latest move that is due, once.
    due = jnp.sum(state['steps'] <= context.step)

    def move() -> dict[Path, Array]:
      masks: dict[Path, Array] = {}
      for group, counts in state['counts'].items():
        masks.update(pattern(scores(leaves, tuple(group.split('|')), context), counts[jnp.clip(due - 1, 0, last)]))
      return {path: masks[path] for path in state['masks']}

    masks = jax.lax.cond(due > state['moved'], move, lambda: state['masks'])
    return Own(state={**state, 'masks': masks, 'moved': due})

  return transform(
    name, init=init, view=view, update=update,
    project=lambda variables, own: view(variables, own), support=lambda own: own.state['masks'])
