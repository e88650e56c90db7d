"""Runs a network on kernels that are given as factors: one layer becomes two or three, without a change to its code.

The network is traced abstractly with its whole kernels; then the program is run operation by operation, and where it
multiplies with a kernel of which there are factors, it multiplies with one after the other. The product is never made.

Factors stand in the variables in the kernel's place, `{'first': ..., 'second': ...}`, in the layout that `Use` has them
in: a convolution's [window..., inputs, outputs], a dense layer's [inputs..., rank] and [rank, outputs...].
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend import core

from lightjax.core import modes, trees
from lightjax.core.typing import Array, Path, Variables
from lightjax.graph import jaxprs

__all__ = ['NAMES', 'FactorError', 'Use', 'at_paths', 'factored', 'uses']

NAMES = ('first', 'second', 'third')
_CASTS = frozenset({'convert_element_type', 'copy', 'copy_p'})


class FactorError(ValueError):
  """A kernel can't be run as factors; the message names it, and what the network does with it."""


class Use(NamedTuple):
  """How a network multiplies with a kernel.

  Attributes:
    kind: 'conv' or 'dense'.
    window_axes: of the stored kernel, ascending; none of a dense layer.
    input_axes: likewise; one of a convolution.
    output_axes: likewise.
    extents: for each product with it the sizes of the image before and after along the window axes; the number of rows
      an example, before and after, for a dense layer.
    obstacle: why it can not be run as factors; '' where it can.
  """
  kind: str
  window_axes: tuple[int, ...]
  input_axes: tuple[int, ...]
  output_axes: tuple[int, ...]
  extents: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
  obstacle: str = ''

  @property
  def order(self) -> tuple[int, ...]:
    """The stored axes in the order window, inputs, outputs, in which factors have them."""
    return (*self.window_axes, *self.input_axes, *self.output_axes)


