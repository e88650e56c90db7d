"""How the members of a group become one number a unit: [members, units] -> [units].

A member that has nothing of a unit holds NaN there and has no say; every unit has a number from some member.
"""
from __future__ import annotations

import numpy as np

__all__ = ['first', 'maximum', 'mean', 'product', 'total']


def mean(table: np.ndarray) -> np.ndarray:
  """The mean over members: as important as its layers on average.

  Args:
    table: [members, units], NaN where there is nothing.
  Returns:
    [units].
  """
  return np.nanmean(table, axis=0)


def maximum(table: np.ndarray) -> np.ndarray:
  """The largest of the members: a unit stays if one layer needs it.

  Args:
    table: [members, units], NaN where there is nothing.
  Returns:
    [units].
  """
  return np.nanmax(table, axis=0)


def total(table: np.ndarray) -> np.ndarray:
  """The sum over members: units that more layers share count for more.

  Args:
    table: [members, units], NaN where there is nothing.
  Returns:
    [units].
  """
  return np.nansum(table, axis=0)


def product(table: np.ndarray) -> np.ndarray:
  """The product over members: a unit goes if one layer does without it.

  Args:
    table: [members, units], NaN where there is nothing.
  Returns:
    [units].
  """
  return np.nanprod(table, axis=0)


def first(table: np.ndarray) -> np.ndarray:
  """The first member that has the unit: of a residual group, the layer that opens it.

  Args:
    table: [members, units], NaN where there is nothing.
  Returns:
    [units].
  Source: Li et al. 2017, arXiv:1608.08710, section 3.3: the shortcut's layer decides for the block.
  """
  return np.take_along_axis(table, np.argmax(~np.isnan(table), axis=0)[None], axis=0)[0]
