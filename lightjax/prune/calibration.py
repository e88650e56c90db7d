"""Second moments of the inputs of layers, on a batch: what criteria that look at activations stand on.

The network's own program is run once with its convolutions and dense products watched; no module is patched, so that
it works on any pure `apply(variables, *inputs)`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from lightjax.core import modes, trees
from lightjax.core.typing import Array, Path, Variables
from lightjax.graph import jaxprs, origins

__all__ = ['DAMPING', 'Moment', 'input_norm', 'inverse_diagonal', 'moments']

DAMPING = 0.01  # of the mean of the diagonal, added before a moment is inverted; SparseGPT's and GPTQ's value


class Moment(NamedTuple):
  """Mean of x x^T over examples and positions, x being what one output of the layer is computed from.

  Attributes:
    matrix: [groups k k]; groups is 1 but for grouped and depthwise convolutions.
    axes: stored axes of the kernel that x runs over (input channels and window), ascending; k is their product.
  """
  matrix: Array
  axes: tuple[int, ...]


class _Value(NamedTuple):
  array: Any
  origin: origins.Origin | None  # which parameter it is made of; None for activations and constants


def moments(
  apply: Callable[..., Any], variables: Variables, inputs: tuple[Any, ...], paths: Sequence[Path]
) -> dict[Path, Moment]:
  """Second moments of the inputs of some kernels.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: any pytree.
    inputs: one batch, arrays.
    paths: kernels.
  Returns:
    Path to moment; those of a kernel that is used several times are averaged.
  Raises:
    ValueError: a batch of shapes alone, or a path that no convolution or dense product uses as it is stored.
  """
  if any(isinstance(each, jax.ShapeDtypeStruct) for each in jax.tree.leaves(inputs)):
    raise ValueError('moments: inputs are needed and there are only their shapes; pass batch=(x,) with arrays.')
  with modes.convolution_mode('lax'):
    program = jax.make_jaxpr(apply)(variables, *inputs)
  wanted, found = set(paths), {path: [] for path in paths}  # type: tuple[set[Path], dict[Path, list[Moment]]]

  def rule(equation: core.JaxprEqn, operands: list[Any], stack: str) -> Sequence[Any]:
    name = equation.primitive.name
    if name in ('conv_general_dilated', 'dot_general'):
      side = 1 if name == 'conv_general_dilated' or operands[1].origin is not None else 0
      origin = operands[side].origin
      if origin is not None and origin.parameter in wanted:
        watch = _convolution if name == 'conv_general_dilated' else _dense
        found[origin.parameter].append(watch(equation, operands[1 - side].array, origin, side))
      traced: Sequence[origins.Origin | None] = [None] * len(equation.outvars)
    elif jaxprs.inner_jaxprs(equation):
      traced = [None] * len(equation.outvars)
    else:
      activations = any(each.origin is None and jnp.ndim(each.array) for each in operands)
      traced = [None] * len(equation.outvars) if activations else origins.follow(
        equation, [each.origin for each in operands])
    results = equation.primitive.bind(*(each.array for each in operands), **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    return [_Value(*each) for each in zip(results, traced, strict=True)]

  named: dict[Path, Any] = trees.flatten(variables)
  arguments = []
  leaves: list[Any] = jax.tree_util.tree_leaves_with_path(variables)
  for key_path, leaf in leaves:
    path = trees.path_string(key_path)
    is_parameter = path in named and named[path] is leaf
    arguments.append(_Value(leaf, origins.of_parameter(path, leaf.shape) if is_parameter else None))
  arguments += [_Value(leaf, None) for leaf in jax.tree.leaves(inputs)]
  jaxprs.interpret(program.jaxpr, program.consts, arguments, rule, lambda array: _Value(array, None))
  for path, each in found.items():
    if not each:
      raise ValueError(f'moments: {path!r} is no kernel of a convolution or dense product; leave it out by a rule.')
  return {
    path: Moment(sum((one.matrix for one in each), jnp.float32(0)) / len(each), each[0].axes)
    for path, each in found.items()}


def input_norm(moment: Moment, shape: tuple[int, ...]) -> Array:
  """Root mean square of what each weight is multiplied with.

  Args:
    moment: of the kernel's inputs.
    shape: of the kernel.
  Returns:
    Array that broadcasts to the kernel.
  """
  return _spread(jnp.sqrt(jnp.diagonal(moment.matrix, axis1=-2, axis2=-1)), moment, shape)


def inverse_diagonal(moment: Moment, shape: tuple[int, ...]) -> Array:
  """Diagonal of the damped moment's inverse.

  Args:
    moment: of the kernel's inputs.
    shape: of the kernel.
  Returns:
    Array that broadcasts to the kernel.
  """
  matrix = moment.matrix
  added = damping(jnp.diagonal(matrix, axis1=-2, axis2=-1))[..., None] * jnp.eye(matrix.shape[-1])
  return _spread(jnp.diagonal(jnp.linalg.inv(matrix + added), axis1=-2, axis2=-1), moment, shape)


def damping(diagonal: Any) -> Any:
  """What is added to a moment's diagonal [... k] before it is inverted; an input that is always zero counts as one."""
  return DAMPING * diagonal.mean(-1, keepdims=True) + (diagonal == 0)


