"""Which layers read values that have to stand on one grid: the same value, or what is added or concatenated."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

from lightjax.core import modes, trees
from lightjax.core.typing import Path, Variables
from lightjax.graph import jaxprs
from lightjax.graph.channels import variable_paths

# Of several activations: all of them and the result stand on one grid.
_JOINING = frozenset({'add', 'add_any', 'concatenate', 'max', 'min', 'select_n', 'sub'})
# Of one activation: the result may stand on its grid. Scaling and shifting by variables belongs to the layer before.
_KEEPING = _JOINING | frozenset({
  'broadcast_in_dim', 'clamp', 'convert_element_type', 'copy', 'copy_p', 'div', 'dynamic_slice', 'gather', 'mul', 'neg',
  'optimization_barrier', 'pad', 'reduce_max', 'reduce_min', 'reduce_window_max', 'reduce_window_min', 'reshape', 'rev',
  'slice', 'split', 'squeeze', 'stop_gradient', 'transpose'})
_LAYERS = frozenset({'conv_general_dilated', 'dot_general'})


class Read(NamedTuple):
  """A kernel's use.

  Attributes:
    kernel: its path.
    stream: number of the grid that its input stands on; equal for inputs that share one.
  """
  kernel: Path
  stream: int


def streams(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> tuple[Read, ...]:
  """What each layer of a network reads.

  Integer arithmetic adds and concatenates codes as they are if their scales are equal. Inputs of layers that must be
  equal for that are of one stream: an input of a block and the sum with it that the next block reads.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: pytree of arrays or `jax.ShapeDtypeStruct`.
    *inputs: arrays or `jax.ShapeDtypeStruct`.
  Returns:
    One entry for each use of a kernel, in execution order.
  Example:
    >>> square, x = jax.ShapeDtypeStruct((3, 3), 'float32'), jax.ShapeDtypeStruct((1, 3), 'float32')
    >>> def residual(variables, x):
    ...   x = x + x @ variables['first']
    ...   return x @ variables['second'] @ variables['third']
    >>> [read.stream for read in streams(residual, {'first': square, 'second': square, 'third': square}, x)]
    [0, 0, 1]
  """
  with modes.convolution_mode('lax'):
    program = jax.make_jaxpr(apply)(variables, *inputs)
  walker = _Walker()
  paths = variable_paths(variables)
  arguments: list[_Value] = [_Value(kernel=trees.without_collection(path)) for path in paths]
  arguments += [walker.fresh() for _ in program.jaxpr.invars[len(paths):]]
  jaxprs.interpret(program.jaxpr, program.consts, arguments, walker.rule, lambda _: _Value())
  numbers: dict[int, int] = {}
  found = [(kernel, walker.root(stream)) for kernel, stream in walker.reads]
  return tuple(Read(kernel, numbers.setdefault(root, len(numbers))) for kernel, root in found)


class _Value(NamedTuple):
  """An activation has a stream; what is made of variables alone has none, but perhaps the path of a kernel."""
  stream: int | None = None
  kernel: Path | None = None


class _Walker:
  """The rule that carries streams through a jaxpr and joins them."""

  def __init__(self) -> None:
    self.parents: list[int] = []
    self.reads: list[tuple[Path, int]] = []

  def fresh(self) -> _Value:
    self.parents.append(len(self.parents))
    return _Value(stream=len(self.parents) - 1)

  def root(self, stream: int) -> int:
    while self.parents[stream] != stream:
      stream = self.parents[stream]
    return stream

  def rule(self, equation: core.JaxprEqn, operands: list[_Value], stack: str) -> Sequence[_Value]:
    name = equation.primitive.name
    moving = [operand.stream for operand in operands if operand.stream is not None]
    kernel = next((operand.kernel for operand in operands if operand.kernel is not None), None)
    if not moving:
      return [_Value(kernel=kernel) for _ in equation.outvars]
    if name in _LAYERS and len(moving) == 1 and kernel is not None:
      self.reads.append((kernel, moving[0]))
    elif name in _KEEPING and (len(moving) == 1 or name in _JOINING):
      for stream in moving[1:]:
        self.parents[self.root(stream)] = self.root(moving[0])
      return [_Value(stream=moving[0]) for _ in equation.outvars]
    return [self.fresh() for _ in equation.outvars]