def uses(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> dict[Path, Use]:
  """Which kernels a network multiplies with, and how.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: arrays or `jax.ShapeDtypeStruct`s.
    *inputs: arrays or `jax.ShapeDtypeStruct`s; the first axis of the first counts the examples.
  Returns:
    By path, in execution order; a parameter that is read in another way has that as its obstacle.
  Example:
    >>> variables = {'fc': jax.ShapeDtypeStruct((8, 3), 'float32')}
    >>> x = jax.ShapeDtypeStruct((2, 8), 'float32')
    >>> uses(lambda variables, x: x @ variables['fc'], variables, x)['fc'].extents
    (((1,), (1,)),)
  """
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
  paths = [trees.path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
  kernels = trees.flatten(shapes)
  runner = _Observer(frozenset(path.split('/')[0] for path in kernels), jax.tree.leaves(list(inputs))[0].shape[0])

  def run(variables: Variables, *inputs: Any) -> Any:
    with modes.convolution_mode('lax'):
      program = jax.make_jaxpr(apply)(variables, *inputs)
    found = jax.tree.leaves(variables)
    operands = [_Kernel(path, tuple(range(leaf.ndim)), (leaf,)) if path in kernels else leaf
                for path, leaf in zip(paths, found, strict=True)]
    return runner.run(program, [*operands, *jax.tree.leaves(list(inputs))])

  jax.eval_shape(run, shapes, *inputs)
  return runner.uses


def factored(
  apply: Callable[..., Any], used: Mapping[Path, Use], shapes: Mapping[Path, tuple[int, ...]],
  convolve: Callable[..., Array] = lax.conv_general_dilated,
) -> Callable[..., Any]:
  """The function of variables with factors that computes what `apply` does with their products.

  Args:
    apply: `apply(variables, *args, **kwargs)`, pure; training mode, mutable collections and keys are welcome.
    used: how it uses each kernel of which there are factors, from `uses`.
    shapes: of these kernels, whole.
    convolve: used for every convolution, with the signature of `lax.conv_general_dilated`.
  Returns:
    A function with the arguments of `apply`; it can be jitted, differentiated, traced and given other batch sizes.
  Raises (when called):
    FactorError: in this mode the network does something else with such a kernel; kernel and operation are named.
  """
  if not used:
    return apply

  @functools.wraps(apply)
  def layered(variables: Variables, *args: Any, **kwargs: Any) -> Any:
    leaves, structure = at_paths(variables, used)
    operands: list[Any] = []
    avals = []
    for path, leaf in leaves:
      if path in used:
        factors = tuple(leaf[name] for name in NAMES if name in leaf)
        operands.append(_Kernel(path, tuple(range(len(shapes[path]))), factors))
        avals.append(jax.ShapeDtypeStruct(shapes[path], factors[0].dtype))
      else:
        operands.append(leaf)
        avals.append(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    given, form = jax.tree_util.tree_flatten((args, kwargs))
    is_array = [hasattr(leaf, 'shape') and hasattr(leaf, 'dtype') for leaf in given]
    arrays = [leaf for leaf, dynamic in zip(given, is_array, strict=True) if dynamic]

    def whole(variables: Variables, *arrays: Any) -> Any:
      rest = iter(arrays)
      filled = [next(rest) if dynamic else leaf for leaf, dynamic in zip(given, is_array, strict=True)]
      args, kwargs = jax.tree_util.tree_unflatten(form, filled)
      return apply(variables, *args, **kwargs)

    with modes.convolution_mode('lax'):
      program, outputs = jax.make_jaxpr(whole, return_shape=True)(
        jax.tree_util.tree_unflatten(structure, avals), *arrays)
    roots = frozenset(path.split('/')[0] for path in used)
    results = _Multiplier(roots, used, convolve).run(program, [*operands, *arrays])
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(outputs), results)

  return layered


def at_paths(variables: Variables, paths: Mapping[Path, Any]) -> tuple[list[tuple[Path, Any]], Any]:
  """The leaves of variables by path, and their structure, with whatever stands at some paths taken as one leaf.

  Args:
    variables: any pytree.
    paths: those of parameters, as `trees.flatten` names them.
  Returns:
    Pairs (path with its collection unless that is 'params', leaf or sub-tree), and the structure around them.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(
    variables, is_leaf=lambda path, node: trees.path_string(path) in paths, is_leaf_takes_path=True)
  return [(trees.path_string(path), leaf) for path, leaf in leaves], structure


class _Kernel(NamedTuple):
  """A kernel on its way to the product: which stored axis each of its axes is, and its factors, or itself alone."""
  path: Path
  axes: tuple[int, ...]
  arrays: tuple[Any, ...]


class _Runner:
  """The rule that runs an equation; what is done with kernels is for those that inherit."""

  def __init__(self, roots: frozenset[str]):
    self.roots = roots

  def run(self, program: core.ClosedJaxpr, operands: Sequence[Any]) -> list[Any]:
    results = jaxprs.interpret(
      program.jaxpr, program.consts, operands, self.rule, lambda value: value, call=self.call)
    return [self.lost(result, 'the output of the network') if isinstance(result, _Kernel) else result
            for result in results]

  def call(self, equation: core.JaxprEqn, operands: list[Any], stack: str) -> Sequence[Any] | None:
    """Functions without a kernel are called as they are; one with a derivative of its own has none for factors."""
    if not any(isinstance(operand, _Kernel) for operand in operands):
      return jaxprs.bind(equation, operands)
    if equation.primitive.name.startswith('custom_'):
      return jaxprs.bind(equation, self.without_kernels(equation, operands, stack))
    return None

  def rule(self, equation: core.JaxprEqn, operands: list[Any], stack: str) -> Sequence[Any]:
    name, kernels = equation.primitive.name, [each for each in operands if isinstance(each, _Kernel)]
    if not kernels:
      return jaxprs.bind(equation, operands)
    kernel = kernels[0]
    if name in _CASTS:
      return [kernel._replace(arrays=tuple(jaxprs.bind(equation, [each])[0] for each in kernel.arrays))]
    if name == 'transpose':
      order = equation.params['permutation']
      return [self.transposed(kernel, order)]
    if len(kernels) == 1 and name == 'conv_general_dilated' and operands[1] is kernel and self.splits_conv(equation):
      return [self.convolution(equation, operands[0], kernel)]
    if len(kernels) == 1 and name == 'dot_general' and self.splits_dot(equation, operands.index(kernel)):
      return [self.dense(equation, operands, operands.index(kernel))]
    return jaxprs.bind(equation, self.without_kernels(equation, operands, stack))

  def without_kernels(self, equation: core.JaxprEqn, operands: list[Any], stack: str) -> list[Any]:
    where = f'{equation.primitive.name} in {jaxprs.module_name(stack, self.roots) or "the network itself"}'
    return [self.lost(each, where) if isinstance(each, _Kernel) else each for each in operands]

  def splits_conv(self, equation: core.JaxprEqn) -> bool:
    params = equation.params
    return params['feature_group_count'] == params['batch_group_count'] == 1 and all(
      each == 1 for each in params['lhs_dilation'])

  def splits_dot(self, equation: core.JaxprEqn, side: int) -> bool:
    (contracted, batched) = equation.params['dimension_numbers']
    operand: Any = equation.invars[side]
    return not batched[side] and 0 < len(contracted[side]) < len(operand.aval.shape)

  def transposed(self, kernel: _Kernel, order: Sequence[int]) -> _Kernel:
    return kernel._replace(axes=tuple(kernel.axes[axis] for axis in order))

  def lost(self, kernel: _Kernel, where: str) -> Any:
    raise NotImplementedError

  def convolution(self, equation: core.JaxprEqn, x: Any, kernel: _Kernel) -> Any:
    raise NotImplementedError

  def dense(self, equation: core.JaxprEqn, operands: list[Any], side: int) -> Any:
    raise NotImplementedError


class _Observer(_Runner):
  """Runs the whole kernels and notes how each is used."""

  def __init__(self, roots: frozenset[str], examples: int):
    super().__init__(roots)
    self.examples = examples
    self.uses: dict[Path, Use] = {}

  def transposed(self, kernel: _Kernel, order: Sequence[int]) -> _Kernel:
    return super().transposed(kernel, order)._replace(arrays=(lax.transpose(kernel.arrays[0], order),))

  def lost(self, kernel: _Kernel, where: str) -> Any:
    known = self.uses.get(kernel.path, Use('', (), (), (), ()))
    self.uses[kernel.path] = known._replace(obstacle=known.obstacle or where)
    return kernel.arrays[0]

  def convolution(self, equation: core.JaxprEqn, x: Any, kernel: _Kernel) -> Any:
    numbers = equation.params['dimension_numbers']
    result = jaxprs.bind(equation, [x, kernel.arrays[0]])[0]
    output_axis, input_axis, *window = (kernel.axes[axis] for axis in numbers.rhs_spec)

    def extents(value: Any, spec: Sequence[int]) -> tuple[int, ...]:
      return tuple(value.shape[axis] for _, axis in sorted(zip(window, spec[2:], strict=True)))

    both = (extents(x, numbers.lhs_spec), extents(result, numbers.out_spec))
    self.note(kernel, Use('conv', tuple(sorted(window)), (input_axis,), (output_axis,), (both,)))
    return result

  def dense(self, equation: core.JaxprEqn, operands: list[Any], side: int) -> Any:
    kernel, contracted = operands[side], equation.params['dimension_numbers'][0][side]
    given = [each.arrays[0] if isinstance(each, _Kernel) else each for each in operands]
    result = jaxprs.bind(equation, given)[0]
    inputs = tuple(sorted(kernel.axes[axis] for axis in contracted))
    outputs = tuple(axis for axis in sorted(kernel.axes) if axis not in inputs)
    made = kernel.arrays[0].size
    for axis in contracted:
      made //= kernel.arrays[0].shape[axis]
    rows = result.size // made // self.examples
    self.note(kernel, Use('dense', (), inputs, outputs, (((rows,), (rows,)),)))
    return result

  def note(self, kernel: _Kernel, use: Use) -> None:
    known = self.uses.get(kernel.path)
    if known is None:
      self.uses[kernel.path] = use
    elif not known.extents:
      self.uses[kernel.path] = use._replace(obstacle=known.obstacle)
    elif known[:4] != use[:4]:
      self.uses[kernel.path] = known._replace(obstacle=known.obstacle or 'two products with it in different ways')
    else:
      self.uses[kernel.path] = known._replace(extents=(*known.extents, *use.extents))


class _Multiplier(_Runner):
  """Multiplies with one factor after the other."""

  def __init__(self, roots: frozenset[str], used: Mapping[Path, Use], convolve: Callable[..., Array]):
    super().__init__(roots)
    self.used, self.convolve = used, convolve

  def call(self, equation: core.JaxprEqn, operands: list[Any], stack: str) -> Sequence[Any] | None:
    # A function without a kernel is entered if it has convolutions, which take the quickest form one by one.
    has_kernel = any(isinstance(operand, _Kernel) for operand in operands)
    if not has_kernel and not equation.primitive.name.startswith('custom_') and any(
        jaxprs.contains(inner, frozenset({'conv_general_dilated'})) for inner in jaxprs.inner_jaxprs(equation)):
      return None
    return super().call(equation, operands, stack)

  def rule(self, equation: core.JaxprEqn, operands: list[Any], stack: str) -> Sequence[Any]:
    if equation.primitive.name == 'conv_general_dilated' and not any(isinstance(each, _Kernel) for each in operands):
      return [self.convolve(*operands, **_convolution_params(equation))]
    return super().rule(equation, operands, stack)

  def lost(self, kernel: _Kernel, where: str) -> Any:
    raise FactorError(
      f'{kernel.path} is given as factors, and {where} needs it whole; leave it out of the factorization.')

  def convolution(self, equation: core.JaxprEqn, x: Any, kernel: _Kernel) -> Any:
    params, numbers = _convolution_params(equation), equation.params['dimension_numbers']
    window = [kernel.axes[axis] for axis in numbers.rhs_spec[2:]]
    axes = len(window)
    ascending = sorted(window)
    rhs_spec = (axes + 1, axes, *(ascending.index(axis) for axis in window))
    last = len(kernel.arrays) - 1
    for i, factor in enumerate(kernel.arrays):
      steps = _shares(kernel.arrays, i, [ascending.index(axis) for axis in window], equation.params)
      out_spec = numbers.out_spec if i == last else numbers.lhs_spec
      x = self.convolve(x, factor, **{
        **params, **steps, 'dimension_numbers': lax.ConvDimensionNumbers(numbers.lhs_spec, rhs_spec, out_spec)})
    return x

  def dense(self, equation: core.JaxprEqn, operands: list[Any], side: int) -> Any:
    (contracted, _), x = equation.params['dimension_numbers'], operands[1 - side]
    kernel = operands[side]
    how = {name: equation.params[name] for name in ('precision', 'preferred_element_type')}
    inputs = self.used[kernel.path].input_axes
    ours = tuple(inputs.index(kernel.axes[axis]) for axis in contracted[side])
    first, second = kernel.arrays
    y = lax.dot_general(x, first, ((contracted[1 - side], ours), ((), ())), **how)
    y = lax.dot_general(y, second, (((y.ndim - 1,), (0,)), ((), ())), **how)
    free = [kernel.axes[axis] for axis in range(len(kernel.axes)) if axis not in contracted[side]]
    rows = y.ndim - len(free)  # axes of x that are left; then the kernel's in stored order
    made = [rows + sorted(free).index(axis) for axis in free]
    order = [*range(rows), *made] if side == 1 else [*made, *range(rows)]
    return y if order == list(range(y.ndim)) else lax.transpose(y, order)


def _shares(
  factors: Sequence[Any], index: int, window: Sequence[int], params: Mapping[str, Any]
) -> dict[str, tuple[Any, ...]]:
  """Strides, padding and dilation of one factor: of each window axis they go to the first factor that extends along it.

  Args:
    factors: [window..., inputs, outputs].
    index: of the factor.
    window: for each window axis of the convolution the axis of the factors.
    params: of the convolution.
  """
  takes = [next((i for i, factor in enumerate(factors) if factor.shape[axis] > 1), 0) == index for axis in window]

  def share(values: Sequence[Any], without: Any) -> tuple[Any, ...]:
    return tuple(value if taken else without for value, taken in zip(values, takes, strict=True))

  return {
    'window_strides': share(params['window_strides'], 1), 'padding': share(params['padding'], (0, 0)),
    'rhs_dilation': share(params['rhs_dilation'], 1)}


def _convolution_params(equation: core.JaxprEqn) -> dict[str, Any]:
  return {name: equation.params[name] for name in (
    'window_strides', 'padding', 'lhs_dilation', 'rhs_dilation', 'dimension_numbers', 'feature_group_count',
    'batch_group_count', 'precision', 'preferred_element_type')}

