"""What shares a scale: the whole tensor, an output channel, a group of inputs of an output channel.

A granularity is a function (shape of a parameter, how the network uses it) -> shape of its scales, whose axes divide
those of the parameter.
"""
from __future__ import annotations

import math
from collections.abc import Callable

from lightjax.core.typing import Array, Layout

__all__ = ['channel', 'group', 'tensor']

Shape = tuple[int, ...]


def tensor(shape: Shape, layout: Layout | None) -> Shape:
  """One scale.

  Args:
    shape: of the parameter.
    layout: how the network uses it; None for what is no kernel.
  Returns:
    Ones.
  """
  return (1,) * len(shape)


def channel(shape: Shape, layout: Layout | None) -> Shape:
  """A scale for each output channel, of the axes that the network's graph names; one for what is no kernel.

  Args:
    shape: of the parameter.
    layout: how the network uses it.
  Returns:
    The output channels' sizes along their axes, else 1.
  """
  kept = () if layout is None else layout.output_axes
  return tuple(size if axis in kept else 1 for axis, size in enumerate(shape))


def group(size: int) -> Callable[[Shape, Layout | None], Shape]:
  """A scale for each so many inputs of each output channel, along the last input axis; fewer inputs are one group.

  Args:
    size: inputs of a group.
  Returns:
    A granularity.
  Raises (where it is used):
    ValueError: the size does not divide the inputs.
  Example:
    >>> group(64)((3, 3, 128, 32), Layout('conv', (3,), 0, input_axes=(2,)))
    (1, 1, 2, 32)
  """
  if size < 1:
    raise ValueError(f'group({size}): a group has 1 or more inputs.')

  def shapes(shape: Shape, layout: Layout | None) -> Shape:
    whole = channel(shape, layout)
    if layout is None or not layout.input_axes:
      return whole
    axis = layout.input_axes[-1]
    if shape[axis] <= size:
      return whole
    if shape[axis] % size:
      raise ValueError(f'group({size}) does not divide the {shape[axis]} inputs of a kernel of shape {shape}; choose '
                       'another size, or leave it alone by a rule.')
    return tuple(shape[axis] // size if each == axis else count for each, count in enumerate(whole))

  return shapes


def rows(array: Array, scale_shape: Shape) -> Array:
  """What shares a scale as a row.

  Args:
    array: any shape.
    scale_shape: of its rank, sizes divide.
  Returns:
    [n, k]: for each scale, in the order of `scale_shape`, its entries.
  """
  blocks = [part for size, count in zip(array.shape, scale_shape, strict=True) for part in (count, size // count)]
  split = array.reshape(blocks)
  rank = array.ndim
  order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
  return split.transpose(order).reshape(math.prod(scale_shape), -1)
