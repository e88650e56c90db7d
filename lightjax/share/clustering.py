"""K-means in one dimension, on sorted values: an iteration is one search for each entry, whatever the number of values.

With an entropy penalty a value goes to the entry with the least (value - centroid)^2 + penalty * variance * bits, where
bits = -log2(share of the values that have the entry): entries that few have are given up, and what is left takes fewer
bits once it is entropy-coded.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ['Clusters', 'cells', 'cluster']


class Clusters(NamedTuple):
  """A codebook and who has which entry.

  Attributes:
    centroids: ascending, float64, shape [entries].
    counts: number of values that have each, shape [entries]: the first of the sorted values have the first entry.
  """
  centroids: np.ndarray
  counts: np.ndarray


def cells(values: np.ndarray, centroids: np.ndarray, costs: np.ndarray) -> np.ndarray:
  """How many of the sorted values go to each centroid: to the one with the least (value - centroid)^2 + cost.

  Each centroid has an interval, for the squares of the value cancel: the costs are lines, and this is their lower
  envelope, built from left to right.

  Args:
    values: ascending, shape [n].
    centroids: ascending, shape [k].
    costs: of each, not negative; infinite for one that takes no values; shape [k].
  Returns:
    Counts, shape [k].
  """
  chosen: list[int] = []
  begins: list[float] = []  # from which value on each of the chosen is the best
  for i in np.flatnonzero(np.isfinite(costs)):
    begin = -np.inf
    while chosen:
      last = chosen[-1]
      gap = centroids[i] - centroids[last]
      if gap > 0:
        begin = (centroids[i] + centroids[last] + (costs[i] - costs[last]) / gap) / 2
      else:
        begin = -np.inf if costs[i] < costs[last] else np.inf
      if begin > begins[-1]:
        break
      chosen.pop()
      begins.pop()
      begin = -np.inf
    chosen.append(int(i))
    begins.append(begin)
  counts = np.zeros(centroids.size, np.int64)
  counts[chosen] = np.diff(np.searchsorted(values, begins), append=values.size)
  return counts


def cluster(values: np.ndarray, centroids: np.ndarray, *, entropy: float = 0.0, iterations: int = 300) -> Clusters:
  """Lloyd's iterations from a start, until no value changes its entry.

  Args:
    values: ascending, float64, shape [n], n >= 1.
    centroids: the start, shape [entries].
    entropy: penalty of a bit of entropy, in units of the values' variance; 0 for k-means.
    iterations: at most.
  Returns:
    The codebook. An entry that no value has stays where it was.
  Source: Lloyd 1982; with a penalty Choi, El-Khamy, Lee 2017, arXiv:1612.01543 (entropy-constrained scalar
  quantization, without the Hessian's weights).
  """
  sums = np.append(0.0, np.cumsum(values))
  penalty = entropy * float(np.var(values))
  centroids, costs = np.sort(centroids), np.zeros(centroids.size)
  counts = None
  for _ in range(iterations):
    before, counts = counts, cells(values, centroids, costs)
    if before is not None and np.array_equal(before, counts):
      break
    ends = np.cumsum(counts)
    totals = sums[ends] - sums[ends - counts]
    moved = np.where(counts > 0, totals / np.maximum(counts, 1), centroids)
    order = np.argsort(moved, kind='stable')  # an entry without values stays, and the others may pass it
    centroids, counts = moved[order], counts[order]
    if penalty:
      with np.errstate(divide='ignore'):
        costs = -penalty * np.log2(counts / values.size)
  assert counts is not None
  return Clusters(centroids, counts)
