"""What each operation does to labels: the rules by which channels are coupled.

Data movement is run on the labels. Elementwise operations tie what meets. Convolutions and dot products are a product
that is summed: they tie what is multiplied and drop what is summed, since a removed channel contributes zero. What
would change its meaning without a channel (a normalization over channels, a maximum over them) pins it, as does every
operation that is not known here.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from lightjax.graph import jaxprs, labels
from lightjax.graph.labels import Value, activation, constant

ELEMENTWISE = frozenset("""
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp convert_element_type
    copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log
    log1p logistic lt max min mul ne neg nextafter not or pow reduce_precision rem round rsqrt
    select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
    xor real imag""".split())
REDUCTIONS = frozenset("""
    reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin""".split())
ALONG_ONE_AXIS = frozenset('cumsum cumprod cummax cummin cumlogsumexp'.split())
# Values that are drawn or counted: any part of them may be taken.
SOURCES = frozenset("""
    iota random_bits random_wrap random_unwrap random_fold_in random_seed random_split random_clone threefry2x32
    rng_bit_generator random_gamma""".split())
# Constants up to this many entries are computed, so that indexing with them can be followed.
MOST_KNOWN = 1 << 16


class GroupedRead(NamedTuple):
  """A convolution whose channels are in groups that do not mix.

  Attributes:
    module: path.
    groups: how many.
    kernel: labels of the kernel's input rows, those of one group; empty if it is no plain parameter.
    inputs: label of each channel of x; empty where x has none.
    outputs: label of each output channel; empty where there are none.
  """
  module: str
  groups: int
  kernel: np.ndarray
  inputs: np.ndarray
  outputs: np.ndarray


class Coupling:
  """The rule that carries labels through a jaxpr; `groups` and the label sets note what it met on the way."""

  def __init__(self, store: labels.Labels, roots: frozenset[str]):
    self.labels, self.roots = store, roots
    self.grouped: list[GroupedRead] = []
    self.roles: dict[str, list[np.ndarray]] = {'producer': [], 'consumer': [], 'depthwise': []}

  def variable(self, shape: labels.Shape) -> Value:
    """A variable: a fresh label for every index of every axis."""
    factors = []
    for axis, size in enumerate(shape):
      fresh = self.labels.fresh(size)
      if size > 1:
        factors.append(fresh.reshape([size if each == axis else 1 for each in range(len(shape))]))
    return Value(shape, tuple(factors), tuple(size == 1 for size in shape), True, True)

  def literal(self, array: Any) -> Value:
    """A number or an array that stands in the program."""
    shape = np.shape(array)
    is_key = hasattr(array, 'dtype') and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    if is_key or isinstance(array, jax.core.Tracer) or math.prod(shape) > MOST_KNOWN:
      return constant(shape)
    return constant(shape, np.asarray(array))

  def rule(self, equation: core.JaxprEqn, operands: list[Value], stack: str) -> list[Value]:
    """See `jaxprs.interpret`."""
    name = equation.primitive.name
    module = jaxprs.module_name(stack, self.roots) or 'the network itself'
    reason = f'{name} in {module}'
    results: list[Any] = equation.outvars
    shapes = [tuple(result.aval.shape) for result in results]
    if name in SOURCES:
      return [constant(shape, _computed(equation, operands) if name == 'iota' else None) for shape in shapes]
    if all(operand.is_constant for operand in operands):
      known = _computed(equation, operands)
      return [constant(shape, known if index == 0 else None) for index, shape in enumerate(shapes)]
    if name in ELEMENTWISE:
      merged = self.labels.merge(operands, shapes[0], reason)
      return [merged._replace(vanishes=_vanishes(equation, operands, merged))]
    handler = _HANDLERS.get(name)
    if handler is not None:
      return handler(self, equation, operands, shapes, reason)
    if name.startswith('reduce_window') or name.startswith('cum'):
      return _windowed(self, equation, operands, shapes, reason)
    for operand in operands:
      self.labels.collapse_all(operand, range(len(operand.shape)), reason)
    return [activation(shape) for shape in shapes]


def _computed(equation: core.JaxprEqn, operands: Sequence[Value]) -> np.ndarray | None:
  """The first result of an operation on known constants, if it is small."""
  result: Any = equation.outvars[0]
  if any(operand.known is None for operand in operands) or jax.dtypes.issubdtype(
      result.aval.dtype, jax.dtypes.prng_key):
    return None
  if equation.primitive.name == 'broadcast_in_dim' and operands[0].known.size == 1:
    return np.broadcast_to(operands[0].known.reshape(()), result.aval.shape)  # no memory, and seen to be one number
  if result.aval.size > MOST_KNOWN:
    return None
  with jax.ensure_compile_time_eval():
    computed = equation.primitive.bind(*(operand.known for operand in operands), **equation.params)
  return np.asarray(computed[0] if equation.primitive.multiple_results else computed)


def _vanishes(equation: core.JaxprEqn, operands: Sequence[Value], merged: Value) -> bool:
  """Whether an elementwise result is zero where its labels are removed."""
  name = equation.primitive.name
  if not merged.factors:
    return False

  def covered(operand: Value, factor: np.ndarray) -> bool:
    return operand.vanishes and any(
        labels.whole_axes(own) & labels.whole_axes(factor) for own in operand.factors)

  if name == 'mul':
    return all(any(covered(operand, factor) for operand in operands) for factor in merged.factors)
  if name == 'div':
    return all(covered(operands[0], factor) for factor in merged.factors)
  seen: list[np.ndarray] = []  # what the operands are at a removed entry, if that is one number
  variables: Any = equation.invars
  for operand, variable in zip(operands, variables, strict=True):
    if all(covered(operand, factor) for factor in merged.factors):
      seen.append(np.zeros((), variable.aval.dtype))
    elif operand.known is not None and operand.known.size and not any(operand.known.strides):
      seen.append(operand.known.reshape(-1)[0])
    elif name == 'select_n' and not seen:
      seen.append(np.zeros((), variable.aval.dtype))  # the choice; below, all choices must be zero
    else:
      return False
  if name == 'select_n':
    return not any(np.any(choice) for choice in seen[1:])
  with jax.ensure_compile_time_eval():
    return not np.any(np.asarray(equation.primitive.bind(*seen, **equation.params)))


def _reshape(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  if equation.params.get('dimensions') is not None or 0 in shapes[0]:
    self.labels.collapse_all(operands[0], range(len(operands[0].shape)), reason)
    return [activation(shapes[0])]
  return [labels.reshaped(self.labels, operands[0], shapes[0], f'{reason} merges two axes of channels')]


def _transpose(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  order = equation.params['permutation']
  free = [operands[0].free[axis] for axis in order]
  return [labels.moved(operands[0], shapes[0], free, lambda factor: factor.transpose(order))]


def _broadcast(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
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


def _squeeze(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  dropped = equation.params['dimensions']
  free = [free for axis, free in enumerate(operands[0].free) if axis not in dropped]
  return [labels.moved(operands[0], shapes[0], free, lambda factor: factor.squeeze(tuple(dropped)))]


def _rev(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  axes = equation.params['dimensions']
  return [labels.moved(operands[0], shapes[0], operands[0].free, lambda factor: np.flip(factor, axes))]


def _slice(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  starts, limits = equation.params['start_indices'], equation.params['limit_indices']
  strides = equation.params['strides'] or (1,) * len(starts)

  def move(factor: np.ndarray) -> np.ndarray:
    return factor[tuple(
        slice(None) if size == 1 else slice(*bounds)
        for size, bounds in zip(factor.shape, zip(starts, limits, strides, strict=True), strict=True))]

  return [labels.moved(operands[0], shapes[0], operands[0].free, move)]


def _split(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  axis, results, start = equation.params['axis'], [], 0
  for shape in shapes:
    part = slice(start, start + shape[axis])
    results.append(labels.moved(operands[0], shape, operands[0].free, lambda factor, part=part: (
        factor if factor.shape[axis] == 1 else factor[(slice(None),) * axis + (part,)])))
    start += shape[axis]
  return results


def _labelled(self: Coupling, value: Value, axis: int, reason: str) -> np.ndarray:
  """The factor of an axis; if it has none, a fresh one, pinned unless the value is constant."""
  factor = value.factor(axis)
  if factor is None:
    size = value.shape[axis]
    factor = self.labels.fresh(size).reshape([size if each == axis else 1 for each in range(len(value.shape))])
    if not value.is_constant:
      self.labels.pin(factor, reason)
  return factor


def _concatenate(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list,
                 reason: str) -> list[Value]:
  axis, (shape,) = equation.params['dimension'], shapes
  free = tuple(all(value.is_constant if each == axis else value.free[each] for value in operands)
               for each in range(len(shape)))
  along = [value.factor(axis) for value in operands]
  # Everything but the concatenated axis is merged as by an elementwise operation.
  others = [value._replace(
      shape=tuple(1 if each == axis else size for each, size in enumerate(value.shape)),
      factors=tuple(factor for factor in value.factors if factor.shape[axis] == 1)) for value in operands]
  merged = self.labels.merge(others, tuple(1 if each == axis else size for each, size in enumerate(shape)), reason)
  factors = merged.factors
  if any(factor is not None for factor in along):
    parts = [_labelled(self, value, axis, reason) for value in operands]
    common = [max(part.shape[each] for part in parts) for each in range(len(shape))]
    spread = [np.broadcast_to(part, [part.shape[axis] if each == axis else size for each, size in enumerate(common)])
              for part in parts]
    joined = np.concatenate(spread, axis)
    clashing = [factor for factor in factors if labels.whole_axes(factor) & labels.whole_axes(joined)]
    for factor in clashing:
      self.labels.pin(factor, reason)
      self.labels.pin(joined, reason)
    factors = (*(factor for factor in factors if not any(factor is each for each in clashing)), joined)
  vanishes = all(value.vanishes or (value.known is not None and not value.known.any()) for value in operands)
  is_parameter = all(value.is_parameter or value.is_constant for value in operands)
  return [Value(shape, factors, free, vanishes, is_parameter)]


def _pad(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  value, filling = operands
  config = equation.params['padding_config']

  def move(factor: np.ndarray) -> np.ndarray:
    own = [amounts if size > 1 else (0, 0, 0) for size, amounts in zip(factor.shape, config, strict=True)]
    with jax.ensure_compile_time_eval():
      padded = np.array(jax.lax.pad(np.asarray(factor, np.int32), np.int32(-1), own))
    holes = padded < 0
    if holes.any():
      # A place of the padding is one label wherever it stands on the factor's other axes.
      padded[holes] = self.labels.fresh(int(holes.sum()))
    return padded

  free = [free and amounts == (0, 0, 0) for free, amounts in zip(value.free, config, strict=True)]
  result = labels.moved(value, shapes[0], free, move)
  return [result._replace(vanishes=value.vanishes and filling.known is not None and not filling.known.any())]


def _gather(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  value, indices = operands
  numbers, sizes = equation.params['dimension_numbers'], equation.params['slice_sizes']
  if numbers.operand_batching_dims:
    self.labels.collapse_all(value, range(len(value.shape)), reason)
    return [activation(shapes[0])]
  mapped = numbers.start_index_map
  if indices.known is None:
    value = value._replace(factors=self.labels.collapse_all(value, mapped, reason))
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


def _dynamic_slice(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list,
                   reason: str) -> list[Value]:
  value, (shape,) = operands[0], shapes
  cut = [axis for axis, size in enumerate(shape) if size != value.shape[axis]]
  kept = value._replace(factors=self.labels.collapse_all(value, cut, reason))
  return [labels.moved(kept, shape, value.free, lambda factor: factor)]


def _reduce(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  value, axes = operands[0], tuple(equation.params['axes'])
  # A sum of zeros would be exact, but what is made of it (a mean, a norm) means something else over fewer channels.
  summed = self.labels.collapse_all(value, axes, f'{reason} over channels')
  free = [free for axis, free in enumerate(value.free) if axis not in axes]
  vanishes = value.vanishes and not equation.primitive.name.startswith('arg')
  return [Value(shape, tuple(factor.squeeze(axes) for factor in summed), tuple(free), vanishes, value.is_parameter)
          for shape in shapes]


def _summed(self: Coupling, value: Value, axes: Sequence[int], exact: bool, reason: str) -> tuple[np.ndarray, ...]:
  """The factors left when axes are summed over; a removed channel adds nothing if the value vanishes there."""
  rest = tuple(factor for factor in value.factors if not (exact and labels.whole_axes(factor) <= set(axes)))
  return self.labels.collapse_all(value._replace(factors=rest), axes, reason)


def _windowed(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list,
              reason: str) -> list[Value]:
  value = operands[0]
  if 'window_dimensions' in equation.params:
    axes = [axis for axis, size in enumerate(equation.params['window_dimensions']) if size > 1]
  elif 'axis' in equation.params:
    axes = [equation.params['axis']]
  else:
    axes = list(range(len(value.shape)))
  factors = self.labels.collapse_all(value, axes, f'{reason} over channels')
  strided = [axis for axis, size in enumerate(shapes[0]) if size != value.shape[axis]]
  factors = self.labels.collapse_all(value._replace(factors=factors), strided, reason)
  free = tuple(free and axis not in axes for axis, free in enumerate(value.free))
  return [Value(shape, factors, free, value.vanishes, value.is_parameter) for shape in shapes]


def _dot(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  contracted, batched = equation.params['dimension_numbers']
  kept = [[axis for axis in range(len(value.shape)) if axis not in (*contracted[side], *batched[side])]
          for side, value in enumerate(operands)]
  # The space of all products: batch, rows of the left, columns of the right, summed.
  ranks = len(batched[0]), len(kept[0]), len(kept[1]), len(contracted[0])

  def spread(side: int) -> Value:
    value = operands[side]
    gaps = ((1,) * ranks[2], (1,) * ranks[1])[side]
    order = (*batched[side], *kept[side], *contracted[side])

    def place(sizes: Sequence[Any], gap: Sequence[Any]) -> tuple[Any, ...]:
      ordered = [sizes[axis] for axis in order]
      at = ranks[0] + (ranks[1] if side == 0 else 0)
      return (*ordered[:at], *gap, *ordered[at:])

    factors = tuple(factor.transpose(order).reshape(place(factor.shape, gaps)) for factor in value.factors)
    return value._replace(
        shape=place(value.shape, gaps), factors=factors, free=place(value.free, (True,) * len(gaps)))

  left, right = spread(0), spread(1)

  def vanishes(factor: np.ndarray) -> bool:
    """Whether the products are zero where the factor's labels are removed."""
    axes = labels.whole_axes(factor)
    return any(each.vanishes and any(labels.whole_axes(own) & axes for own in each.factors) for each in (left, right))

  space = tuple(max(pair) for pair in zip(left.shape, right.shape, strict=True))
  _note_roles(self, operands, contracted, kept, batched)
  product = self.labels.merge((left, right), space, f'{reason} reads channels that stay')
  summed_axes = tuple(range(len(space) - ranks[3], len(space)))
  factors: list[np.ndarray] = []
  for factor in product.factors:
    factors += _summed(self, product._replace(factors=(factor,)), summed_axes, vanishes(factor),
                       f'{reason} sums over channels')
  shape = shapes[0]
  squeezed = tuple(factor.squeeze(summed_axes) for factor in factors)
  all_vanish = bool(factors) and all(map(vanishes, factors))
  return [Value(shape, squeezed, tuple(size == 1 for size in shape), all_vanish, product.is_parameter)]


