"""One trace of a network: its convolutions and dense products, with MACs and the parameter behind each.

The network is any pure function of its variables: linen's `apply` in evaluation mode, an NNX model after `nnx.split`,
an Equinox model after `eqx.partition`. Nothing is computed: `jax.make_jaxpr` is run once, on shapes.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax.extend import core

from lightjax.core import modes, trees
from lightjax.core.typing import Layout, Path, Variables
from lightjax.graph import jaxprs, origins


class Operation(NamedTuple):
  """A convolution or a dense product of activations with a kernel.

  Attributes:
    kind: 'conv' or 'dense'.
    module: the parameter's parent path; without a parameter what the name stack says.
    parameter: path of the kernel; None where two activations are multiplied (attention) or the kernel is no single
      parameter.
    macs: multiply-adds for one example, those with padding included. A transposed convolution multiplies each input
      with each tap once; the zeros between its inputs are not counted.
    input_shape: of the activation, batch included.
    output_shape: batch included.
    output_axes: axes of the parameter *as stored* that index output channels: HWIO (3,), OIHW (0,), several for a
      dense layer with several output axes.
    input_axes: axes of the stored parameter that are summed over and index input channels.
    groups: how many groups of channels do not mix; the number of channels for a depthwise convolution.
  """
  kind: Literal['conv', 'dense']
  module: str
  parameter: Path | None
  macs: int
  input_shape: tuple[int, ...]
  output_shape: tuple[int, ...]
  output_axes: tuple[int, ...]
  input_axes: tuple[int, ...]
  groups: int


@dataclass(frozen=True)
class Trace:
  """What `trace` found.

  Attributes:
    operations: in execution order.
    parameters: shape and dtype of every parameter by path, in order of first use, unused ones last.
    outputs: shapes and dtypes of what the function returns, in its structure.
    jaxpr: the traced program, convolutions in 'lax' form; its inputs are the leaves of the variables and of the inputs.
  """
  operations: tuple[Operation, ...]
  parameters: dict[Path, jax.ShapeDtypeStruct]
  outputs: Any
  jaxpr: core.ClosedJaxpr

  @property
  def macs(self) -> int:
    """Multiply-adds of one example, over all operations."""
    return sum(operation.macs for operation in self.operations)


def trace(apply: Callable[..., Any], variables: Variables, *inputs: Any, batch_size: int | None = None) -> Trace:
  """Traces a network on shapes and lists its operations.

  Loops of `lax.scan` are entered and counted `length` times. Products of parameters alone cost nothing per example
  and are left out.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: pytree of arrays or `jax.ShapeDtypeStruct`.
    *inputs: arrays or `jax.ShapeDtypeStruct`.
    batch_size: examples in `inputs`, which MACs are divided by; without it the first axis of the first input. Give 1
      for a function of a single example.
  Returns:
    Operations, parameters and the program.
  Raises:
    ValueError: an operation stands in a `while` or `cond`, whose count is unknown; or MACs are no multiple of the
      batch.
  Example:
    >>> variables = {'fc': jax.ShapeDtypeStruct((8, 3), 'float32')}
    >>> x = jax.ShapeDtypeStruct((2, 3), 'float32')
    >>> network = trace(lambda variables, x: x @ variables['fc'].T, variables, x)
    >>> network.operations[0].parameter, network.operations[0].output_axes, network.macs
    ('fc', (0,), 24)
  """
  with modes.convolution_mode('lax'):
    jaxpr, outputs = jax.make_jaxpr(apply, return_shape=True)(variables, *inputs)
  if batch_size is None:
    batch_size = jax.tree.leaves(list(inputs))[0].shape[0]
  named = trees.flatten(variables)
  tracer = _Tracer(frozenset(path.split('/')[0] for path in named), batch_size)
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  arguments: list[Any] = [tracer.variable(trees.path_string(path), leaf, named) for path, leaf in leaves]
  arguments += [ACTIVATION] * (len(jaxpr.jaxpr.invars) - len(leaves))
  tracer.run(jaxpr, arguments)
  order = dict.fromkeys((*tracer.used, *named))
  parameters = {path: jax.ShapeDtypeStruct(named[path].shape, named[path].dtype) for path in order}
  return Trace(tuple(tracer.operations), parameters, outputs, jaxpr)


def layouts(network: Trace) -> dict[Path, Layout]:
  """How the network uses each kernel.

  Args:
    network: its trace.
  Returns:
    Path to layout, in execution order; a shared kernel as it is used first. Parameters that no operation multiplies
    with (biases, normalization) are left out.
  """
  found: dict[Path, Layout] = {}
  for order, operation in enumerate(network.operations):
    if operation.parameter is not None:
      first = found.setdefault(
          operation.parameter, Layout(operation.kind, operation.output_axes, order, operation.input_axes))
      found[operation.parameter] = first._replace(macs=first.macs + operation.macs)
  return found


# What a value can be besides an `Origin`.
ACTIVATION, CONSTANT = 'activation', 'constant'
Value = origins.Origin | str

_COUNTED = frozenset({'conv_general_dilated', 'dot_general'})


def _shapes(equation: core.JaxprEqn) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
  operands: list[Any] = equation.invars
  results: list[Any] = equation.outvars
  return [variable.aval.shape for variable in operands], [variable.aval.shape for variable in results]


class _Tracer:
  """The rule that follows parameters through a jaxpr and notes the operations."""

  def __init__(self, roots: frozenset[str], batch_size: int):
    self.roots, self.batch_size = roots, batch_size
    self.operations: list[Operation] = []
    self.used: dict[Path, None] = {}
    self.repeats = 1

  def variable(self, path: Path, leaf: Any, named: dict[Path, Any]) -> Value:
    is_parameter = path in named and named[path] is leaf
    return origins.of_parameter(path, leaf.shape) if is_parameter else CONSTANT

  def run(self, jaxpr: core.ClosedJaxpr, arguments: Sequence[Value], stack: str = '') -> list[Value]:
    return jaxprs.interpret(jaxpr.jaxpr, jaxpr.consts, arguments, self.rule, lambda _: CONSTANT, stack)

  def rule(self, equation: core.JaxprEqn, operands: list[Value], stack: str) -> list[Value]:
    name = equation.primitive.name
    self.used.update(dict.fromkeys(operand.parameter for operand in operands if isinstance(operand, origins.Origin)))
    if name == 'scan':
      return self.scan(equation, operands, stack)
    if name not in _COUNTED and any(jaxprs.contains(inner, _COUNTED) for inner in jaxprs.inner_jaxprs(equation)):
      module = jaxprs.module_name(stack, self.roots) or 'the network'
      raise ValueError(f'trace: {module} has a convolution or dense product inside {name!r}, where it cannot be '
                       'counted; unroll it or use lax.scan.')
    if ACTIVATION in operands:
      if name == 'conv_general_dilated':
        self.note_convolution(equation, operands, stack)
      elif name == 'dot_general':
        self.note_dense(equation, operands, stack)
      return [ACTIVATION] * len(equation.outvars)
    if name in _COUNTED:
      return [CONSTANT]
    return [CONSTANT if origin is None else origin for origin in origins.follow(equation, operands)]

  def scan(self, equation: core.JaxprEqn, operands: list[Value], stack: str) -> list[Value]:
    params = equation.params
    first, second = params['num_consts'], params['num_consts'] + params['num_carry']
    carries = operands[first:second]
    if ACTIVATION in operands:  # some carry may become one after the first round
      carries = [ACTIVATION] * len(carries)
    slices = [operand._replace(axes=operand.axes[1:]) if isinstance(operand, origins.Origin) else operand
              for operand in operands[second:]]
    outside, self.repeats = self.repeats, self.repeats * params['length']
    results = self.run(params['jaxpr'], [*operands[:first], *carries, *slices], stack)
    self.repeats = outside
    return [result if result == ACTIVATION else CONSTANT for result in results]

  def note_convolution(self, equation: core.JaxprEqn, operands: list[Value], stack: str) -> None:
    numbers, groups = equation.params['dimension_numbers'], equation.params['feature_group_count']
    (x, kernel), (result,) = _shapes(equation)
    output_axis, input_axis, *window = numbers.rhs_spec
    if any(dilation != 1 for dilation in equation.params['lhs_dilation']):
      macs = math.prod(x) * math.prod(kernel[axis] for axis in window) * kernel[output_axis] // groups
    else:
      macs = math.prod(result) * math.prod(kernel) // kernel[output_axis]
    self.note('conv', operands[1], macs, x, result, (output_axis,), (input_axis,), groups, stack)

  def note_dense(self, equation: core.JaxprEqn, operands: list[Value], stack: str) -> None:
    contracted, batched = equation.params['dimension_numbers']
    side = 0 if isinstance(operands[0], origins.Origin) else 1
    shapes, (result,) = _shapes(equation)
    operand, kernel, x = operands[side], shapes[side], shapes[1 - side]
    macs = math.prod(result) * math.prod(kernel[axis] for axis in contracted[side])
    grouped = [axis for axis in batched[side] if isinstance(operand, origins.Origin) and operand.axes[axis]]
    free = [axis for axis in range(len(kernel)) if axis not in (*contracted[side], *batched[side])]
    groups = math.prod(kernel[axis] for axis in grouped)
    self.note('dense', operand, macs, x, result, (*grouped, *free), tuple(contracted[side]), groups, stack)

  def note(
      self, kind: Literal['conv', 'dense'], kernel: Value, macs: int, input_shape: tuple[int, ...],
      output_shape: tuple[int, ...], output_axes: tuple[int, ...], input_axes: tuple[int, ...], groups: int, stack: str,
  ) -> None:
    module, parameter = jaxprs.module_name(stack, self.roots), None
    stored_output: tuple[int, ...] = ()
    stored_input: tuple[int, ...] = ()
    if isinstance(kernel, origins.Origin):
      parameter = kernel.parameter
      module = parameter.rpartition('/')[0]
      stored_output, stored_input = kernel.stored(output_axes), kernel.stored(input_axes)
    each, rest = divmod(macs * self.repeats, self.batch_size)
    if rest:
      raise ValueError(f'trace: {module or kind} does {macs * self.repeats} MACs, no multiple of the batch of '
                       f'{self.batch_size}; give batch_size=1 for a function of one example.')
    self.operations.append(Operation(
        kind, module, parameter, each, tuple(input_shape), tuple(output_shape), stored_output, stored_input, groups))
