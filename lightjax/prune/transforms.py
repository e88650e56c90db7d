"""Pruning as a transform: masks that a schedule moves, kept exactly in the view, the params and what is stored."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lightjax.core import trees
from lightjax.core.schedules import Schedule
from lightjax.core.ste import straight_through as through
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Layout, Leaves, Path, Variables
from lightjax.prune import budgets, evidence
from lightjax.prune.evidence import Criterion
from lightjax.prune.patterns import Pattern, lowest

__all__ = ['Growth', 'prune']


class Growth(NamedTuple):
  """Dynamic sparse training: at each move some of the kept weights are dropped, and as many others grow, from zero.

  Attributes:
    criterion: the highest of its scores grow; `gradient_magnitude` in RigL, `random` in SET.
    fraction: of the kept weights that a move exchanges, at step 0; ratio 0..1.
    end: step at which it has fallen to zero, on half a cosine.
  Source: Evci et al. 2020, arXiv:1911.11134, section 3 (2) and algorithm 1; Mocanu et al. 2018, arXiv:1707.04780.
  """
  criterion: Criterion
  fraction: float
  end: int

  def at(self, step: int) -> float:
    """The fraction at a step."""
    return self.fraction / 2 * (1 + math.cos(math.pi * min(step / max(self.end, 1), 1.0)))


def prune(
  criterion: Criterion,
  pattern: Pattern,
  budget: budgets.Budget,
  schedule: Schedule,
  *,
  every: int,
  first: Criterion | None = None,
  growth: Growth | None = None,
  straight_through: bool = False,
  rounds: int = 1,
) -> Transform:
  """Zeros where the criterion is lowest, as many as the budget says at the schedule's sparsity, in the pattern's shape.

  The view is w * mask, and the optimizer's step is projected on the mask as well: momentum, weight decay and averages
  cannot revive a pruned weight. A new mask is ranked from the weights as they are and replaces the old one. A move at
  step 0 is made before training, when the transform is initialized: pruning at initialization.

  With `growth`, a move first drops by the criterion among the weights that are kept, so many more than it has to, and
  then grows others by the growth's criterion; both have exactly the budget's number afterwards. A weight that grows was
  zero, and so was its share of every optimizer slot. One that is dropped and grown in the same move stays as it was.

  Args:
    criterion: formula of what it needs; see `criteria`.
    pattern: which entries go together; see `patterns`.
    budget: sizes and a sparsity -> numbers; see `budgets`.
    schedule: sparsity (ratio 0..1 of zeros) over training steps; see `core.schedules`.
    every: steps between two moves of the mask.
    first: criterion of the first move; None: `criterion`. RigL and SET start from `random`.
    growth: what grows at each later move; None: nothing.
    straight_through: the pruned weights keep their values and get the gradient of the view, so that they may come back;
      the mask is ranked from them. They are not projected, and neither are the optimizer's slots. Move the mask often:
      a masked weight gets no answer to what it does, and grows as long as it stays masked.
    rounds: rounds of the move before training, over which the kept share falls geometrically; criteria are evaluated
      anew in each (SynFlow: 100).
  Returns:
    A transform that owns, as state, a bool mask for each parameter and the table of its moves (steps and exact counts):
    the sparsity is data, so that runs at other sparsities share one compiled step.
  Raises:
    ValueError: the criterion asks for what there is not. At init: a sparsity lies outside 0..1, the pattern does not
      divide a parameter, or it allows less than the budget asks for; the message names the parameter and the numbers.
  Source: Zhu and Gupta 2017, arXiv:1710.01878 (with the cubic schedule, the uniform budget and magnitude).
  Deviations from the paper: pruned weights are set to zero and do not come back, where the paper keeps their last
  value; `straight_through` keeps them.
  """
  name = f'prune({getattr(criterion, "__name__", criterion)})'
  if rounds < 1:
    raise ValueError(f'{name}: rounds={rounds}; the move before training takes 1 or more.')
  criteria = [each for each in (criterion, first, growth and growth.criterion) if each is not None]
  everything = {asked: None for each in criteria for asked in evidence.asked(each, name)}
  accumulated = tuple(each for each in evidence.ACCUMULATED if each in everything)

  moves = schedule.steps(every)
  is_done_before_training = len(moves) == 1 and moves[0] <= 0

  def init(variables: Variables, context: Context) -> Own:
    leaves = context.select(variables)
    grids = {path: pattern.grid(path, leaf.shape, context.layouts.get(path)) for path, leaf in leaves.items()}
    tables = [_counts(schedule.value(int(step)), int(step), leaves, grids, context.layouts) for step in moves]
    units = {group: sum(math.prod(grids[path]) for path in group) for group in tables[0]}
    grown = {
      group: [0 if growth is None or i == 0 else int(growth.at(int(step)) * (units[group] - table[group]))
              for i, (step, table) in enumerate(zip(moves, tables, strict=True))] for group in units}
    state: dict[str, Any] = {
      'masks': {path: jnp.ones(leaf.shape, bool) for path, leaf in leaves.items()},
      'steps': jnp.asarray(moves),
      'counts': {'|'.join(group): jnp.array([each[group] for each in tables], jnp.int32) for group in units},
      'grown': {'|'.join(group): jnp.array(counts, jnp.int32) for group, counts in grown.items()},
      'moved': jnp.zeros((), jnp.int32),  # how many moves are done
      'sums': {each: {path: jnp.zeros(leaf.shape, jnp.float32) for path, leaf in leaves.items()}
               for each in accumulated},
      'seen': jnp.zeros((), jnp.int32),  # steps in the sums
    }
    if moves[0] > 0:
      return Own(state=state)
    if any(tables[0].values()):
      state = _accumulate(state, variables, context) if accumulated else state
      def one(variables: Variables, masks: Leaves, count: Mapping[str, Array | int]) -> Leaves:
        return _first(variables, {**state, 'masks': masks}, count, context, grids)

      make = one if rounds == 1 else jax.jit(one)  # compiling pays from the second round on
      for count in _rounds(units, tables[0]):
        state = {**state, 'masks': make(variables, state['masks'], count)}
    return Own(state={**state, 'moved': jnp.ones((), jnp.int32)})

  def _counts(
    sparsity: float, step: int, leaves: Mapping[Path, Any], grids: Mapping[Path, tuple[int, ...]],
    layouts: Mapping[Path, Layout],
  ) -> budgets.Counts:
    if not 0.0 <= sparsity <= 1.0:
      raise ValueError(f'{name}: the schedule gives sparsity {sparsity} at step {step}; it is a ratio 0..1.')
    counts = budgets.ask(
      budget, sizes={path: math.prod(grid) for path, grid in grids.items()}, sparsity=sparsity,
      shapes={path: tuple(leaf.shape) for path, leaf in leaves.items()},
      macs={path: layouts[path].macs if path in layouts else 0 for path in leaves})
    for group, count in counts.items():
      most = sum(pattern.most(grids[path]) for path in group)
      if not 0 <= count <= most:
        raise ValueError(
          f'{name}: at sparsity {sparsity:.4g} the budget prunes {count} of {group[0]!r}'
          f'{f" and {len(group) - 1} others" if len(group) > 1 else ""}, and {pattern.name} allows {most} of '
          f'{sum(math.prod(grids[path]) for path in group)}; lower the sparsity, or choose another budget or pattern.')
    return counts

  def _rounds(units: Mapping[tuple[Path, ...], int], last: budgets.Counts) -> list[dict[str, int]]:
    """Numbers pruned after each round of the move before training."""
    return [{
      '|'.join(group): count if i == rounds else min(count, round(
        units[group] * (1 - (1 - count / units[group]) ** (i / rounds)))) for group, count in last.items()
    } for i in range(1, rounds + 1)]

  def _masked(variables: Variables, masks: Leaves) -> dict[Path, Array]:
    leaves = trees.flatten(variables)
    return {path: jnp.where(mask, leaves[path], 0) for path, mask in masks.items()}

  def _scores(
    scorer: Criterion, variables: Variables, state: Mapping, context: Context, grids: Mapping[Path, tuple[int, ...]],
  ) -> dict[Path, Array]:
    """Scores of the tiles of every parameter."""
    asked = evidence.asked(scorer, name)
    given = evidence.gather(
      asked, variables, _masked(variables, state['masks']), state['sums'], state['seen'], context, name)
    scored = {}
    for path, mask in state['masks'].items():
      scores = scorer(**{each: given[each][path] for each in asked})
      if scores.shape != mask.shape:
        raise ValueError(
          f'{name}: scores of {path!r} have shape {scores.shape}; a criterion returns one score a weight, '
          f'shape {mask.shape}.')
      scored[path] = pattern.merge(scores, grids[path])
    return scored

  def _first(
    variables: Variables, state: Mapping, counts: Mapping[str, Array | int], context: Context,
    grids: Mapping[Path, tuple[int, ...]],
  ) -> dict[Path, Array]:
    kept_so_far = variables if straight_through else trees.replace(variables, _masked(variables, state['masks']))
    scores = _scores(first or criterion, kept_so_far, state, context, grids)
    return _select({path: pattern.hold(score) for path, score in scores.items()}, counts, state['masks'])

  def _select(scores: Leaves, counts: Mapping[str, Array | int], masks: Leaves) -> dict[Path, Array]:
    """Masks from the scores of tiles, group by group."""
    kept: dict[Path, Array] = {}
    for group, count in counts.items():
      kept.update(lowest({path: scores[path] for path in group.split('|')}, count))
    return {path: pattern.spread(kept[path], mask.shape) for path, mask in masks.items()}

  def _exchange(
    variables: Variables, state: Mapping, counts: Mapping[str, Array], grown: Mapping[str, Array], context: Context,
    grids: Mapping[Path, tuple[int, ...]], growing: Criterion,
  ) -> dict[Path, Array]:
    active = {path: pattern.merge(mask, grids[path]) > 0 for path, mask in state['masks'].items()}
    scores = _scores(criterion, variables, state, context, grids)
    dropped = {path: jnp.where(active[path], score, -jnp.inf) for path, score in scores.items()}
    stays = _select(dropped, {group: counts[group] + grown[group] for group in counts}, state['masks'])
    growth_scores = _scores(growing, variables, state, context, grids)
    ranked = {
      path: pattern.hold(jnp.where(pattern.merge(stays[path], grids[path]) > 0, jnp.inf, score))
      for path, score in growth_scores.items()}
    return _select(ranked, counts, state['masks'])

  def _accumulate(state: Mapping, variables: Variables, context: Context) -> dict:
    leaves, view = trees.flatten(variables), trees.replace(variables, _masked(variables, state['masks']))
    gradients = evidence.gradient_at(view, state['masks'], context, name)
    sums = {
      each: {path: total + evidence.ACCUMULATED[each](leaves[path], gradients[path]).astype(total.dtype)
             for path, total in state['sums'][each].items()} for each in accumulated}
    return {**state, 'sums': sums, 'seen': state['seen'] + 1}

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    leaves, masked = trees.flatten(variables), _masked(variables, own.state['masks'])
    if straight_through:
      masked = {path: through(leaves[path], value) for path, value in masked.items()}
    return trees.replace(variables, masked)

  def update(variables: Variables, own: Own, context: Context) -> Own:
    if is_done_before_training:
      return own
    state = _accumulate(own.state, variables, context) if accumulated else own.state
    grids = {
      path: pattern.grid(path, mask.shape, context.layouts.get(path)) for path, mask in state['masks'].items()}
    # A run that starts or resumes late makes the latest move that is due, once.
    due = jnp.sum(state['steps'] <= context.step)
    latest = jnp.clip(due - 1, 0, state['steps'].shape[0] - 1)
    counts = {group: table[latest] for group, table in state['counts'].items()}
    grown = {group: table[latest] for group, table in state['grown'].items()}

    def begin() -> dict[Path, Array]:
      return _first(variables, {**state, 'masks': jax.tree.map(jnp.ones_like, state['masks'])}, counts, context, grids)

    def go_on() -> dict[Path, Array]:
      if growth is not None:
        return _exchange(variables, state, counts, grown, context, grids, growth.criterion)
      scores = _scores(criterion, variables, state, context, grids)
      return _select({path: pattern.hold(score) for path, score in scores.items()}, counts, state['masks'])

    def move() -> dict[Path, Array]:
      if growth is None and first is None:
        return go_on()
      return jax.lax.cond(state['moved'] == 0, begin, go_on)

    masks = jax.lax.cond(due > state['moved'], move, lambda: state['masks'])
    return Own(state={**state, 'masks': masks, 'moved': due})

  def project(variables: Variables, own: Own) -> Variables:
    return variables if straight_through else trees.replace(variables, _masked(variables, own.state['masks']))

  def support(own: Own) -> Leaves:
    # A scalar True: every entry may be non-zero in the params, though not in the view.
    return {path: jnp.ones((), bool) if straight_through else mask for path, mask in own.state['masks'].items()}

  return transform(name, init=init, view=view, update=update, project=project, support=support)
