"""Labels on the axes of values: which channel each entry belongs to, and what an operation does to that.

A label stands for something that can be removed: one index of one axis of one variable. A value carries *factors*,
integer arrays of its own rank in which every axis is either whole or of size 1 (the labels do not depend on it); no
two factors of a value share a whole axis. A kernel has one factor an axis, an activation usually one on its last axis,
and after a channel shuffle's reshape one over two axes. An entry goes when any of its labels goes.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csgraph

Shape = tuple[int, ...]


class Value(NamedTuple):
  """What is known of an array while labels are propagated.

  Attributes:
    shape: of the array.
    factors: label arrays, see the module's docstring.
    free: for each axis whether nothing varies along it but constants, so that any part of it may be taken.
    vanishes: whether the array is zero wherever one of its labels is removed, given that variables are.
    is_parameter: whether it is made of variables (and constants) alone.
    known: the array itself, if it is a constant and small.
  """
  shape: Shape
  factors: tuple[np.ndarray, ...] = ()
  free: tuple[bool, ...] = ()
  vanishes: bool = False
  is_parameter: bool = False
  known: np.ndarray | None = None

  @property
  def is_constant(self) -> bool:
    """Whether neither variables nor inputs vary it along any axis."""
    return not self.factors and all(self.free)

  def factor(self, axis: int) -> np.ndarray | None:
    """The factor in which an axis is whole."""
    return next((factor for factor in self.factors if factor.shape[axis] > 1), None)


def activation(shape: Shape) -> Value:
  """A value without labels that varies along all its axes."""
  return Value(shape, free=tuple(size == 1 for size in shape))


def constant(shape: Shape, known: np.ndarray | None = None) -> Value:
  """A value that depends on no variable and no input."""
  return Value(shape, free=(True,) * len(shape), known=known)


def whole_axes(factor: np.ndarray) -> frozenset[int]:
  """The axes that a factor's labels depend on."""
  return frozenset(axis for axis, size in enumerate(factor.shape) if size > 1)


class Labels:
  """All labels of a graph, what ties them, and what pins them."""

  def __init__(self) -> None:
    self.count = 0
    self._ties: list[tuple[np.ndarray, np.ndarray]] = []
    self._pins: list[tuple[np.ndarray, str]] = []

  def fresh(self, count: int) -> np.ndarray:
    """New labels."""
    self.count += count
    return np.arange(self.count - count, self.count)

  def tie(self, first: np.ndarray, second: np.ndarray) -> None:
    """What stands in the same place of both arrays, after broadcasting, is removed together."""
    first, second = np.broadcast_arrays(first, second)
    self._ties.append((first.ravel(), second.ravel()))

  def pin(self, labels: np.ndarray, reason: str) -> None:
    """These labels can't be removed."""
    self._pins.append((labels.ravel(), reason))

  def classes(self) -> tuple[np.ndarray, dict[int, str]]:
    """The class of every label, and for pinned classes the first reason."""
    first, second = (np.concatenate([np.zeros(0, int), *parts]) for parts in zip(*self._ties, strict=True)) \
        if self._ties else (np.zeros(0, int), np.zeros(0, int))
    ties = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(self.count, self.count))
    classes = csgraph.connected_components(ties, directed=False)[1]
    reasons: dict[int, str] = {}
    for labels, reason in self._pins:
      for each in np.unique(classes[labels]):
        reasons.setdefault(int(each), reason)
    return classes, reasons

  def collapse(self, factor: np.ndarray, axes: Iterable[int], reason: str) -> np.ndarray | None:
    """A factor that may no longer depend on some axes: what differs along them is tied.

    Returns:
      The factor over its other axes; None, its labels pinned for `reason`, if there are no others.
    """
    axes = [axis for axis in axes if factor.shape[axis] > 1]
    if not axes:
      return factor
    rest = factor[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(factor.ndim))]
    if rest.size == 1:
      self.pin(factor, reason)
      return None
    self.tie(factor, rest)
    return rest

  def collapse_all(self, value: Value, axes: Iterable[int], reason: str) -> tuple[np.ndarray, ...]:
    """The factors of a value, none of which depends on these axes any more."""
    axes = tuple(axes)
    collapsed = (self.collapse(factor, axes, reason) for factor in value.factors)
    return tuple(factor for factor in collapsed if factor is not None)

  def merge(self, values: Sequence[Value], shape: Shape, reason: str) -> Value:
    """An elementwise operation: labels in the same place are tied.

    A removal that some operand cannot follow, because it varies along an axis without having labels there, is pinned.

    Args:
      values: operands; of rank 0, or of the result's rank and along each axis of its size or 1.
      shape: of the result.
      reason: for pins.
    Returns:
      The result; it vanishes nowhere as far as this function knows.
    """
    values = [value if len(value.shape) == len(shape) else constant((1,) * len(shape)) for value in values]
    factors = []
    for joint in _joined([factor for value in values for factor in value.factors]):
      labels, stiff = self._tied(joint), set()
      for value in values:
        own = frozenset().union(*map(whole_axes, value.factors))
        stiff |= {axis for axis in whole_axes(labels) - own if not value.free[axis] and value.shape[axis] > 1}
      collapsed = self.collapse(labels, stiff, reason)
      if collapsed is not None:
        factors.append(collapsed)
    free = tuple(
        all(value.free[axis] or value.shape[axis] == 1 for value in values)
        and not any(value.factor(axis) is not None for value in values) for axis in range(len(shape)))
    is_parameter = any(value.is_parameter for value in values) and all(
        value.is_parameter or value.is_constant for value in values)
    return Value(shape, tuple(factors), free, False, is_parameter)

  def _tied(self, factors: Sequence[np.ndarray]) -> np.ndarray:
    """One factor for several that overlap."""
    shape = np.broadcast_shapes(*(factor.shape for factor in factors))
    for factor in factors[1:]:
      self.tie(np.broadcast_to(factors[0], shape), factor)
    return np.broadcast_to(factors[0], shape)


