"""Where the centroids of k-means start: functions of the sorted weights that are not zero.

A start of your own is a function of the same form.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ['density', 'k_means_plus_plus', 'linear', 'random']

Start = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def linear(values: np.ndarray, entries: int, generator: np.random.Generator) -> np.ndarray:
  """Evenly from the smallest value to the largest, so that the few large weights have entries of their own.

  Args:
    values: ascending, float64, shape [n], n >= 1.
    entries: of the codebook.
    generator: unused.
  Returns:
    Centroids, shape [entries].
  Source: Han et al. 2016, arXiv:1510.00149, section 3.2 (linear initialization).
  """
  del generator
  return np.linspace(values[0], values[-1], entries)


def density(values: np.ndarray, entries: int, generator: np.random.Generator) -> np.ndarray:
  """Quantiles: an entry for every n / entries values.

  Args:
    values: ascending, float64, shape [n], n >= 1.
    entries: of the codebook.
    generator: unused.
  Returns:
    Centroids, shape [entries].
  Source: Han et al. 2016, arXiv:1510.00149, section 3.2 (density-based initialization).
  Example:
    >>> density(np.array([-4.0, -2.0, -1.0, 8.0]), 2, np.random.default_rng(0)).tolist()
    [-4.0, -1.0]
  """
  del generator
  return np.quantile(values, (np.arange(entries) + 0.5) / entries, method='inverted_cdf')


def random(values: np.ndarray, entries: int, generator: np.random.Generator) -> np.ndarray:
  """Values drawn without replacement, with it where there are fewer than entries.

  Args:
    values: ascending, float64, shape [n], n >= 1.
    entries: of the codebook.
    generator: of the draws.
  Returns:
    Centroids, shape [entries].
  Source: Han et al. 2016, arXiv:1510.00149, section 3.2 (Forgy).
  """
  return generator.choice(values, entries, replace=values.size < entries)


def k_means_plus_plus(values: np.ndarray, entries: int, generator: np.random.Generator) -> np.ndarray:
  """Values drawn one after another, each with probability proportional to its squared distance to the nearest so far.

  Args:
    values: ascending, float64, shape [n], n >= 1.
    entries: of the codebook.
    generator: of the draws.
  Returns:
    Centroids, shape [entries]; once every value has one, the rest are drawn uniformly.
  Source: Arthur and Vassilvitskii 2007, k-means++: the advantages of careful seeding, section 2.2.
  """
  chosen = [generator.choice(values)]
  distances = np.square(values - chosen[0])
  for _ in range(entries - 1):
    total = distances.sum()
    chosen.append(generator.choice(values, p=distances / total if total > 0 else None))
    distances = np.minimum(distances, np.square(values - chosen[-1]))
  return np.array(chosen)
