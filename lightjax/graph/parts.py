"""What is left of a value when channels were cut from the variables, and what operations make of it.

A `Part` keeps a box of its whole value, a mask an axis. Elementwise operations cut their operands to what all of them
keep; data movement moves the masks along.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from lightjax.graph.coupling import ELEMENTWISE, MOST_KNOWN, REDUCTIONS
from lightjax.graph.labels import aligned

Mask = np.ndarray  # bool: [size of the axis], or [groups, rows] for the input axis of a kernel in groups
Masks = Sequence[Mask | None]


class SlicingError(ValueError):
  """A network does something with the channels that were cut that has no meaning without them."""


class Part(NamedTuple):
  """What is left of a value.

  Attributes:
    array: along each axis as long as what is kept, or of size 1 where it is constant.
    shape: of the whole value.
    kept: for each axis its mask, None if all of it is there.
  """
  array: Any
  shape: tuple[int, ...]
  kept: tuple[Mask | None, ...]

  def size(self, axis: int) -> int:
    """Places that are left of an axis."""
    mask = self.kept[axis]
    return self.shape[axis] if mask is None else int(mask.sum() if mask.ndim == 1 else mask[0].sum())

  @property
  def is_whole(self) -> bool:
    """Whether nothing was cut from it."""
    return all(mask is None for mask in self.kept)


class Moved(NamedTuple):
  """A value on its way between two layouts whose kept places form no box, as in the middle of a channel shuffle.

  Attributes:
    source: the value before, of which one axis is spread over several.
    axis: that axis.
    places: index along that axis, whole, for each place of the axes that it was spread over.
    layout: for each axis of this value the axis of `source`; -1 - k for the k-th axis of `places`; the rank of `source`
      for an axis of size 1 that is neither.
  """
  source: Part
  axis: int
  places: np.ndarray
  layout: tuple[int, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the whole value."""
    sizes = (*self.source.shape, 1)
    return tuple(sizes[each] if each >= 0 else self.places.shape[-1 - each] for each in self.layout)


Value = Part | Moved


def whole(array: Any) -> Part:
  """A value of which nothing was cut."""
  shape = tuple(np.shape(array))
  return Part(array, shape, (None,) * len(shape))


def full(value: Value, where: str) -> Part:
  """With axes of size 1 spread out to what is kept of them."""
  if isinstance(value, Moved):
    raise SlicingError(f'{where}: what is kept of its channels forms no array; keep equally many in each part.')
  sizes = tuple(value.size(axis) for axis in range(len(value.shape)))
  return value if np.shape(value.array) == sizes else value._replace(array=jnp.broadcast_to(value.array, sizes))


def conformed(part: Part, masks: Sequence[Mask | None], where: str) -> Part:
  """Cut down to masks; an axis along which it is constant is only relabelled."""
  array = part.array
  for axis, (mask, own) in enumerate(zip(masks, part.kept, strict=True)):
    if mask is own or mask is None or (own is not None and np.array_equal(mask, own)):
      continue
    if own is not None and (own.ndim != mask.ndim or (mask & ~own).any()):
      raise SlicingError(f'{where}: its operands have lost different channels.')
    if np.shape(array)[axis] != 1 or part.shape[axis] == 1:
      array = taken(array, axis, np.flatnonzero(mask if own is None else mask[own]))
  return Part(array, part.shape, tuple(masks))


def taken(array: Any, axis: int, indices: np.ndarray) -> Any:
  """Places along an axis, as a slice where they are in a row."""
  if len(indices) == np.shape(array)[axis] and (indices == np.arange(len(indices))).all():
    return array
  if len(indices) and (np.diff(indices) == 1).all():
    return lax.slice_in_dim(array, int(indices[0]), int(indices[-1]) + 1, axis=axis)
  return jnp.take(array, indices, axis=axis, indices_are_sorted=bool((np.diff(indices) > 0).all()), mode='clip')


def common(masks: Sequence[Mask | None], where: str) -> Mask | None:
  """What all operands keep."""
  found = [mask for mask in masks if mask is not None]
  if not found:
    return None
  if any(mask.shape != found[0].shape for mask in found):
    raise SlicingError(f'{where}: a kernel of a convolution in groups is used in another way.')
  return functools.reduce(np.logical_and, found)



def exchanged(masks: Masks, axis: int, mask: Mask | None) -> tuple[Mask | None, ...]:
  """The masks with another one on an axis."""
  return (*masks[:axis], mask, *masks[axis + 1:])


def computed(equation: core.JaxprEqn, operands: Sequence[Any]) -> list[Part] | None:
  """Indices that a program makes of constants alone, so that they stay known while it is traced; None for the rest."""
  results: Any = equation.outvars
  if any(not isinstance(operand, Part) or isinstance(operand.array, jax.core.Tracer) for operand in operands) or any(
      result.aval.size > MOST_KNOWN or not _is_index(result.aval.dtype) for result in results) or not all(
          operand.is_whole and np.shape(operand.array) == operand.shape for operand in operands):
    return None
  with jax.ensure_compile_time_eval():
    return [part._replace(array=np.asarray(part.array)) for part in bound(equation, operands)]


