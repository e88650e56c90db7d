"""NetAdapt: a network made cheaper round by round, in each by the one choice that costs the least accuracy."""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lightjax.search.rewards import Outcome
from lightjax.search.space import Candidate, Space
from lightjax.search.strategy import State, Strategy, strategy

__all__ = ['netadapt']


def netadapt(
  space: Space, *, cost: Callable[[Candidate], float], target: float, step: float = 0.05, decay: float = 0.96,
) -> Strategy:
  """Greedy adaptation: in each round every choice alone is lowered just enough, and the best of these is taken.

  Round r asks for a cost of at most max(cost of the base - step * cost of the whole * decay^r, target). Each choice of
  the base is lowered to its largest option with which that is met; choices that can't meet it alone propose nothing.
  When all proposals are observed, the one of the highest quality is the next base. The search ends at a base within the
  target, which is then proposed again and again.

  Args:
    space: options of each choice ascend in cost; the last of each is the whole network.
    cost: candidate -> predicted cost, in any unit; it is asked once for each candidate. Where it falls though an option
      grows, as noise may have it, an option is found that meets the limit, but not always the largest.
    target: cost that is to be reached, in that unit.
    step: what the first round takes off, as a ratio of the whole network's cost, 0..1.
    decay: of the step from round to round, 0..1.
  Returns:
    The strategy; its `base` is the network that the proposals go on from: they are fine-tuned shortly from its weights.
  Raises:
    ValueError: a step or decay outside 0..1; the smallest candidate costs more than the target; no choice alone lowers
      the cost any more.
  Source: Yang et al. 2018, arXiv:1804.03230, algorithm 1.
  Deviations from the paper: the last round stops at the target and does not pass it; a step that no choice meets alone
    is halved until one does; qualities that are equal go by the lower cost.
  """
  if not 0 < step <= 1 or not 0 < decay <= 1:
    raise ValueError(f'netadapt: step={step} and decay={decay} are ratios, above 0 and at most 1.')
  cost = functools.cache(cost)
  whole, least = tuple(size - 1 for size in space.sizes), (0,) * len(space.sizes)
  if not cost(least) <= target:
    raise ValueError(
      f'netadapt: the smallest candidate costs {cost(least):,.6g}, more than the target of {target:,.6g}; raise the '
      'target, or let choices have smaller options.')

  def lowered(base: Candidate, place: int, limit: float) -> Candidate | None:
    """By bisection, as a cost that is measured is asked for seldom: option `low` is known to meet it, `high` not to."""
    if not base[place] or cost(_exchanged(base, place, 0)) > limit:
      return None
    low, high = 0, base[place]
    while high - low > 1:
      middle = (low + high) // 2
      low, high = (middle, high) if cost(_exchanged(base, place, middle)) <= limit else (low, middle)
    return _exchanged(base, place, low)

  @functools.cache
  def proposals(base: Candidate, number: int) -> tuple[Candidate, ...]:
    """Of a round, in the order of the choices; none when the search has ended."""
    if cost(base) <= target:
      return ()
    most = max(cost(base) - cost(_exchanged(base, place, 0)) for place in range(len(base)))
    if most <= 0:
      raise ValueError(
        f'netadapt: {base} costs {cost(base):,.6g}, more than the target of {target:,.6g}, and no choice alone lowers '
        'that; take a cost that falls with each choice.')
    wanted = step * cost(whole) * decay**number
    while wanted > most and cost(base) - most > target:
      wanted /= 2
    limit = max(cost(base) - wanted, target)
    found = (lowered(base, place, limit) for place in range(len(base)))
    return tuple(each for each in found if each is not None)

  def pick(state: State, generator: np.random.Generator) -> Candidate:
    base = _base(state)
    round_ = proposals(base, int(state.policy['round']))
    return round_[(int(state.proposed) - int(state.policy['proposed'])) % len(round_)] if round_ else base

  def learn(state: State, candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    policy, first = state.policy, int(state.policy['observed'])
    seen = {tuple(row): Outcome(*each) for row, each in zip(
      state.candidates[first:].tolist(), state.outcomes[first:].tolist(), strict=True)} | {candidate: outcome}
    round_ = proposals(_base(state), int(policy['round']))
    if not round_ or any(each not in seen for each in round_):
      return dict(policy)
    best = max(round_, key=lambda each: (seen[each].quality, -cost(each)))
    return {'base': np.asarray(best), 'round': np.asarray(int(policy['round']) + 1), 'proposed': state.proposed,
            'observed': np.asarray(len(state.candidates) + 1)}

  start = {'base': np.asarray(whole), 'round': np.asarray(0), 'proposed': np.asarray(0), 'observed': np.asarray(0)}
  return strategy(space, pick, start, learn, _base)


def _base(state: State) -> Candidate:
  return tuple(map(int, state.policy['base']))


def _exchanged(candidate: Candidate, place: int, option: int) -> Candidate:
  return (*candidate[:place], option, *candidate[place + 1:])