def _note_roles(self: Coupling, operands: Sequence[Value], contracted: Any, kept: Any, batched: Any) -> None:
  """A kernel's summed axes read channels, its others make them; two activations do neither."""
  for side in (0, 1):
    value, other = operands[side], operands[1 - side]
    if value.is_parameter and not (other.is_parameter or other.is_constant):
      for axes, role in ((contracted[side], 'consumer'), (kept[side], 'producer'), (batched[side], 'producer')):
        self.roles[role] += [value.factor(axis).ravel() for axis in axes if value.factor(axis) is not None]


def _convolution(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list,
                 reason: str) -> list[Value]:
  (x, kernel), (shape,) = operands, shapes
  numbers, groups = equation.params['dimension_numbers'], equation.params['feature_group_count']
  channel, (out_axis, in_axis, *window) = numbers.lhs_spec[1], numbers.rhs_spec
  if equation.params['batch_group_count'] != 1:
    for value in operands:
      self.labels.collapse_all(value, range(len(value.shape)), reason)
    return [activation(shape)]
  x = x._replace(factors=self.labels.collapse_all(
      x, (axis for axis in range(len(x.shape)) if axis != channel), f'{reason} slides over channels'))
  kernel = kernel._replace(factors=self.labels.collapse_all(kernel, window, f'{reason}: the window of its kernel'))
  if any(len(labels.whole_axes(factor)) > 1 for factor in kernel.factors):
    kernel = kernel._replace(factors=self.labels.collapse_all(kernel, (in_axis, out_axis), reason))
  read, rows, columns = x.factor(channel), kernel.factor(in_axis), kernel.factor(out_axis)
  inputs, outputs = _flat(read), _flat(columns)
  if groups > 1 and kernel.shape[in_axis] == 1:
    if inputs.size and outputs.size:
      self.labels.tie(np.repeat(inputs, shape[numbers.out_spec[1]] // groups), outputs)
    elif outputs.size:
      self.labels.pin(outputs, f'{reason} reads channels that stay')
    elif inputs.size and kernel.is_constant:
      outputs = np.repeat(inputs, shape[numbers.out_spec[1]] // groups)
    elif inputs.size:
      self.labels.pin(inputs, reason)
    if kernel.is_parameter and not x.is_parameter:
      self.roles['depthwise'].append(outputs)
  elif groups > 1:
    if rows is not None and kernel.is_parameter:
      before = next((read for read in self.grouped if read.kernel[0] == rows.flat[0]), None)
      if before is not None and before.inputs.size and inputs.size:
        self.labels.tie(before.inputs, inputs)  # one kernel, used twice
      self.grouped.append(GroupedRead(reason.partition(' in ')[2], groups, _flat(rows), inputs, outputs))
      self.roles['producer'].append(outputs)
    else:
      for each in (inputs, outputs, _flat(rows)):
        self.labels.pin(each, reason)
  else:
    self.labels.merge(
        [x._replace(shape=(x.shape[channel],), factors=(inputs,) if inputs.size else (), free=(x.free[channel],)),
         kernel._replace(shape=(x.shape[channel],), factors=(_flat(rows),) if rows is not None else (),
                         free=(kernel.free[in_axis],))],
        (x.shape[channel],), f'{reason} reads channels that stay')
    if kernel.is_parameter and not x.is_parameter:
      self.roles['producer'].append(outputs)
      self.roles['consumer'].append(_flat(rows))
  out_channel = numbers.out_spec[1]
  factors = (outputs.reshape([-1 if axis == out_channel else 1 for axis in range(len(shape))]),) if outputs.size else ()
  return [Value(shape, factors, tuple(size == 1 for size in shape), kernel.vanishes and bool(factors), False)]


def _flat(factor: np.ndarray | None) -> np.ndarray:
  return np.zeros(0, int) if factor is None else factor.ravel()


def _barrier(self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: list, reason: str) -> list[Value]:
  return operands


_HANDLERS: dict[str, Callable[..., list[Value]]] = {
    'reshape': _reshape, 'transpose': _transpose, 'broadcast_in_dim': _broadcast, 'squeeze': _squeeze, 'rev': _rev,
    'slice': _slice, 'split': _split, 'concatenate': _concatenate, 'pad': _pad, 'gather': _gather,
    'dynamic_slice': _dynamic_slice, 'dot_general': _dot, 'conv_general_dilated': _convolution,
    'optimization_barrier': _barrier, **dict.fromkeys(REDUCTIONS, _reduce),
}