def _is_index(dtype: Any) -> bool:
  return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def bound(equation: core.JaxprEqn, operands: Sequence[Part]) -> list[Part]:
  """The equation on whole values."""
  results = equation.primitive.bind(*(operand.array for operand in operands), **equation.params)
  return [whole(result) for result in (results if equation.primitive.multiple_results else [results])]


def elementwise(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Part:
  """Operands are cut to what all of them keep; an axis along which all are constant stays of size 1."""
  shape = shape_of(equation)
  ranked = [operand for operand in operands if operand.shape == shape]
  kept = tuple(common([operand.kept[axis] for operand in ranked], where) for axis in range(len(shape)))
  arrays = [conformed(operand, kept, where).array if operand.shape == shape else operand.array
            for operand in operands]
  extent = np.broadcast_shapes(*(
      np.shape(array) for array, operand in zip(arrays, operands, strict=True) if operand.shape == shape))
  arrays = [jnp.broadcast_to(array, extent) if operand.shape == shape and np.shape(array) != extent else array
            for array, operand in zip(arrays, operands, strict=True)]
  return Part(equation.primitive.bind(*arrays, **equation.params), shape, kept)


def broadcast(equation: core.JaxprEqn, operand: Part) -> Part:
  """New axes are of size 1 until somebody needs them."""
  shape, placed = shape_of(equation), equation.params['broadcast_dimensions']
  extent, kept = [1] * len(shape), [None] * len(shape)
  for axis, to in enumerate(placed):
    extent[to], kept[to] = operand.size(axis), operand.kept[axis]
  return Part(lax.reshape(operand.array, extent), shape, tuple(kept))


def shape_of(equation: core.JaxprEqn, index: int = 0) -> tuple[int, ...]:
  result: Any = equation.outvars[index]
  return tuple(result.aval.shape)


def _box(mask: np.ndarray) -> list[np.ndarray] | None:
  """The masks of a box, one an axis; None if what is kept is no box."""
  sides = [mask.any(tuple(other for other in range(mask.ndim) if other != axis)) for axis in range(mask.ndim)]
  return sides if (functools.reduce(np.multiply.outer, sides) == mask).all() else None


def _reshape(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
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
  order, extent, counted = {}, [], 0
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
  kept = []
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
    results, start = [], 0
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


def _transpose(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  (part,), order = operands, equation.params['permutation']
  return [Part(lax.transpose(part.array, order), shape_of(equation), tuple(part.kept[axis] for axis in order))]


def _squeeze(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  (part,), dropped = operands, equation.params['dimensions']
  kept = tuple(mask for axis, mask in enumerate(part.kept) if axis not in dropped)
  return [Part(lax.squeeze(part.array, dropped), shape_of(equation), kept)]


def _rev(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  (part,), axes = operands, equation.params['dimensions']
  kept = tuple(mask[..., ::-1] if mask is not None and axis in axes else mask for axis, mask in enumerate(part.kept))
  return [Part(lax.rev(part.array, axes), part.shape, kept)]


def _sliced(part: Part, cuts: Sequence[slice], shape: tuple[int, ...]) -> Part:
  array, kept = part.array, []
  for axis, (cut, mask) in enumerate(zip(cuts, part.kept, strict=True)):
    places = np.arange(part.shape[axis])[cut]
    if mask is None:
      array = array[(slice(None),) * axis + (cut,)]
      kept.append(None)
    else:
      left = mask[places]
      array = taken(array, axis, (np.cumsum(mask) - 1)[places[left]])
      kept.append(None if left.all() else left)
  return Part(array, shape, tuple(kept))


def _slice(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  params = equation.params
  strides = params['strides'] or (1,) * len(params['start_indices'])
  cuts = [slice(*bounds) for bounds in zip(params['start_indices'], params['limit_indices'], strides, strict=True)]
  return [_sliced(operands[0], cuts, shape_of(equation))]


def _split(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  results, start = [], 0
  for index, size in enumerate(equation.params['sizes']):
    cuts = [slice(0, extent) for extent in operands[0].shape]
    cuts[equation.params['axis']] = slice(start, start + size)
    results.append(_sliced(operands[0], cuts, shape_of(equation, index)))
    start += size
  return results


def _concatenate(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  along, shape = equation.params['dimension'], shape_of(equation)
  others: list[Mask | None] = [
      None if axis == along else common([part.kept[axis] for part in operands], where) for axis in range(len(shape))]
  cut = [conformed(part, [part.kept[along] if axis == along else mask for axis, mask in enumerate(others)], where)
         for part in operands]
  if any(part.kept[along] is not None for part in cut):
    others[along] = np.concatenate([
        np.ones(part.shape[along], bool) if part.kept[along] is None else part.kept[along] for part in cut])
  return [Part(lax.concatenate([part.array for part in cut], along), shape, tuple(others))]


def _pad(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  (part, filling), config = operands, equation.params['padding_config']
  kept: list[Mask | None] = []
  for mask, (low, high, interior) in zip(part.kept, config, strict=True):
    if mask is not None and (low, high, interior) != (0, 0, 0):
      if min(low, high) < 0 or interior:
        raise SlicingError(f'{where}: it crops or dilates channels; slice them instead.')
      mask = np.concatenate([np.ones(low, bool), mask, np.ones(high, bool)])
    kept.append(mask)
  return [Part(lax.pad(part.array, filling.array, config), shape_of(equation), tuple(kept))]


def _reduce(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  (part,), axes = operands, equation.params['axes']
  if equation.primitive.name != 'reduce_sum' and any(part.kept[axis] is not None for axis in axes):
    raise SlicingError(f'{where} runs over channels that were removed.')
  kept = tuple(mask for axis, mask in enumerate(part.kept) if axis not in axes)
  return [Part(equation.primitive.bind(part.array, **equation.params), shape_of(equation), kept)]


def _windowed(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  """Pooling and cumulative operations along other axes than the channels."""
  params, part = equation.params, operands[0]
  window = params.get('window_dimensions')
  axes = [axis for axis, size in enumerate(window) if size > 1] if window is not None else [params['axis']]
  if any(part.kept[axis] is not None for axis in axes) or any(not each.is_whole for each in operands[1:]):
    raise SlicingError(f'{where} runs over channels that were removed.')
  results = equation.primitive.bind(*(each.array for each in operands), **params)
  results = results if equation.primitive.multiple_results else [results]
  return [Part(result, shape_of(equation, index), part.kept) for index, result in enumerate(results)]


def _dot(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  contracted, batched = equation.params['dimension_numbers']
  masks = [list(part.kept) for part in operands]
  for left, right in zip((*contracted[0], *batched[0]), (*contracted[1], *batched[1]), strict=True):
    masks[0][left] = masks[1][right] = common([masks[0][left], masks[1][right]], where)
  parts = [conformed(part, own, where) for part, own in zip(operands, masks, strict=True)]
  kept = [masks[0][axis] for axis in batched[0]]
  for side in (0, 1):
    kept += [mask for axis, mask in enumerate(masks[side]) if axis not in (*contracted[side], *batched[side])]
  return [Part(equation.primitive.bind(*(part.array for part in parts), **equation.params), shape_of(equation),
               tuple(kept))]


def _gather(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  """Indexing of other axes, and of the channels alone by an array of constants."""
  part, indices = operands
  params, numbers = equation.params, equation.params['dimension_numbers']
  cut = [axis for axis, mask in enumerate(part.kept) if mask is not None]
  offset = [axis for axis in range(len(part.shape)) if axis not in numbers.collapsed_slice_dims]
  shape, kept = shape_of(equation), [None] * len(shape_of(equation))
  for axis, to in zip(offset, numbers.offset_dims, strict=True):
    kept[to] = part.kept[axis]
  if numbers.operand_batching_dims or not indices.is_whole:
    raise SlicingError(f'{where} is not known to mean the same without the removed channels.')
  if not set(cut) & set(numbers.start_index_map):
    sizes = tuple(part.size(axis) if axis in cut else size for axis, size in enumerate(params['slice_sizes']))
    array = equation.primitive.bind(part.array, indices.array, **{**params, 'slice_sizes': sizes})
    return [Part(array, shape, tuple(kept))]
  axis, batch = cut[0], [to for to in range(len(shape)) if to not in numbers.offset_dims]
  if cut != [axis] or numbers.start_index_map != (axis,) or len(batch) != 1 or not isinstance(
      indices.array, np.ndarray) or axis not in numbers.collapsed_slice_dims:
    raise SlicingError(f'{where}: channels are indexed by something else than one array of constants.')
  mask, places = part.kept[axis], indices.array.reshape(-1)
  left = mask[places]
  array = jnp.moveaxis(taken(part.array, axis, (np.cumsum(mask) - 1)[places[left]]), axis, batch[0])
  kept[batch[0]] = None if left.all() else left
  return [Part(array, shape, tuple(kept))]


def _dynamic_slice(equation: core.JaxprEqn, operands: Sequence[Part], where: str) -> Sequence[Value]:
  part, *starts = operands
  sizes = []
  for axis, size in enumerate(equation.params['slice_sizes']):
    if part.kept[axis] is not None and size != part.shape[axis]:
      raise SlicingError(f'{where} runs over channels that were removed.')
    sizes.append(size if part.kept[axis] is None else part.size(axis))
  array = lax.dynamic_slice(part.array, [start.array for start in starts], sizes)
  return [Part(array, shape_of(equation), part.kept)]


HANDLERS: dict[str, Callable[[core.JaxprEqn, Sequence[Part], str], Sequence[Value]]] = {
    'reshape': _reshape, 'transpose': _transpose, 'squeeze': _squeeze, 'rev': _rev, 'slice': _slice, 'split': _split,
    'concatenate': _concatenate, 'pad': _pad, 'gather': _gather, 'dynamic_slice': _dynamic_slice, 'dot_general': _dot,
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(('reduce_window_sum', 'reduce_window_max', 'reduce_window_min', 'reduce_window', 'cumsum', 'cumprod',
                     'cummax', 'cummin', 'cumlogsumexp'), _windowed),
}
