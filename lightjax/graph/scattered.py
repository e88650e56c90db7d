"""Values whose kept channels form no box for a moment: what a channel shuffle does with unequal halves.

Such a `Moved` stays where it was, with the way it is to be read, until the axes are merged again; then one indexing of
the channels makes it real.
"""
from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from lightjax.graph.coupling import ELEMENTWISE
from lightjax.graph.labels import aligned
from lightjax.graph.parts import Mask, Moved, Part, SlicingError, Value, shape_of, taken


def _box(mask: np.ndarray) -> list[np.ndarray] | None:
  """The masks of a box, one an axis; None if what is kept is no box."""
  axes = range(mask.ndim)
  sides = [np.asarray(mask.any(tuple(other for other in axes if other != axis))) for axis in axes]
  return sides if (functools.reduce(np.multiply.outer, sides) == mask).all() else None


def reshape(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  """What is kept in the new shape, as an array if it is a box there."""
  (part,), shape = operands, shape_of(equation)
  kept: list[Mask | None] = [None] * len(shape)
  layout = [len(part.shape)] * len(shape)  # for `Moved`; an axis of size 1 has no axis of the source
  spread: tuple[int, tuple[int, ...]] | None = None
  for before, after in aligned(part.shape, shape):
    masks = [part.kept[axis] for axis in before]
    if all(mask is None for mask in masks):
      if len(before) == len(after) == 1:
        layout[after[0]] = before[0]
      continue
    if any(mask is not None and mask.ndim > 1 for mask in masks):
      raise SlicingError(f'{where}: a kernel of a convolution in groups is reshaped.')
    mask = functools.reduce(np.multiply.outer, [
        np.ones(part.shape[axis], bool) if mask is None else mask for axis, mask in zip(before, masks, strict=True)])
    sides = _box(mask.reshape([shape[axis] for axis in after]))
    if sides is not None:
      for axis, side in zip(after, sides, strict=True):
        kept[axis] = None if side.all() else side
      if len(before) == len(after) == 1:
        layout[after[0]] = before[0]
    elif len(before) > 1 or spread is not None:
      raise SlicingError(f'{where}: what is kept of its channels forms no array; keep equally many in each part.')
    else:
      spread = before[0], after
  if spread is None:
    result = Part(None, shape, tuple(kept))
    return [result._replace(array=lax.reshape(part.array, [result.size(axis) for axis in range(len(shape))]))]
  axis, after = spread
  if any(each == len(part.shape) and shape[index] > 1 for index, each in enumerate(layout) if index not in after):
    raise SlicingError(f'{where}: it splits several axes, and the channels unevenly; reshape them one after another.')
  for index, each in enumerate(after):
    layout[each] = -1 - index
  places = np.arange(part.shape[axis]).reshape([shape[each] for each in after])
  return [settled(Moved(part, axis, places, tuple(layout)))]


def settled(moved: Moved) -> Value:
  """As a `Part` again as soon as what is kept is a box."""
  source, axis = moved.source, moved.axis
  mask = source.kept[axis]
  if mask is None:
    raise AssertionError('only an axis that lost places is moved place by place')
  sides = _box(mask[moved.places])
  if sides is None:
    return moved
  rank = np.cumsum(mask) - 1
  chosen = rank[moved.places[np.ix_(*map(np.flatnonzero, sides))]]
  array = taken(source.array, axis, chosen.ravel())
  ones = [index for index, each in enumerate(moved.layout) if each == len(source.shape)]
  # Source axes in their order, the moved one spread out; then everything where the layout has it.
  order: dict[int, int] = {}
  extent: list[int] = []
  counted = 0
  for each in range(len(source.shape)):
    if each != axis and each not in moved.layout:
      continue  # of size 1, and gone
    if each != axis:
      order[each] = counted
      extent.append(source.size(each))
      counted += 1
      continue
    for index in range(chosen.ndim):
      order[-1 - index] = counted
      extent.append(chosen.shape[index])
      counted += 1
  array = lax.reshape(array, extent)
  inner = [each for each in moved.layout if each != len(source.shape)]
  array = jnp.expand_dims(lax.transpose(array, [order[each] for each in inner]), ones)
  kept: list[Mask | None] = []
  for each in moved.layout:
    side = None if each == len(source.shape) else source.kept[each] if each >= 0 else sides[-1 - each]
    kept.append(None if side is None or side.all() else side)
  return Part(array, moved.shape, tuple(kept))


def on_moved(equation: core.JaxprEqn, operands: Sequence[Value], where: str) -> Sequence[Value]:
  """What can be done with a `Moved`: to move it on, and functions of its entries alone."""
  name, params = equation.primitive.name, equation.params
  moved = next(operand for operand in operands if isinstance(operand, Moved))
  unit = len(moved.source.shape)
  if name == 'transpose':
    return [settled(moved._replace(layout=tuple(moved.layout[axis] for axis in params['permutation'])))]
  if name == 'squeeze':
    return [_dropped(moved, params['dimensions'])]
  if name == 'reshape':
    shape = shape_of(equation)
    layout, places = [unit] * len(shape), moved.places
    for before, after in aligned(moved.shape, shape):
      sources = [moved.layout[axis] for axis in before]
      if len(before) == len(after) == 1:
        layout[after[0]] = sources[0]
      elif all(each < 0 for each in sources) and len(before) == places.ndim:
        places = places.transpose([-1 - each for each in sources]).reshape([shape[axis] for axis in after])
        for index, each in enumerate(after):
          layout[each] = -1 - index
      else:
        raise SlicingError(f'{where}: what is kept of its channels forms no array; keep equally many in each part.')
    return [settled(moved._replace(places=places, layout=tuple(layout)))]
  if name == 'slice':
    strides = params['strides'] or (1,) * len(moved.layout)
    return [_cut(moved, [slice(*bounds) for bounds in zip(
        params['start_indices'], params['limit_indices'], strides, strict=True)], where)]
  if name == 'split':
    results: list[Value] = []
    start = 0
    for size in params['sizes']:
      cuts = [slice(0, extent) for extent in moved.shape]
      cuts[params['axis']] = slice(start, start + size)
      results.append(_cut(moved, cuts, where))
      start += size
    return results
  if name in ELEMENTWISE and all(
      np.size(each.array) == 1 if isinstance(each, Part) else _moved_alike(each, moved) for each in operands):
    arrays = [jnp.broadcast_to(each.array, np.shape(moved.source.array)) if isinstance(each, Part)
              else each.source.array for each in operands]
    array = equation.primitive.bind(*arrays, **params)
    return [moved._replace(source=moved.source._replace(array=array))]
  raise SlicingError(f'{where}: what is kept of its channels forms no array; keep equally many in each part.')


def _moved_alike(first: Moved, second: Moved) -> bool:
  return (first.axis, first.layout, first.source.shape) == (second.axis, second.layout, second.source.shape) and (
      np.array_equal(first.places, second.places)) and all(
          left is right or (left is not None and right is not None and np.array_equal(left, right))
          for left, right in zip(first.source.kept, second.source.kept, strict=True))


def _cut(moved: Moved, cuts: Sequence[slice], where: str) -> Value:
  places = moved.places
  for axis, (each, cut) in enumerate(zip(moved.layout, cuts, strict=True)):
    if each < 0:
      places = places[(slice(None),) * (-1 - each) + (cut,)]
    elif (cut.start, cut.stop, cut.step or 1) != (0, moved.shape[axis], 1):
      raise SlicingError(f'{where}: it cuts another axis while the channels are split unevenly.')
  return settled(moved._replace(places=places))


def _dropped(moved: Moved, axes: Sequence[int]) -> Value:
  gone = sorted(-1 - moved.layout[axis] for axis in axes if moved.layout[axis] < 0)
  places = moved.places.squeeze(tuple(gone))
  layout = [each if each >= 0 else each + sum(1 for other in gone if other < -1 - each)
            for axis, each in enumerate(moved.layout) if axis not in axes]
  return settled(moved._replace(places=places, layout=tuple(layout)))
