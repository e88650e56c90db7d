"""Budgets: how many tiles of which parameters are pruned at a sparsity.

A budget is a function of any of `sizes`, `shapes`, `macs` and `sparsity` that returns {group of paths: number pruned};
the tiles of a group are ranked together. It runs on the host in float64, so that the counts are exact for every size.
Tiles are those of the pattern: single entries where it is unstructured. (LAMP is a criterion, with `global_`: it makes
scores of different layers comparable, and says nothing about how many go.)
"""
from __future__ import annotations

import inspect
import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightjax.core import trees
from lightjax.core.typing import Path

__all__ = ['by_path', 'equal_macs', 'erk', 'global_', 'uniform']

Counts = dict[tuple[Path, ...], int]
Budget = Callable[..., Counts]
_OFFERED = ('sizes', 'shapes', 'macs', 'sparsity')


def uniform(sizes: Mapping[Path, int], sparsity: float) -> Counts:
  """The same sparsity in every parameter: round(sparsity * size) of each.

  Args:
    sizes: path to number of tiles.
    sparsity: ratio 0..1 of zeros.
  Returns:
    One group a parameter.
  """
  return {(path,): round(sparsity * size) for path, size in sizes.items()}


def global_(sizes: Mapping[Path, int], sparsity: float) -> Counts:
  """One ranking over all parameters: round(sparsity * total); layers end at sparsities of their own.

  Args:
    sizes: path to number of tiles.
    sparsity: ratio 0..1 of zeros over all of them.
  Returns:
    A single group.
  """
  return {tuple(sizes): round(sparsity * sum(sizes.values()))}


def erk(sizes: Mapping[Path, int], shapes: Mapping[Path, tuple[int, ...]], sparsity: float) -> Counts:
  """Erdos-Renyi-kernel: the density of a layer is proportional to the sum of its dimensions over their product.

  density_l = epsilon * (h + w + in + out) / (h * w * in * out), with epsilon such that the whole has the sparsity.
  Layers that would exceed 1 are left dense, the largest first, and epsilon is found again for the rest.

  Args:
    sizes: path to number of tiles.
    shapes: path to the parameter's shape.
    sparsity: ratio 0..1 of zeros over all of them.
  Returns:
    One group a parameter, each rounded by itself.

  Source: Evci et al. 2020, arXiv:1911.11134, section 3 (1); Mocanu et al. 2018, arXiv:1707.04780, eq. 3.
  """
  raw = {path: sum(shape) / math.prod(shape) for path, shape in shapes.items()}
  dense: set[Path] = set()
  while True:
    left = (1.0 - sparsity) * sum(sizes.values()) - sum(sizes[path] for path in dense)
    free = [path for path in sizes if path not in dense]
    epsilon = left / sum(raw[path] * sizes[path] for path in free) if free else 0.0
    largest = max(free, key=lambda path: raw[path], default=None)
    if largest is None or epsilon * raw[largest] <= 1.0:
      break
    dense.add(largest)
  density = {path: 1.0 if path in dense else min(epsilon * raw[path], 1.0) for path in sizes}
  return {(path,): round((1.0 - density[path]) * size) for path, size in sizes.items()}


def by_path(ratios: Sequence[tuple[str, float]]) -> Budget:
  """A sparsity for each parameter, by patterns of paths.

  Args:
    ratios: pairs (regular expression of the whole path, sparsity 0..1), the first match wins; `read` has them from a
      file.
  Returns:
    A budget; the schedule's number, 0..1, is the share of these sparsities that is reached.
  Raises:
    ValueError: a sparsity is no ratio. Where it is used: a pattern that takes nothing, a parameter that none takes.
  Example:
    >>> by_path([('conv.*', 0.5), ('.*', 0.9)])({'conv1/kernel': 100, 'fc/kernel': 1000}, 1.0)
    {('conv1/kernel',): 50, ('fc/kernel',): 900}
  """
  pairs = tuple((pattern, ratio) for pattern, ratio in ratios)
  for pattern, ratio in pairs:
    if not 0.0 <= ratio <= 1.0:
      raise ValueError(f'by_path: {pattern!r} has sparsity {ratio}; it is a ratio 0..1.')

  def budget(sizes: Mapping[Path, int], sparsity: float) -> Counts:
    taken = {path: next((pair for pair in pairs if re.fullmatch(pair[0], path)), None) for path in sizes}
    for path, pair in taken.items():
      if pair is None:
        raise ValueError(f"by_path: no pattern takes {path!r}; end with ('.*', 0.0) to leave the rest dense.")
    for pair in pairs:
      if pair not in taken.values():
        raise ValueError(
          f'by_path: {pair[0]!r} takes no parameter that is pruned; nearest: {trees.nearest(pair[0], sizes)}.')
    return {(path,): round(sparsity * pair[1] * sizes[path]) for path, pair in taken.items() if pair}

  return budget


def read(path: str | pathlib.Path) -> tuple[tuple[str, float], ...]:
  """Pairs for `by_path` from a JSON object of path to sparsity, such as `experiments.sensitivity` writes.

  A config reads them when it is built, so that the numbers and not the file's name enter a run's identity.
  """
  return tuple((re.escape(path), float(ratio)) for path, ratio in json.loads(pathlib.Path(path).read_text()).items())


def equal_macs(budget: Budget) -> Budget:
  """Another budget, at the sparsity at which the given ratio of the *MACs* is gone: for comparisons at equal MACs.

  Args:
    budget: of separate parameters (`uniform`, `erk`, `by_path(...)`).
  Returns:
    A budget whose sparsity is a ratio 0..1 of the MACs of the parameters that are pruned.
  Raises (where it is used):
    ValueError: the budget ranks several parameters together, so that their MACs are not known beforehand; or not even
      its sparsity 1 removes so many.
  """

  def at_macs(
    sizes: Mapping[Path, int], shapes: Mapping[Path, tuple[int, ...]], macs: Mapping[Path, int], sparsity: float
  ) -> Counts:
    total = sum(macs[path] for path in sizes)

    def removed(each: float) -> tuple[Counts, float]:
      counts = ask(budget, sizes=sizes, shapes=shapes, macs=macs, sparsity=each)
      for group in counts:
        if len(group) > 1:
          raise ValueError(
            f'equal_macs: the budget ranks {len(group)} parameters together ({group[0]!r}, ...), so that the MACs it '
            'leaves are not known; use uniform, erk or by_path.')
      return counts, sum(macs[path] * count / sizes[path] for (path,), count in counts.items()) / total

    low, high = 0.0, 1.0
    if removed(high)[1] < sparsity:
      raise ValueError(
        f'equal_macs: {sparsity:.4f} of {total} MACs are to go, and the budget removes {removed(high)[1]:.4f} of them '
        'at its sparsity 1; lower the sparsity.')
    for _ in range(60):
      middle = (low + high) / 2
      low, high = (middle, high) if removed(middle)[1] < sparsity else (low, middle)
    return removed(high)[0]

  return at_macs


def ask(budget: Budget, **offer: Any) -> Counts:
  """A budget's counts, given what its parameters name of `sizes`, `shapes`, `macs` and `sparsity`.

  Raises:
    ValueError: it asks for something else.
  """
  asked = inspect.signature(budget).parameters
  for name in asked:
    if name not in _OFFERED:
      raise ValueError(
        f'budget {getattr(budget, "__name__", budget)}: it is offered {", ".join(_OFFERED)}, not {name!r}.')
  return budget(**{name: offer[name] for name in asked})
