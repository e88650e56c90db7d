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

from lightjax.graph.coupling import MOST_KNOWN, REDUCTIONS, WINDOWS

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
  extent = [1] * len(shape)
  kept: list[Mask | None] = [None] * len(shape)
  for axis, to in enumerate(placed):
    extent[to], kept[to] = operand.size(axis), operand.kept[axis]
  return Part(lax.reshape(operand.array, extent), shape, tuple(kept))


def shape_of(equation: core.JaxprEqn, index: int = 0) -> tuple[int, ...]:
  """The whole shape of a result."""
  result: Any = equation.outvars[index]
  return tuple(result.aval.shape)


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
  array = part.array
  kept: list[Mask | None] = []
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


def windowed(
    equation: core.JaxprEqn, operands: Sequence[Part], where: str, run: Callable[..., Any] | None = None,
) -> Sequence[Value]:
  """Pooling and cumulative operations along other axes than the channels; `run` computes them, by default as lax."""
  params, part = equation.params, operands[0]
  window = params.get('window_dimensions')
  axes = [axis for axis, size in enumerate(window) if size > 1] if window is not None else [params['axis']]
  if any(part.kept[axis] is not None for axis in axes) or any(not each.is_whole for each in operands[1:]):
    raise SlicingError(f'{where} runs over channels that were removed.')
  results = (run or equation.primitive.bind)(*(each.array for each in operands), **params)
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
  shape = shape_of(equation)
  kept: list[Mask | None] = [None] * len(shape)
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
  if mask is None:
    raise AssertionError('the axis is one of those that lost places')
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
    'transpose': _transpose, 'squeeze': _squeeze, 'rev': _rev, 'slice': _slice, 'split': _split,
    'concatenate': _concatenate, 'pad': _pad, 'gather': _gather, 'dynamic_slice': _dynamic_slice, 'dot_general': _dot,
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(WINDOWS, windowed),
}
