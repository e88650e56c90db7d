"""Which parameter a value is made of, and which stored axis each of its axes runs over.

A kernel is cast, transposed, reshaped, masked or quantized on its way to an operation; its *stored* axes are what a
transform needs to know. So each axis of a value carries the stored axes it indexes, major to minor, with their sizes.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import core

from lightjax.core.typing import Path


class Factor(NamedTuple):
  """A stored axis, or the part of it that one axis of a value runs over."""
  axis: int
  size: int


class Origin(NamedTuple):
  """A value made of one parameter.

  Attributes:
    parameter: its path.
    axes: for each axis of the value the stored axes that it indexes; empty where it was broadcast.
  """
  parameter: Path
  axes: tuple[tuple[Factor, ...], ...]

  def stored(self, axes: Sequence[int]) -> tuple[int, ...]:
    """The stored axes behind some axes of the value, in the value's order."""
    return tuple(dict.fromkeys(factor.axis for axis in axes for factor in self.axes[axis]))

  @property
  def size(self) -> int:
    """How many elements of the parameter the value shows."""
    return math.prod(factor.size for axis in self.axes for factor in axis)


def of_parameter(parameter: Path, shape: tuple[int, ...]) -> Origin:
  """The origin of the parameter itself."""
  return Origin(parameter, tuple((Factor(axis, size),) for axis, size in enumerate(shape)))


def follow(equation: core.JaxprEqn, operands: Sequence[Any]) -> list[Origin | None]:
  """Where the results of an operation on parameters and constants come from.

  Args:
    equation: any but a convolution, a dot or a loop.
    operands: an `Origin`, or anything else for a constant, one for each operand.
  Returns:
    For each result its origin, None where it is lost. Of several parameters the one with the most elements counts: a
    kernel and not the scale or the mean that it is multiplied with.
  """
  origins = [(operand, _shape(variable))
             for operand, variable in zip(operands, equation.invars, strict=True) if isinstance(operand, Origin)]
  if not origins:
    return [None] * len(equation.outvars)
  origin, shape = max(origins, key=lambda pair: pair[0].size)
  return [_followed(equation, origin, shape, _shape(result)) for result in equation.outvars]


def _shape(variable: Any) -> tuple[int, ...]:
  return variable.aval.shape


def _followed(
    equation: core.JaxprEqn, origin: Origin, shape: tuple[int, ...], result: tuple[int, ...],
) -> Origin | None:
  name, params, axes = equation.primitive.name, equation.params, origin.axes
  moved: Sequence[tuple[Factor, ...]]
  if name == 'transpose':
    moved = [axes[axis] for axis in params['permutation']]
  elif name == 'reshape':
    regrouped = _regrouped([factor for axis in axes for factor in axis], result) if _is_whole(axes, shape) else None
    if regrouped is None:
      return None
    moved = regrouped
  elif name == 'squeeze':
    moved = [axis for index, axis in enumerate(axes) if index not in params['dimensions']]
  elif name == 'broadcast_in_dim':
    source = {to: index for index, to in enumerate(params['broadcast_dimensions']) if result[to] == shape[index]}
    moved = [axes[source[index]] if index in source else () for index in range(len(result))]
  elif name.startswith('reduce_') or name in ('argmax', 'argmin'):
    if 'axes' not in params:
      return None
    moved = [axis for index, axis in enumerate(axes) if index not in params['axes']]
  elif name in ('slice', 'dynamic_slice', 'split', 'pad'):
    resized = [_resized(axis, old, new) for axis, old, new in zip(axes, shape, result, strict=True)]
    if any(axis is None for axis in resized):
      return None
    moved = [axis for axis in resized if axis is not None]
  elif result == shape:  # elementwise, or at least in place: casts, masks, roundings, scalings
    moved = axes
  else:  # gather, concatenate and whatever else moves elements about
    return None
  return origin._replace(axes=tuple(moved))


def _is_whole(axes: Sequence[tuple[Factor, ...]], shape: tuple[int, ...]) -> bool:
  return all(math.prod(factor.size for factor in axis) == size for axis, size in zip(axes, shape, strict=True))


def _regrouped(factors: list[Factor], shape: tuple[int, ...]) -> list[tuple[Factor, ...]] | None:
  """Factors dealt out over the axes of a reshaped value; where an axis is split, both parts index the stored axis."""
  rest = list(factors)
  grouped: list[tuple[Factor, ...]] = []
  for size in shape:
    taken: list[Factor] = []
    remaining = size
    if size == 1:
      grouped.append((rest.pop(0),) if rest and rest[0].size == 1 else ())
      continue
    while remaining > 1:
      factor = rest.pop(0)
      if factor.size == 1:
        continue
      part = math.gcd(remaining, factor.size)
      if part < factor.size:
        if part != remaining:
          return None  # e.g. [4, 3] to [6, 2]: no axis of the result runs over whole parts
        rest.insert(0, Factor(factor.axis, factor.size // part))
      taken.append(Factor(factor.axis, part))
      remaining //= part
    grouped.append(tuple(taken))
  return grouped


def _resized(axis: tuple[Factor, ...], old: int, new: int) -> tuple[Factor, ...] | None:
  if old == new or not axis:
    return axis
  return (Factor(axis[0].axis, new),) if len(axis) == 1 else None
