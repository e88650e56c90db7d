"""What stands between one kernel and the next: normalization to fold, activations to equalize over."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from lightjax.core import modes, trees
from lightjax.core.typing import Path, Variables
from lightjax.graph import jaxprs
from lightjax.graph.channels import variable_paths
from lightjax.graph.coupling import ELEMENTWISE

_SHAPING = frozenset({'broadcast_in_dim', 'convert_element_type', 'copy', 'copy_p', 'reshape', 'squeeze'})
_AFFINE = frozenset({'add', 'add_any', 'div', 'mul', 'sub'})


class Link(NamedTuple):
  """The straight way from a kernel to the next one, as far as nothing else reads what is in between.

  Attributes:
    first: path of a kernel.
    variables: what the outputs are scaled and shifted by, with collections, in order: the layer's bias, BatchNorm's
      mean, var, scale and bias.
    functions: other elementwise operations on the way ('max' for ReLU), in order; operations that shape or cast are
      left out.
    second: path of the kernel that reads the result; None where the way ends in anything else, such as a sum.
    epsilon: what the normalization that follows adds to its variance, if it follows directly, so that it can be folded
      into the kernel; None if a function stands before it or there is none.
  """
  first: Path
  variables: tuple[Path, ...]
  functions: tuple[str, ...]
  second: Path | None
  epsilon: float | None = None

  @property
  def norm(self) -> str | None:
    """Module of the normalization that follows the kernel, the one with running statistics; None if there is none."""
    return next((path.partition('/')[2].rpartition('/')[0] for path in self.variables
                 if path.startswith('batch_stats/')), None)


class _Flow(NamedTuple):
  """A value on the way from a kernel (`start`), or one made of variables and numbers alone.

  `constant` is the number that it is; `epsilon` the one that was added to a statistic in it.
  """
  number: int
  start: int | None = None
  variables: tuple[Path, ...] = ()
  constant: float | None = None
  epsilon: float | None = None


class _Step(NamedTuple):
  read: int  # the number of the value that the step reads
  variables: tuple[Path, ...] = ()
  function: str | None = None
  second: Path | None = None
  epsilon: float | None = None


def links(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> tuple[Link, ...]:
  """For each kernel of a network what follows it.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: pytree of arrays or `jax.ShapeDtypeStruct`.
    *inputs: arrays or `jax.ShapeDtypeStruct`.
  Returns:
    One link a kernel, in execution order.
  Example:
    >>> variables = {'up': jax.ShapeDtypeStruct((3, 8), 'float32'), 'down': jax.ShapeDtypeStruct((8, 2), 'float32')}
    >>> links(lambda variables, x: jax.nn.relu(x @ variables['up']) @ variables['down'], variables,
    ...       jax.ShapeDtypeStruct((1, 3), 'float32'))[0]
    Link(first='up', variables=(), functions=('max',), second='down', epsilon=None)
  """
  with modes.convolution_mode('lax'):
    program = jax.make_jaxpr(apply)(variables, *inputs)
  walker = _Walker()
  paths = variable_paths(variables)
  arguments = [walker.new(variables=(path,)) for path in paths]
  arguments += [walker.new(start=-1) for _ in program.jaxpr.invars[len(paths):]]
  for result in jaxprs.interpret(program.jaxpr, program.consts, arguments, walker.rule, walker.literal):
    walker.read(result)
  return tuple(walker.link(index) for index in range(len(walker.kernels)))


class _Walker:
  """The rule that notes, for each kernel, the steps that follow it."""

  def __init__(self) -> None:
    self.uses: list[int] = []
    self.kernels: list[Path] = []
    self.steps: list[list[_Step]] = []

  def new(self, start: int | None = None, variables: tuple[Path, ...] = (), **about: float | None) -> _Flow:
    self.uses.append(0)
    return _Flow(len(self.uses) - 1, start, variables, **about)

  def literal(self, value: Any) -> _Flow:
    is_number = isinstance(value, int | float | np.number) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return self.new(constant=float(value) if is_number else None)

  def read(self, value: _Flow) -> None:
    self.uses[value.number] += 1

  def rule(self, equation: core.JaxprEqn, operands: list[_Flow], stack: str) -> Sequence[_Flow]:
    name = equation.primitive.name
    for operand in operands:
      self.read(operand)
    moving = [operand for operand in operands if operand.start is not None]
    paths = tuple(dict.fromkeys(path for operand in operands if operand.start is None for path in operand.variables))
    epsilon = next((operand.epsilon for operand in operands if operand.epsilon is not None), None)
    if not moving:
      constant = next((operand.constant for operand in operands if operand.constant is not None), None)
      if name == 'add' and constant is not None and any(path.startswith('batch_stats/') for path in paths):
        epsilon = constant
      constant = constant if name in _SHAPING and not paths else None
      return [self.new(variables=paths, constant=constant, epsilon=epsilon) for _ in equation.outvars]
    flow, start = moving[0], moving[0].start or 0
    if name in ('conv_general_dilated', 'dot_general') and len(moving) == 1 and paths:
      kernel = trees.without_collection(paths[0])
      if start >= 0:
        self.steps[start].append(_Step(flow.number, second=kernel))
      self.kernels.append(kernel)
      self.steps.append([])
      return [self.new(start=len(self.kernels) - 1)]
    if len(moving) > 1 or start == -1 or (name not in ELEMENTWISE and name not in _SHAPING):
      return [self.new(start=-1) for _ in equation.outvars]
    function = None if name in _SHAPING or (name in _AFFINE and paths) else name
    self.steps[start].append(_Step(flow.number, paths, function, epsilon=epsilon))
    return [self.new(start=start)]

  def link(self, index: int) -> Link:
    variables: list[Path] = []
    functions: list[str] = []
    second = epsilon = None
    for step in self.steps[index]:
      if self.uses[step.read] > 1:
        break
      variables += step.variables
      functions += [step.function] if step.function else []
      second = step.second
      if epsilon is None and not functions:
        epsilon = step.epsilon
    return Link(self.kernels[index], tuple(variables), tuple(functions), second, epsilon)
