"""Schedules of a number over training steps: when it may move, and what it is then.

`Schedule` says where it begins and ends, so that whoever follows it can list the steps at which something happens.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ['Schedule', 'alternating', 'constant', 'cubic', 'from_optax', 'one_shot', 'periodic']


class Schedule(NamedTuple):
  """A number over the steps `begin`..`end`; before `begin` it does not act, after `end` it stays.

  Attributes:
    value: step -> number. Evaluated on the host, in float64.
    begin: first step at which it acts.
    end: last step at which it changes.
  """
  value: Callable[[int], float]
  begin: int
  end: int

  def steps(self, every: int) -> np.ndarray:
    """The steps at which a follower acts: every `every` steps from `begin`, and `end` itself; int32, ascending."""
    if every < 1:
      raise ValueError(f'every={every}: a schedule is followed every 1 or more steps.')
    return np.unique(np.append(np.arange(self.begin, self.end, every), self.end)).astype(np.int32)


def constant(value: float) -> Schedule:
  """The same number from step 0 on."""
  return Schedule(lambda step: value, 0, 0)


def one_shot(value: float, *, begin: int) -> Schedule:
  """The number from step `begin` on, at once."""
  return Schedule(lambda step: value, begin, begin)


def cubic(initial: float, final: float, *, begin: int, end: int) -> Schedule:
  """Fast first, slow last: s(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^3.

  Args:
    initial: value at `begin` (sparsity, ratio 0..1).
    final: value at `end` and after.
    begin: first step.
    end: last step, greater than `begin`.
  Returns:
    The schedule; at `end` it is `final` exactly.
  Raises:
    ValueError: `end` does not follow `begin`.
  Example:
    >>> schedule = cubic(0.0, 0.9, begin=0, end=100)
    >>> [round(schedule.value(step), 4) for step in (0, 50, 100, 200)]
    [0.0, 0.7875, 0.9, 0.9]

  Source: Zhu and Gupta 2017, arXiv:1710.01878, eq. 1.
  """
  if end <= begin:
    raise ValueError(f'cubic: end={end} must lie after begin={begin}.')

  def value(step: int) -> float:
    left = 1.0 - min(max((step - begin) / (end - begin), 0.0), 1.0)
    return final + (initial - final) * left**3

  return Schedule(value, begin, end)


def periodic(value: float, *, begin: int, end: int) -> Schedule:
  """The same number from `begin` to `end`: a follower acts again every so often, as sparse training does.

  Raises:
    ValueError: `end` lies before `begin`.
  """
  if end < begin:
    raise ValueError(f'periodic: end={end} lies before begin={begin}.')
  return Schedule(lambda step: value, begin, end)


def alternating(value: float, *, begin: int, end: int, every: int) -> Schedule:
  """Phases of `every` steps in which the number is `value` and 0 in turn, from `begin` on; from `end` on it is `value`.

  Args:
    value: of the odd phases, the first of which starts at `begin` (sparsity, ratio 0..1).
    begin: first step of the first phase; dense before.
    end: first step of the last phase.
    every: length of a phase, steps.
  Returns:
    The schedule; whoever follows it acts every `every` steps.
  Raises:
    ValueError: `end` lies before `begin`.
  Example:
    >>> schedule = alternating(0.9, begin=10, end=40, every=10)
    >>> [schedule.value(step) for step in schedule.steps(10)]
    [0.9, 0.0, 0.9, 0.9]

  Source: Peste et al. 2021 (AC/DC), arXiv:2106.12379, algorithm 1.
  """
  if end < begin:
    raise ValueError(f'alternating: end={end} lies before begin={begin}.')
  return Schedule(lambda step: value if step >= end or (step - begin) // every % 2 == 0 else 0.0, begin, end)


def from_optax(schedule: Callable[[Any], Any], *, begin: int, end: int) -> Schedule:
  """Any optax schedule (step -> number), followed from `begin` to `end`."""
  if end < begin:
    raise ValueError(f'from_optax: end={end} lies before begin={begin}.')
  return Schedule(lambda step: float(schedule(step)), begin, end)
