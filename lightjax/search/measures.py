"""How good a search was, from what it evaluated: hypervolume, regret, rank correlation."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from lightjax.search.rewards import Outcome

__all__ = ['frontier', 'hypervolume', 'rank_correlation', 'regret']


def frontier(outcomes: Sequence[Outcome]) -> Bool[np.ndarray, ' n']:
  """Which outcomes no other one dominates: none is as good and as cheap, and better in one of both.

  Args:
    outcomes: any number.
  Returns:
    One bool each; equal outcomes are all in or all out.
  Example:
    >>> frontier([Outcome(0.9, 2.0), Outcome(0.8, 1.0), Outcome(0.8, 3.0)]).tolist()
    [True, True, False]
  """
  if not len(outcomes):
    return np.zeros(0, bool)
  values = np.asarray(outcomes, float) * (1.0, -1.0)
  no_worse = (values[:, None] >= values[None]).all(-1)
  better = (values[:, None] > values[None]).any(-1)
  return np.asarray(~(no_worse & better).any(0))


def hypervolume(outcomes: Sequence[Outcome], *, reference: Outcome) -> float:
  """The area that outcomes dominate, down to a reference: the integral of the best quality over the cost.

  Args:
    outcomes: any number; what is worse than the reference in one of both adds nothing.
    reference: the quality and the cost that count as worthless.
  Returns:
    Quality times cost, 0 for none.
  Example:
    >>> hypervolume([Outcome(0.5, 1.0), Outcome(1.0, 2.0)], reference=Outcome(0.0, 4.0))
    2.5

  Source: Zitzler and Thiele 1998, the size of the dominated space.
  """
  area, best = 0.0, reference.quality
  inside = [each for each in outcomes if each[1] < reference.cost and each[0] > reference.quality]
  for quality, cost in sorted(inside, key=lambda each: (each[1], -each[0])):
    if quality > best:
      area += (quality - best) * (reference.cost - cost)
      best = quality
  return area


def regret(rewards: Sequence[float], *, best: float) -> Float[np.ndarray, ' n']:
  """The best reward of all minus the best that was found, after each evaluation.

  Args:
    rewards: in the order of the evaluations.
    best: the largest of the whole space.
  Returns:
    One number an evaluation, never growing.
  Example:
    >>> regret([0.5, 0.25, 0.75], best=1.0).tolist()
    [0.5, 0.5, 0.25]
  """
  return best - np.maximum.accumulate(np.asarray(rewards, float))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
  """Kendall's tau-b: pairs that both order alike minus those that they do not, over pairs that are no ties.

  tau = (P - Q) / sqrt((P + Q + T1) (P + Q + T2)), with T1 the ties of the first alone and T2 those of the second.

  Args:
    first: numbers of some things.
    second: other numbers of the same things.
  Returns:
    -1..1; NaN where one of both is constant.
  Raises:
    ValueError: not equally many, or fewer than two.
  Example:
    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.6666666666666666

  Source: Kendall 1945, the treatment of ties in ranking problems.
  """
  if len(first) != len(second) or len(first) < 2:
    raise ValueError(f'rank_correlation: {len(first)} and {len(second)} numbers; give two or more pairs.')
  rows, columns = np.triu_indices(len(first), 1)
  signs = [np.sign(np.asarray(each, float)[rows] - np.asarray(each, float)[columns]) for each in (first, second)]
  untied = np.prod([np.count_nonzero(each) for each in signs], dtype=float)
  return float((signs[0] * signs[1]).sum() / np.sqrt(untied)) if untied else float('nan')
