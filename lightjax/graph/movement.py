"""What data movement does to labels: it is run on them."""
from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.extend import core

from lightjax.graph import labels
from lightjax.graph.labels import Value, activation

Shapes = list[tuple[int, ...]]


def _reshape(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  if equation.params.get('dimensions') is not None or 0 in shapes[0]:
    store.collapse_all(operands[0], range(len(operands[0].shape)), reason)
    return [activation(shapes[0])]
  return [labels.reshaped(store, operands[0], shapes[0], f'{reason} merges two axes of channels')]


def _transpose(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  order = equation.params['permutation']
  free = [operands[0].free[axis] for axis in order]
  return [labels.moved(operands[0], shapes[0], free, lambda factor: factor.transpose(order))]


def _broadcast(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  (value, *_), (shape,) = operands, shapes
  placed = equation.params['broadcast_dimensions']
  free = [True] * len(shape)
  for axis, to in enumerate(placed):
    free[to] = value.free[axis] or value.shape[axis] != shape[to]

  def move(factor: np.ndarray) -> np.ndarray:
    result = [1] * len(shape)
    for axis, to in enumerate(placed):
      result[to] = factor.shape[axis]
    return factor.reshape(result)

  return [labels.moved(value, shape, free, move)]


def _squeeze(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  dropped = equation.params['dimensions']
  free = [free for axis, free in enumerate(operands[0].free) if axis not in dropped]
  return [labels.moved(operands[0], shapes[0], free, lambda factor: factor.squeeze(tuple(dropped)))]


def _rev(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  axes = equation.params['dimensions']
  return [labels.moved(operands[0], shapes[0], operands[0].free, lambda factor: np.flip(factor, axes))]


def _slice(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  starts, limits = equation.params['start_indices'], equation.params['limit_indices']
  strides = equation.params['strides'] or (1,) * len(starts)

  def move(factor: np.ndarray) -> np.ndarray:
    return factor[tuple(
        slice(None) if size == 1 else slice(*bounds)
        for size, bounds in zip(factor.shape, zip(starts, limits, strides, strict=True), strict=True))]

  return [labels.moved(operands[0], shapes[0], operands[0].free, move)]


def _split(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  axis, results, start = equation.params['axis'], [], 0
  for shape in shapes:
    results.append(labels.moved(operands[0], shape, operands[0].free, functools.partial(
        _part, axis=axis, part=slice(start, start + shape[axis]))))
    start += shape[axis]
  return results


def _part(factor: np.ndarray, axis: int, part: slice) -> np.ndarray:
  return factor if factor.shape[axis] == 1 else factor[(slice(None),) * axis + (part,)]


def _labelled(store: labels.Labels, value: Value, axis: int, reason: str) -> np.ndarray:
  """The factor of an axis; if it has none, a fresh one, pinned unless the value is constant."""
  factor = value.factor(axis)
  if factor is None:
    size = value.shape[axis]
    factor = store.fresh(size).reshape([size if each == axis else 1 for each in range(len(value.shape))])
    if not value.is_constant:
      store.pin(factor, reason)
  return factor


def _concatenate(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  axis, (shape,) = equation.params['dimension'], shapes
  free = tuple(all(value.is_constant if each == axis else value.free[each] for value in operands)
               for each in range(len(shape)))
  along = [value.factor(axis) for value in operands]
  # Everything but the concatenated axis is merged as by an elementwise operation.
  others = [value._replace(
      shape=tuple(1 if each == axis else size for each, size in enumerate(value.shape)),
      factors=tuple(factor for factor in value.factors if factor.shape[axis] == 1)) for value in operands]
  merged = store.merge(others, tuple(1 if each == axis else size for each, size in enumerate(shape)), reason)
  factors = merged.factors
  if any(factor is not None for factor in along):
    parts = [_labelled(store, value, axis, reason) for value in operands]
    common = [max(part.shape[each] for part in parts) for each in range(len(shape))]
    spread = [np.broadcast_to(part, [part.shape[axis] if each == axis else size for each, size in enumerate(common)])
              for part in parts]
    joined = np.concatenate(spread, axis)
    clashing = [factor for factor in factors if labels.whole_axes(factor) & labels.whole_axes(joined)]
    for factor in clashing:
      store.pin(factor, reason)
      store.pin(joined, reason)
    factors = (*(factor for factor in factors if not any(factor is each for each in clashing)), joined)
  vanishes = all(value.vanishes or (value.known is not None and not value.known.any()) for value in operands)
  is_parameter = all(value.is_parameter or value.is_constant for value in operands)
  return [Value(shape, factors, free, vanishes, is_parameter)]


def _pad(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  value, filling = operands
  config = equation.params['padding_config']

  def move(factor: np.ndarray) -> np.ndarray:
    own = [amounts if size > 1 else (0, 0, 0) for size, amounts in zip(factor.shape, config, strict=True)]
    with jax.ensure_compile_time_eval():
      padded = np.array(jax.lax.pad(np.asarray(factor, np.int32), np.int32(-1), own))
    holes = padded < 0
    if holes.any():
      # A place of the padding is one label wherever it stands on the factor's other axes.
      padded[holes] = store.fresh(int(holes.sum()))
    return padded

  free = [free and amounts == (0, 0, 0) for free, amounts in zip(value.free, config, strict=True)]
  result = labels.moved(value, shapes[0], free, move)
  return [result._replace(vanishes=value.vanishes and filling.known is not None and not filling.known.any())]


def _gather(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  value, indices = operands
  numbers, sizes = equation.params['dimension_numbers'], equation.params['slice_sizes']
  if numbers.operand_batching_dims:
    store.collapse_all(value, range(len(value.shape)), reason)
    return [activation(shapes[0])]
  mapped = numbers.start_index_map
  if indices.known is None:
    value = value._replace(factors=store.collapse_all(value, mapped, reason))
  known = np.zeros(indices.shape, np.int32) if indices.known is None else indices.known.astype(np.int32)

  def move(factor: np.ndarray) -> np.ndarray:
    starts = known.copy()
    for column, axis in enumerate(mapped):
      if factor.shape[axis] == 1:
        starts[..., column] = 0
    own = tuple(min(size, extent) for size, extent in zip(sizes, factor.shape, strict=True))
    with jax.ensure_compile_time_eval():
      return np.asarray(jax.lax.gather(np.asarray(factor, np.int32), starts, numbers, own, mode='clip'))

  offset = [axis for axis in range(len(value.shape)) if axis not in numbers.collapsed_slice_dims]
  free = [False] * len(shapes[0])
  for axis, to in zip(offset, numbers.offset_dims, strict=True):
    free[to] = value.free[axis]
  return [labels.moved(value, shapes[0], free, move)]


def _dynamic_slice(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  value, (shape,) = operands[0], shapes
  cut = [axis for axis, size in enumerate(shape) if size != value.shape[axis]]
  kept = value._replace(factors=store.collapse_all(value, cut, reason))
  return [labels.moved(kept, shape, value.free, lambda factor: factor)]


def _barrier(
    store: labels.Labels, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
  return operands


# (all labels, equation, operands, shapes of the results, reason for pins) -> results
HANDLERS: dict[str, Callable[[labels.Labels, core.JaxprEqn, list[Value], Shapes, str], list[Value]]] = {
    'reshape': _reshape, 'transpose': _transpose, 'broadcast_in_dim': _broadcast, 'squeeze': _squeeze, 'rev': _rev,
    'slice': _slice, 'split': _split, 'concatenate': _concatenate, 'pad': _pad, 'gather': _gather,
    'dynamic_slice': _dynamic_slice, 'optimization_barrier': _barrier,
}
