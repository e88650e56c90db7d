"""The channels of any network as a space, and what strategies and latency tables ask of its layers.

    coupling = graph.channels(model.apply, variables, x)
    space = channels.space(selection.candidates(coupling), multiple=8)
    counts = space.spec(candidate)                                  # name of a group -> channels that stay
    kept = selection.keep(coupling, scores, counts)                 # for surgery.remove, or a mask
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax import graph
from lightjax.core import trees
from lightjax.core.typing import Path
from lightjax.graph.channels import ChannelGraph, Group
from lightjax.nn.layers import Conv
from lightjax.search.latency import Operation
from lightjax.search.space import Choice, Space

__all__ = ['Layer', 'kernels', 'layers', 'space']


class Layer(NamedTuple):
  """What a group of channels is made by: of its first producer, but for `macs`.

  Attributes:
    outputs: channels of the group.
    inputs: channels that are read.
    height: of the input, pixels.
    width: likewise.
    strides: pixels.
    window: pixels.
    macs: multiply-adds of one example that make the group's channels, depthwise ones included.
  """
  outputs: int
  inputs: int
  height: int
  width: int
  strides: int
  window: int
  macs: float


def space(groups: Sequence[Group], *, multiple: int = 1, minimum: int = 1) -> Space:
  """How many channels of each group stay.

  Args:
    groups: of `selection.candidates`.
    multiple: a group that loses channels keeps a multiple of so many; one that has no more stays whole.
    minimum: channels that every group keeps, as far as it has them.
  Returns:
    The space: a choice for each group, named as it is, its options ascending numbers, the last the whole group. A spec
    is name to number.
  Raises:
    ValueError: a multiple or minimum below 1.
  """
  if multiple < 1 or minimum < 1:
    raise ValueError(f'channels.space: multiple={multiple} and minimum={minimum} are 1 or more.')
  least = -(-minimum // multiple) * multiple
  return Space('channels', tuple(
    Choice(group.name, (*range(least, group.size, multiple), group.size)) for group in groups), dict)


def layers(groups: Sequence[Group], coupling: ChannelGraph, operations: Sequence[graph.Operation]) -> list[Layer]:
  """What makes each group, for strategies that look at layers.

  Args:
    groups: of the network.
    coupling: of its channels.
    operations: of its trace, for one example.
  Returns:
    One entry a group.
  """
  known = _with_kernels(coupling, operations)
  found = []
  for group in groups:
    made = [(path, operation, member) for member in group.members if member.role in ('producer', 'depthwise')
            for path, operation in known if path == member.path]
    path, operation, _ = made[0]
    kernel = _left(operation, coupling.shapes[path], coupling.shapes[path])
    macs = sum(operation.macs * sum(map(len, member.indices)) / coupling.shapes[path][member.axis]
               for path, operation, member in made)
    height, width = (*kernel.pixels, 1, 1)[:2]
    found.append(Layer(
      group.size, kernel.inputs, height, width, (*kernel.strides, 1)[0], (*kernel.window, 1)[0], macs))
  return found


def kernels(
  coupling: ChannelGraph, operations: Sequence[graph.Operation], shapes: Mapping[Path, tuple[int, ...]], *,
  batch_size: int,
) -> list[Operation]:
  """The operations of a network without some of its channels, for `latency.measure` and `latency.predict`.

  Each is a product with a kernel, then scale, bias and ReLU, as networks have them. What else a network does is for the
  calibration.

  Args:
    coupling: of the whole network's channels.
    operations: of its trace, for one example.
    shapes: of the variables that are left, from `costs.left`.
    batch_size: images in a call.
  Returns:
    In execution order.
  Raises:
    ValueError: a product of two activations, or with a kernel that is no single parameter.
  """
  for operation in operations:
    if operation.parameter is None:
      raise ValueError(
        f'{operation.module or "the network"} multiplies activations, or with a kernel that it computes, so that its '
        "latency can't be looked up; take another cost, such as MACs.")
  found = []
  for path, operation in _with_kernels(coupling, operations):
    kernel = _left(operation, coupling.shapes[path], shapes[path])
    pixels = (*kernel.pixels, kernel.inputs)
    image = jax.ShapeDtypeStruct((batch_size, *pixels), 'float32')
    module = _Product(
      kernel.outputs, kernel.window, kernel.strides, kernel.padding, kernel.groups)
    size = math.prod(shapes[path]) + batch_size * (
      math.prod(pixels) + math.prod(kernel.results) * kernel.outputs)
    text = 'x'.join(map(str, kernel.window)) or 'dense'
    strides = f'/{kernel.strides[0]}' if any(each > 1 for each in kernel.strides) else ''
    label = (f'{text}{strides} {"x".join(map(str, pixels))} -> {"x".join(map(str, (*kernel.results, kernel.outputs)))}'
             f'{f" in {kernel.groups} groups" if kernel.groups > 1 else ""}')
    found.append(Operation(f'{label}, batch {batch_size}', label, module, (image,), 4 * size))
  return found


class _Product(nn.Module):
  """A convolution, or without a window a dense product, then scale, bias and ReLU."""
  features: int
  window: tuple[int, ...]
  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  groups: int

  @nn.compact
  def __call__(self, x: Float[Array, '...']) -> Float[Array, '...']:
    product = Conv(
      self.features, self.window, self.strides, self.padding, feature_group_count=self.groups, use_bias=False,
    ) if self.window else nn.Dense(self.features, use_bias=False)
    scale, bias = (
      self.param(name, nn.initializers.ones, (self.features,)) for name in ('scale', 'bias'))
    return nn.relu(product(x) * scale + bias)


class _Kernel(NamedTuple):
  """An operation on what is left of its kernel; `pixels` of the input, `results` of the output, dense ones in one axis
  where there are several."""
  inputs: int
  outputs: int
  groups: int
  pixels: tuple[int, ...]
  results: tuple[int, ...]
  window: tuple[int, ...] = ()
  strides: tuple[int, ...] = ()
  padding: tuple[tuple[int, int], ...] = ()


def _with_kernels(
  coupling: ChannelGraph, operations: Sequence[graph.Operation],
) -> list[tuple[Path, graph.Operation]]:
  """Path of the kernel, with its collection, and operation, of those that have one."""
  named = {trees.without_collection(path): path for path in coupling.shapes}
  return [(named[each.parameter], each) for each in operations if each.parameter is not None]


def _left(operation: graph.Operation, whole: Sequence[int], left: Sequence[int]) -> _Kernel:
  def size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)

  rows, outputs, groups = size(left, operation.input_axes), size(left, operation.output_axes), operation.groups
  read = size(whole, operation.input_axes)
  if operation.kind == 'dense':
    positions = math.prod(operation.input_shape) // read
    return _Kernel(rows, outputs // groups, 1, *((((positions,),) * 2) if positions > 1 else ((), ())))
  if groups > 1 and read == 1:  # depthwise: as many groups as channels
    groups = groups * outputs // size(whole, operation.output_axes)
  channel = -1 if operation.input_shape[-1] == read * operation.groups else 1
  pixels, results = (
    tuple(np.delete(shape, (0, channel)).tolist()) for shape in (operation.input_shape, operation.output_shape))
  window = tuple(whole[axis] for axis in range(len(whole))
                 if axis not in (*operation.input_axes, *operation.output_axes))
  strides = tuple(max(1, round(before / after)) for before, after in zip(pixels, results, strict=True))
  # As much as makes the output's size; where it lies changes no time.
  added = (max(0, (after - 1) * stride + width - before) for before, after, stride, width in zip(
    pixels, results, strides, window, strict=True))
  return _Kernel(rows * groups, outputs, groups, pixels, results, window, strides,
                 tuple((each // 2, each - each // 2) for each in added))
