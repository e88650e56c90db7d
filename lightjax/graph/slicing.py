"""Runs a network on variables from which channels were cut, without a change to its code.

The network is traced with its whole variables, abstractly and for the inputs at hand (any batch size, any mode); then
the program is run operation by operation on the smaller arrays. Every value knows which places of its whole self it
still has, so shapes that the program states are replaced by what is left of them. Numbers that the program computed
from a width (the divisor of a mean over channels) stay: the smaller network computes what the whole one computes with
the channels at zero.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from lightjax.core import modes, trees
from lightjax.core.typing import Array, Path, Variables
from lightjax.graph import jaxprs, parts, scattered
from lightjax.graph.channels import variable_paths
from lightjax.graph.coupling import ELEMENTWISE
from lightjax.graph.parts import Mask, Part, SlicingError, Value

__all__ = ['KeptAxis', 'SlicingError', 'sliced', 'take']

_CONVOLUTION = ('lhs_dilation', 'rhs_dilation', 'batch_group_count', 'precision', 'preferred_element_type')


class KeptAxis(NamedTuple):
  """What is left of one axis of a variable.

  Attributes:
    axis: of the variable as stored.
    size: places of the whole axis; for a convolution in groups those of all groups together.
    indices: places that are kept, ascending.
    groups: of the convolution, see `channels.Member`.
  """
  axis: int
  size: int
  indices: tuple[int, ...]
  groups: int = 1

  def mask(self) -> Mask:
    """True where a place is kept."""
    mask = np.zeros(self.size, bool)
    mask[list(self.indices)] = True
    return mask if self.groups == 1 else mask.reshape(self.groups, -1)


def take(array: Any, kept: Sequence[KeptAxis]) -> Any:
  """The kept part of a variable, or of anything that has its shape or size 1 along some axes.

  Args:
    array: NumPy or JAX.
    kept: what is left of some of its axes.
  Returns:
    The smaller array.
  """
  if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer) and len(array.devices()) == 1:
    # Outside of jit, JAX would compile a program for each shape: half a minute for a ResNet-50.
    return jnp.asarray(take(np.asarray(array), kept), device=array.sharding if array.committed else None)
  xp = np if isinstance(array, np.ndarray) else jnp
  for each in sorted(kept, key=lambda each: each.groups, reverse=True):  # rows a group before outputs
    if array.shape[each.axis] == 1:
      continue
    if each.groups == 1:
      array = xp.take(array, np.array(each.indices, int), axis=each.axis)
    elif array.shape[-1] == 1:
      raise ValueError('the rows that a convolution in groups keeps differ from group to group; an array without its '
                       'outputs cannot follow.')
    else:
      parts = xp.split(array, each.groups, axis=-1)
      array = xp.concatenate([
          xp.take(part, np.flatnonzero(rows), axis=each.axis) for part, rows in zip(parts, each.mask(), strict=True)],
          axis=-1)
  return array


def sliced(
    apply: Callable[..., Any], shapes: Mapping[Path, tuple[int, ...]], kept: Mapping[Path, Sequence[KeptAxis]],
    *, convolve: Callable[..., Array] = lax.conv_general_dilated,
    pool: Callable[..., Array] = lax.reduce_window_max_p.bind,
) -> Callable[..., Any]:
  """The function of the smaller variables that computes what `apply` does.

  Args:
    apply: `apply(variables, *args, **kwargs)`, pure; training mode, mutable collections and keys are welcome. Arguments
      that are no arrays are taken as they are. Random numbers are drawn for the whole network and then cut, so that
      the same key gives the same dropout.
    shapes: of the whole variables by path, see `channels.variable_paths`.
    kept: what is left of them; variables that are not named are whole.
    convolve: used for every convolution, with the signature of `lax.conv_general_dilated`.
    pool: used for every max pooling, with the signature of `lax.reduce_window_max_p.bind`.
  Returns:
    A function with the arguments of `apply`. It can be jitted, differentiated, traced and given other batch sizes.
    Custom derivatives are kept; rematerialization is not.
  Raises (when called):
    SlicingError: the network does something with the cut channels that has no meaning without them; module and
      operation are named.
  """
  if not kept:
    return apply

  @functools.wraps(apply)
  def smaller(variables: Variables, *args: Any, **kwargs: Any) -> Any:
    leaves, structure = jax.tree_util.tree_flatten(variables)
    paths = variable_paths(variables)
    operands, avals = [], []
    for path, leaf in zip(paths, leaves, strict=True):
      part = _variable(path, leaf, shapes.get(path, np.shape(leaf)), kept.get(path, ()))
      operands.append(part)
      avals.append(jax.ShapeDtypeStruct(part.shape, leaf.dtype))
    given, form = jax.tree_util.tree_flatten((args, kwargs))
    is_array = [isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)) for leaf in given]
    arrays = [leaf for leaf, dynamic in zip(given, is_array, strict=True) if dynamic]

    def whole(flat: Sequence[Any], arrays: Sequence[Any]) -> Any:
      rest = iter(arrays)
      filled = [next(rest) if dynamic else leaf for leaf, dynamic in zip(given, is_array, strict=True)]
      args, kwargs = jax.tree_util.tree_unflatten(form, filled)
      return apply(jax.tree_util.tree_unflatten(structure, flat), *args, **kwargs)

    with modes.convolution_mode('lax'):
      program, outputs = jax.make_jaxpr(whole, return_shape=True)(avals, arrays)
    roots = frozenset(path.split('/')[0] for path in trees.flatten(variables))
    results = _Runner(roots, convolve, pool).run(program, [*operands, *map(parts.whole, arrays)])
    left = [parts.full(result, 'the output of the network').array for result in results]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(outputs), left)

  return smaller


def _variable(path: Path, leaf: Any, shape: tuple[int, ...], kept: Sequence[KeptAxis]) -> Part:
  masks: list[Mask | None] = [None] * len(shape)
  for each in kept:
    masks[each.axis] = each.mask()
  part = Part(leaf, shape, tuple(masks))
  expected = tuple(part.size(axis) for axis in range(len(shape)))
  if tuple(np.shape(leaf)) != expected:
    raise SlicingError(f'{path} has shape {tuple(np.shape(leaf))} where {expected} is left of {shape}; give the '
                       'variables that the removal made.')
  return part


class _Runner:
  """The rule that runs an equation on what is left of its operands."""

  def __init__(
      self, roots: frozenset[str], convolve: Callable[..., Array], pool: Callable[..., Array],
      differentiates: bool = False):
    self.roots, self.convolve, self.pool = roots, convolve, pool
    self.differentiates = differentiates  # a gradient may be summed over what is left of the channels

  def run(self, program: core.ClosedJaxpr, operands: Sequence[Value], stack: str = '') -> list[Value]:
    return self.run_open(program.jaxpr, program.consts, operands, stack)

  def run_open(
      self, program: core.Jaxpr, constants: Sequence[Any], operands: Sequence[Value], stack: str) -> list[Value]:
    return jaxprs.interpret(program, constants, operands, self.rule, parts.whole, stack, self.call)

  def rule(self, equation: core.JaxprEqn, operands: list[Value], stack: str) -> Sequence[Value]:
    name, result = equation.primitive.name, parts.shape_of(equation)
    where = f'{name} in {jaxprs.module_name(stack, self.roots) or "the network itself"}'
    if (known := parts.computed(equation, operands)) is not None:
      return known
    if name == 'broadcast_in_dim':
      return [parts.broadcast(equation, parts.full(operands[0], where))]
    if any(isinstance(operand, parts.Moved) for operand in operands):
      return scattered.on_moved(equation, operands, where)
    given = [operand for operand in operands if isinstance(operand, Part)]
    if name in ELEMENTWISE and any(part.shape == result for part in given):
      return [parts.elementwise(equation, given, where)]
    given = [parts.full(part, where) for part in given]
    if name == 'conv_general_dilated':
      return [self.convolution(equation, given[0], given[1], where)]
    if name == 'reduce_window_max':
      return parts.windowed(equation, given, where, self.pool)
    if all(part.is_whole for part in given):
      return parts.bound(equation, given)
    handler = scattered.reshape if name == 'reshape' else parts.HANDLERS.get(name)
    if handler is None:
      raise SlicingError(f'{where} is not known to mean the same without the channels that were removed.')
    if name == 'reduce_sum' and not self.differentiates and any(
        given[0].kept[axis] is not None for axis in equation.params['axes']):
      raise SlicingError(f'{where} runs over channels that were removed.')
    return handler(equation, given, where)

  def convolution(self, equation: core.JaxprEqn, x: Part, kernel: Part, where: str) -> Part:
    params = equation.params
    numbers, groups = params['dimension_numbers'], params['feature_group_count']
    channel, (out_axis, in_axis, *_) = numbers.lhs_spec[1], numbers.rhs_spec
    read, rows, outputs = x.kept[channel], kernel.kept[in_axis], kernel.kept[out_axis]
    if groups > 1 and kernel.shape[in_axis] == 1:
      each = kernel.shape[out_axis] // groups  # outputs a channel
      if outputs is None and read is not None:  # a filter that is a constant of the program
        outputs = np.repeat(read, each)
      elif outputs is not None:
        read = outputs.reshape(-1, each).any(1)
    elif groups > 1:
      read = read if rows is None else rows.ravel()
      for mask, size in ((read, x.shape[channel]), (outputs, kernel.shape[out_axis])):
        counts = np.ones(groups, int) * (size // groups) if mask is None else mask.reshape(groups, -1).sum(1)
        if (counts != counts[0]).any() or not counts[0]:
          raise SlicingError(f'{where}: its groups keep {counts.tolist()} channels; they must keep equally many.')
    else:
      read = rows = parts.common((read, rows), where)
    x = parts.conformed(x, parts.exchanged(x.kept, channel, read), where)
    kernel = parts.conformed(
        kernel, parts.exchanged(parts.exchanged(kernel.kept, in_axis, rows), out_axis, outputs), where)
    if groups > 1 and kernel.shape[in_axis] == 1:
      groups = x.size(channel)
    array = self.convolve(
        x.array, kernel.array, params['window_strides'], params['padding'], dimension_numbers=numbers,
        feature_group_count=groups, **{name: params[name] for name in _CONVOLUTION})
    shape = parts.shape_of(equation)
    return Part(array, shape, parts.exchanged((None,) * len(shape), numbers.out_spec[1], outputs))

  def call(self, equation: core.JaxprEqn, operands: list[Value], stack: str) -> Sequence[Value] | None:
    """A function with a derivative of its own keeps it; other calls are entered."""
    name = equation.primitive.name
    variables: Any = equation.invars
    results: Any = equation.outvars
    if name not in ('custom_jvp_call', 'custom_vjp_call') or any(
        isinstance(operand, parts.Moved) for operand in operands) or not all(
            jnp.issubdtype(variable.aval.dtype, jnp.floating) for variable in (*variables, *results)):
      return None
    given = [parts.full(operand, stack) for operand in operands]
    layouts: list[Part] = []  # of the results, known once the function has been run

    def filled(arrays: Sequence[Any]) -> list[Value]:
      return [part._replace(array=array) for part, array in zip(given, arrays, strict=True)]

    def forward(*arrays: Any) -> tuple[Any, ...]:
      inner, constants = jaxprs.open_jaxpr(equation.params[jaxprs.CALLS[name]])
      full = [parts.full(result, stack) for result in self.run_open(inner, constants, filled(arrays), stack)]
      layouts[:] = [part._replace(array=None) for part in full]
      return tuple(part.array for part in full)

    derivative = _Runner(self.roots, self.convolve, self.pool, True)
    function = (_with_tangents if name == 'custom_jvp_call' else _with_gradients)(
        equation, forward, filled, layouts, lambda program, operands: derivative.run(program, operands, stack))
    arrays = function(*(part.array for part in given))
    return [layout._replace(array=array) for layout, array in zip(layouts, arrays, strict=True)]


def _alone(equation: core.JaxprEqn) -> tuple[Callable[..., Any], list[jax.ShapeDtypeStruct]]:
  """One equation as a function of whole arrays, one for each operand, and their shapes."""
  variables: Any = equation.invars
  avals = [jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype) for variable in variables]

  return lambda *arrays: jaxprs.bind(equation, arrays), avals


def _with_tangents(
    equation: core.JaxprEqn, forward: Callable[..., Any], filled: Callable[..., list[Value]], layouts: list[Part],
    run: Callable[..., list[Value]],
) -> Any:
  """`forward` with the equation's own forward derivative, on smaller arrays."""
  whole, avals = _alone(equation)
  function: Any = jax.custom_jvp(forward)

  @function.defjvp
  def differentiated(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    program = jax.make_jaxpr(lambda primals, tangents: jax.jvp(whole, primals, tangents))(tuple(avals), tuple(avals))
    results = [parts.full(result, 'a derivative') for result in run(program, [*filled(primals), *filled(tangents)])]
    layouts[:] = [part._replace(array=None) for part in results[:len(results) // 2]]
    arrays = tuple(part.array for part in results)
    return arrays[:len(arrays) // 2], arrays[len(arrays) // 2:]

  return function


def _with_gradients(
    equation: core.JaxprEqn, forward: Callable[..., Any], filled: Callable[..., list[Value]], layouts: list[Part],
    run: Callable[..., list[Value]],
) -> Any:
  """`forward` with the equation's own backward derivative, on smaller arrays; what it saves is computed anew."""
  whole, avals = _alone(equation)
  results: Any = equation.outvars
  function: Any = jax.custom_vjp(forward)

  def backward(saved: Sequence[Any], gradients: Sequence[Any]) -> tuple[Any, ...]:
    program = jax.make_jaxpr(lambda primals, gradients: jax.vjp(whole, *primals)[1](gradients))(
        tuple(avals), [jax.ShapeDtypeStruct(result.aval.shape, result.aval.dtype) for result in results])
    operands: list[Any] = filled(saved)
    given = [layout._replace(array=gradient) for layout, gradient in zip(layouts, gradients, strict=True)]
    return tuple(
        parts.conformed(parts.full(result, 'a gradient'), operand.kept, 'a gradient').array
        for result, operand in zip(run(program, [*operands, *given]), operands, strict=True))

  function.defvjp(lambda *arrays: (forward(*arrays), arrays), backward)
  return function
