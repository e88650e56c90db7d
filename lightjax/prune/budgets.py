"""Budgets: how many entries of which parameters are pruned at a sparsity.

A budget is a function (path to size, sparsity) -> {group of paths: number pruned}; the entries of a group are ranked
together. It runs on the host in float64, so that the counts are exact for every size.
"""
from __future__ import annotations

from collections.abc import Mapping

from lightjax.core.typing import Path

__all__ = ['global_', 'uniform']


def uniform(sizes: Mapping[Path, int], sparsity: float) -> dict[tuple[Path, ...], int]:
  """The same sparsity in every parameter: round(sparsity * size) of each.

  Args:
    sizes: path to number of entries.
    sparsity: ratio 0..1 of zeros.
  Returns:
    One group a parameter.
  """
  return {(path,): round(sparsity * size) for path, size in sizes.items()}


def global_(sizes: Mapping[Path, int], sparsity: float) -> dict[tuple[Path, ...], int]:
  """One ranking over all parameters: round(sparsity * total); layers end at sparsities of their own.

  Args:
    sizes: path to number of entries.
    sparsity: ratio 0..1 of zeros over all of them.
  Returns:
    A single group.
  """
  return {tuple(sizes): round(sparsity * sum(sizes.values()))}
