"""Mean, spread and interval over seeds, and what they say of a published figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.engine.errors import TableError, nearest

LEVEL = 0.95
# What the last word of a metric's name says: is more better?
_HIGHER = {
  'accuracy': True,
  'top1': True,
  'top5': True,
  'precision': True,
  'recall': True,
  'f1': True,
  'reward': True,
  'throughput': True,
  'compression': True,
  'agreement': True,
  'loss': False,
  'error': False,
  'bytes': False,
  'params': False,
  'nonzeros': False,
  'macs': False,
  'seconds': False,
  'latency_ms': False,
  'step_ms': False,
  'perplexity': False,
  'bits': False,
  'density': False,
}


class Summary(NamedTuple):
  """Mean over seeds, standard deviation with ddof 1 (NaN for one seed), number of seeds."""

  mean: float
  std: float
  n: int


class Comparison(NamedTuple):
  """Ours minus theirs with its 95 % interval (NaN where there are too few seeds), and a verdict."""

  difference: float
  low: float
  high: float
  verdict: str


def higher_is_better(metric: str) -> bool:
  """Which direction of a metric is an improvement, by the last word of its name.

  Args:
    metric: such as 'test/accuracy' or 'bytes'.
  Returns:
    True for accuracies, False for errors and sizes.
  Raises:
    TableError: the name says nothing; a table then declares HIGHER_IS_BETTER.

  Example:
    >>> higher_is_better('best/test/accuracy'), higher_is_better('bytes')
    (True, False)
  """
  word = metric.rsplit('/', 1)[-1]
  if word not in _HIGHER:
    raise TableError(
      f'METRIC {metric!r}: cannot tell whether higher is better; declare HIGHER_IS_BETTER = True or False '
      f'({nearest(word, _HIGHER)}).'
    )
  return _HIGHER[word]


def summarize(values: Sequence[float]) -> Summary:
  """Mean and standard deviation over seeds: s^2 = sum (x - mean)^2 / (n - 1).

  Args:
    values: one a seed, at least one.
  Returns:
    The summary; std is NaN for one value.
  Raises:
    ValueError: no values.

  Example:
    >>> summarize([1.0, 2.0, 3.0])
    Summary(mean=2.0, std=1.0, n=3)
  """
  if not values:
    raise ValueError('summarize: no values; leave rows without results out.')
  n = len(values)
  mean = math.fsum(values) / n
  std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else math.nan
  return Summary(mean, std, n)


def compare(
  values: Sequence[float], figure: float, *, is_higher_better: bool, std: float | None = None, n: int | None = None
) -> Comparison:
  """The difference to a published figure with a Student-t interval.

  d +- t(0.975, v) sqrt(s1^2/n1 + s2^2/n2). A figure without spread is a constant: s2 = 0, v = n1 - 1. With its own
  `std` and `n` the interval is Welch's: v = (a + b)^2 / (a^2/(n1-1) + b^2/(n2-1)) with a = s1^2/n1, b = s2^2/n2.

  Args:
    values: ours, one a seed.
    figure: theirs, same unit.
    is_higher_better: direction of the metric.
    std: standard deviation of the published figure (ddof 1), if it has one.
    n: number of its runs; needed with `std`, at least 2.
  Returns:
    Difference (ours - theirs), interval and verdict: 'within noise' (the interval contains 0), 'better', 'worse', or
    'too few seeds' (fewer than 3 of ours; no interval).

  Example:
    >>> compare([0.90, 0.91, 0.92], 0.80, is_higher_better=True).verdict
    'better'

  Source: Welch 1947, The generalization of Student's problem when several different population variances are involved.
  """
  ours = summarize(values)
  difference = ours.mean - figure
  if ours.n < 3:
    return Comparison(difference, math.nan, math.nan, 'too few seeds')
  square = ours.std**2 / ours.n
  freedom = float(ours.n - 1)
  if std is not None and n is not None and n > 1:
    theirs = std**2 / n
    if square + theirs > 0:
      freedom = (square + theirs) ** 2 / (square**2 / (ours.n - 1) + theirs**2 / (n - 1))
    square += theirs
  from scipy.special import stdtrit  # scipy.stats takes three times as long to import

  half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * math.sqrt(square)
  low, high = difference - half, difference + half
  # Seeds that agree to the last digit leave an interval of the width of a rounding error.
  tolerance = 1e-12 * max(abs(ours.mean), abs(figure))
  if low <= tolerance and high >= -tolerance:
    verdict = 'within noise'
  else:
    verdict = 'better' if (difference > 0) == is_higher_better else 'worse'
  return Comparison(difference, low, high, verdict)
