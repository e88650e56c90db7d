"""What makes importances of different groups comparable: [units] -> [units], before all groups are ranked together.

They keep the order within a group. Where all importances of a group are zero, they stay zero.
"""
from __future__ import annotations

import numpy as np

__all__ = ['by_maximum', 'by_mean', 'by_norm', 'none', 'standardize']


def none(importance: np.ndarray) -> np.ndarray:
  """As they are.

  Args:
    importance: [units].
  Returns:
    [units].
  """
  return importance


def by_mean(importance: np.ndarray) -> np.ndarray:
  """Divided by their mean.

  Args:
    importance: [units], not negative.
  Returns:
    [units], of mean 1.
  """
  return _divided(importance, importance.mean())


def by_maximum(importance: np.ndarray) -> np.ndarray:
  """Divided by the largest.

  Args:
    importance: [units], not negative.
  Returns:
    [units], the largest 1.
  """
  return _divided(importance, importance.max())


def by_norm(importance: np.ndarray) -> np.ndarray:
  """Divided by their Euclidean norm: units of large groups weigh less.

  Args:
    importance: [units].
  Returns:
    [units], of norm 1.
  Source: Molchanov et al. 2017, arXiv:1611.06440, eq. 10.
  """
  return _divided(importance, np.sqrt(np.square(importance).sum()))


def standardize(importance: np.ndarray) -> np.ndarray:
  """Less their mean, divided by their standard deviation: every group loses about the same ratio.

  Args:
    importance: [units].
  Returns:
    [units], of mean 0 and standard deviation 1.
  """
  return _divided(importance - importance.mean(), importance.std())


def _divided(importance: np.ndarray, by: float) -> np.ndarray:
  return importance / by if by else importance
