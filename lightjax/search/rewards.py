"""One number from quality and cost, for strategies that maximize one.

A reward is a function (`Outcome`) -> float.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ['Outcome', 'error_by_log_cost', 'hard', 'quality', 'soft', 'weighted']


class Outcome(NamedTuple):
  """What the evaluation of a candidate said.

  Attributes:
    quality: to be large: the accuracy on the validation split, 0..1.
    cost: to be small, positive: latency in ms, bytes, MACs.
  """
  quality: float
  cost: float


Reward = Callable[[Outcome], float]


def weighted(*, target: float, within: float, beyond: float) -> Reward:
  """Quality by a power of the cost over a target, q (c / T)^w with w = `within` where c <= T, else `beyond`.

  Args:
    target: T, in the unit of the cost.
    within: exponent of costs up to the target.
    beyond: exponent of larger costs; negative.
  Returns:
    The reward.
  Raises:
    ValueError: a target that is not positive.
  Source: Tan et al. 2019, arXiv:1807.11626, eq. 2 and 3 (there alpha and beta).
  """
  if not target > 0:
    raise ValueError(f'target={target}: give a positive cost, in the unit of the costs.')
  return lambda outcome: outcome.quality * (outcome.cost / target) ** (within if outcome.cost <= target else beyond)


def hard(*, target: float) -> Reward:
  """The target as a bound: no reward for costs below it, q T / c above it.

  Args:
    target: in the unit of the cost.
  Returns:
    The reward.
  Example:
    >>> hard(target=2.0)(Outcome(0.8, 1.0)), hard(target=2.0)(Outcome(0.8, 4.0))
    (0.8, 0.4)

  Source: Tan et al. 2019, arXiv:1807.11626, section 3.1: alpha = 0, beta = -1.
  """
  return weighted(target=target, within=0.0, beyond=-1.0)


def soft(*, target: float, exponent: float = -0.07) -> Reward:
  """The target as a scale: q (c / T)^w on both sides.

  Args:
    target: in the unit of the cost.
    exponent: w; at -0.07 twice the cost is worth 5 % more quality.
  Returns:
    The reward.
  Source: Tan et al. 2019, arXiv:1807.11626, section 3.1: alpha = beta = -0.07.
  """
  return weighted(target=target, within=exponent, beyond=exponent)


def quality(outcome: Outcome) -> float:
  """Quality alone, whatever it costs."""
  return outcome.quality


def error_by_log_cost(outcome: Outcome) -> float:
  """The error by the order of the cost, -(1 - q) log c: small networks pay as long as their accuracy stays.

  Args:
    outcome: of a quality 0..1 and a cost above 1, such as MACs.
  Returns:
    The reward, not positive.
  Raises:
    ValueError: a cost of 1 or less.
  Source: He et al. 2018, arXiv:1802.03494, section 3.3 (R_FLOPs).
  """
  if not outcome.cost > 1:
    raise ValueError(f'error_by_log_cost: the cost {outcome.cost} has no positive logarithm; count MACs or params.')
  return -(1 - outcome.quality) * math.log(outcome.cost)