def _joined(factors: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
  """Factors sorted into sets that share axes."""
  sets: list[tuple[frozenset[int], list[np.ndarray]]] = []
  for factor in factors:
    axes, joint = whole_axes(factor), [factor]
    apart = []
    for other_axes, others in sets:
      if axes & other_axes:
        axes, joint = axes | other_axes, [*others, *joint]
      else:
        apart.append((other_axes, others))
    sets = [*apart, (axes, joint)]
  return [joint for _, joint in sets]


def simplified(factor: np.ndarray) -> np.ndarray | None:
  """The factor without axes along which its labels are equal; None if nothing is left."""
  for axis in whole_axes(factor):
    first = factor.take([0], axis)
    if (factor == first).all():
      factor = first
  return factor if factor.size > 1 else None


def moved(value: Value, shape: Shape, free: Sequence[bool], move: Callable[[np.ndarray], np.ndarray]) -> Value:
  """A value whose entries an operation moves about: the same operation on its labels."""
  factors = (simplified(move(factor)) for factor in value.factors)
  kept = tuple(factor for factor in factors if factor is not None)
  return Value(shape, kept, tuple(free), value.vanishes, value.is_parameter)


def aligned(before: Shape, after: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
  """The finest pairing of the axes of a reshaped array: runs of axes that become runs of axes.

  Args:
    before: shape.
    after: shape with as many entries, none of them 0.
  Returns:
    Pairs (axes before, axes after), in order; axes of size 1 join the run before them or stand alone.
  Example:
    >>> aligned((2, 7, 7, 12), (2, 49, 3, 4))
    [((0,), (0,)), ((1, 2), (1,)), ((3,), (2, 3))]
  """
  old = [axis for axis, size in enumerate(before) if size != 1]
  new = [axis for axis, size in enumerate(after) if size != 1]
  runs = []
  while old or new:
    left, right = [old.pop(0)], [new.pop(0)]
    while math.prod(before[axis] for axis in left) != math.prod(after[axis] for axis in right):
      if math.prod(before[axis] for axis in left) < math.prod(after[axis] for axis in right):
        left.append(old.pop(0))
      else:
        right.append(new.pop(0))
    runs.append((tuple(left), tuple(right)))
  return runs


def reshaped(labels: Labels, value: Value, shape: Shape, reason: str) -> Value:
  """The value in another shape; two factors that would have to become one are pinned."""
  runs = aligned(value.shape, shape)
  clashing = [before for before, _ in runs
              if sum(any(factor.shape[axis] > 1 for axis in before) for factor in value.factors) > 1]
  if clashing:
    value = value._replace(factors=labels.collapse_all(value, itertools.chain(*clashing), reason))
  free = [True] * len(shape)
  for before, after in runs:
    for axis in after:
      free[axis] = all(value.free[each] for each in before)

  def move(factor: np.ndarray) -> np.ndarray:
    full, result = list(factor.shape), [1] * len(shape)
    for before, after in runs:
      if any(factor.shape[axis] > 1 for axis in before):
        for axis in before:
          full[axis] = value.shape[axis]
        for axis in after:
          result[axis] = shape[axis]
    return np.broadcast_to(factor, full).reshape(result)

  return moved(value, shape, free, move)