def _spread(rows: Array, moment: Moment, shape: tuple[int, ...]) -> Array:
  """[groups k] -> the kernel's rank: rows on their axes, groups over the output channels."""
  groups = rows.shape[0]
  sizes = tuple(shape[axis] for axis in moment.axes)
  outputs = [axis for axis in range(len(shape)) if axis not in moment.axes]
  if groups == 1:
    return rows.reshape([shape[axis] if axis in moment.axes else 1 for axis in range(len(shape))])
  (output,) = outputs
  each = jnp.repeat(rows, shape[output] // groups, 0).reshape(shape[output], *sizes)
  return jnp.moveaxis(each, 0, output)


def _mean(rows: Array) -> Array:
  """[n groups k] -> [groups k k], in float32."""
  rows = rows.astype(jnp.float32)
  return jnp.einsum('ngi,ngj->gij', rows, rows, precision=lax.Precision.HIGHEST) / rows.shape[0]


def _stored(origin: origins.Origin, axes: Sequence[int]) -> list[int]:
  """The stored axis behind each of some axes of an operand, one to one."""
  behind = [origin.axes[axis] for axis in axes]
  if any(len(factors) != 1 for factors in behind):
    raise ValueError(
      f'moments: {origin.parameter!r} is reshaped before it is multiplied with, so that its inputs do not belong to '
      'its axes; leave it out by a rule.')
  return [factors[0].axis for factors in behind]


def _dense(equation: core.JaxprEqn, x: Array, origin: origins.Origin, side: int) -> Moment:
  contracted, batched = equation.params['dimension_numbers']
  if batched[0]:
    raise ValueError(f'moments: {origin.parameter!r} is multiplied in a batched product; leave it out by a rule.')
  stored = _stored(origin, contracted[side])
  order = sorted(range(len(stored)), key=stored.__getitem__)
  rows = jnp.moveaxis(x, [contracted[1 - side][i] for i in order], range(x.ndim - len(order), x.ndim))
  size = math.prod(rows.shape[rows.ndim - len(order):])
  return Moment(_mean(rows.reshape(-1, 1, size)), tuple(sorted(stored)))


def _convolution(equation: core.JaxprEqn, x: Array, origin: origins.Origin, side: int) -> Moment:
  params = equation.params
  numbers, groups = params['dimension_numbers'], params['feature_group_count']
  kernel: Any = equation.invars[1]
  window = numbers.rhs_spec[2:]
  taps = tuple(kernel.aval.shape[axis] for axis in window)
  patches = lax.conv_general_dilated_patches(
    x, taps, params['window_strides'], params['padding'], lhs_dilation=params['lhs_dilation'],
    rhs_dilation=params['rhs_dilation'], dimension_numbers=numbers, precision=lax.Precision.HIGHEST)
  channels = x.shape[numbers.lhs_spec[1]] // groups
  rows = jnp.moveaxis(patches, numbers.out_spec[1], -1).reshape(-1, groups, channels, *taps)
  stored = _stored(origin, (numbers.rhs_spec[1], *window))
  order = sorted(range(len(stored)), key=stored.__getitem__)
  rows = rows.transpose(0, 1, *(2 + i for i in order)).reshape(-1, groups, channels * math.prod(taps))
  return Moment(_mean(rows), tuple(sorted(stored)))
