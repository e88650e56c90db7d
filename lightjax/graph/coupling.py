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

from lightjax.graph import jaxprs, labels, movement
from lightjax.graph.labels import Value, activation, constant
from lightjax.graph.movement import Shapes

ELEMENTWISE = frozenset({
    'abs', 'acos', 'acosh', 'add', 'add_any', 'and', 'asin', 'asinh', 'atan', 'atan2', 'atanh',
    'bitcast_convert_type', 'cbrt', 'ceil', 'clamp', 'convert_element_type', 'copy', 'copy_p', 'cos', 'cosh',
    'digamma', 'div', 'eq', 'erf', 'erf_inv', 'erfc', 'exp', 'exp2', 'expm1', 'floor', 'ge', 'gt', 'imag',
    'integer_pow', 'is_finite', 'le', 'lgamma', 'log', 'log1p', 'logistic', 'lt', 'max', 'min', 'mul', 'ne', 'neg',
    'nextafter', 'not', 'or', 'pow', 'real', 'reduce_precision', 'rem', 'round', 'rsqrt', 'select_n', 'shift_left',
    'shift_right_arithmetic', 'shift_right_logical', 'sign', 'sin', 'sinh', 'sqrt', 'square', 'stop_gradient', 'sub',
    'tan', 'tanh', 'xor',
})
REDUCTIONS = frozenset({
    'argmax', 'argmin', 'reduce_and', 'reduce_max', 'reduce_min', 'reduce_or', 'reduce_prod', 'reduce_sum',
    'reduce_xor',
})
# Pooling and cumulative operations.
WINDOWS = frozenset({
    'cumlogsumexp', 'cummax', 'cummin', 'cumprod', 'cumsum', 'reduce_window', 'reduce_window_max',
    'reduce_window_min', 'reduce_window_sum',
})
# Values that are drawn or counted: any part of them may be taken.
SOURCES = frozenset({
    'iota', 'random_bits', 'random_clone', 'random_fold_in', 'random_gamma', 'random_seed', 'random_split',
    'random_unwrap', 'random_wrap', 'rng_bit_generator', 'threefry2x32',
})
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
    if name in movement.HANDLERS:
      return movement.HANDLERS[name](self.labels, equation, operands, shapes, reason)
    if name in _HANDLERS:
      return _HANDLERS[name](self, equation, operands, shapes, reason)
    for operand in operands:
      self.labels.collapse_all(operand, range(len(operand.shape)), reason)
    return [activation(shape) for shape in shapes]


def _computed(equation: core.JaxprEqn, operands: Sequence[Value]) -> np.ndarray | None:
  """The first result of an operation on known constants, if it is small."""
  result: Any = equation.outvars[0]
  if any(operand.known is None for operand in operands) or jax.dtypes.issubdtype(
      result.aval.dtype, jax.dtypes.prng_key):
    return None
  known = operands[0].known if operands else None
  if equation.primitive.name == 'broadcast_in_dim' and known is not None and known.size == 1:
    return np.broadcast_to(known.reshape(()), result.aval.shape)  # no memory, and seen to be one number
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


def _reduce(
    self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
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


def _windowed(
    self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
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


def _dot(
    self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
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
        self.roles[role] += [factor.ravel() for factor in map(value.factor, axes) if factor is not None]


def _convolution(
    self: Coupling, equation: core.JaxprEqn, operands: list[Value], shapes: Shapes, reason: str,
) -> list[Value]:
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


_HANDLERS: dict[str, Callable[..., list[Value]]] = {
    'dot_general': _dot, 'conv_general_dilated': _convolution, **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(WINDOWS, _windowed),
}
