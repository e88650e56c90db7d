"""A network as a short program of operations that integers can carry out: what post-training quantization works on.

`lowering.lower` makes it from any pure `apply`; BatchNorm and whatever else is affine is folded into the layers, and
clipping functions (ReLU, ReLU6) are part of them. The program is that of one example, batches are mapped over it.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core.typing import Array
from lightjax.graph.coupling import ELEMENTWISE
from lightjax.nn import convolution

__all__ = ['Layer', 'Network', 'Node', 'Program', 'Step', 'Window', 'batched', 'evaluate', 'run', 'run_one']

# layer: convolution or dense product; sum: over pixels; map: a function of one value; binary ones by their name; move:
# reshape, slice, ...; pool: maxima; cast: where a float becomes a code; float: anything else.
Kind = Literal['layer', 'sum', 'map', 'add', 'sub', 'mul', 'max', 'min', 'move', 'pool', 'concatenate', 'cast', 'float']
BINARY: dict[str, Callable[..., Any]] = {
  'add': jnp.add, 'sub': jnp.subtract, 'mul': jnp.multiply, 'max': jnp.maximum, 'min': jnp.minimum}
# Kinds whose result stands on the grid of their operand.
SAME_GRID = frozenset({'move', 'pool'})


class Layer(NamedTuple):
  """What a layer computes: clip(kernel * x + bias, low, high).

  Attributes:
    kernel: [kh, kw, inputs / groups, outputs] of a convolution, [inputs, outputs] of a dense product.
    bias: [outputs].
    low: [outputs]: 0 after a ReLU or ReLU6, -inf without.
    high: [outputs]: 6 after a ReLU6 (other values after equalization), inf without.
  """
  kernel: Any
  bias: Any
  low: Any
  high: Any


class Window(NamedTuple):
  """How a convolution moves, NHWC: strides, zeros (before, after), dilation of the kernel, groups of channels."""
  strides: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]
  dilation: tuple[int, int]
  groups: int


class Step(NamedTuple):
  """One equation of the network's jaxpr: operands are names of values, or arrays, of size 1 where they are constant."""
  primitive: Any
  params: Mapping[str, Any]
  operands: tuple[Any, ...]
  results: tuple[str, ...]


class Node(NamedTuple):
  """One operation.

  Attributes:
    kind: see `Kind`.
    name: unique; a layer's module, and its parameters' key.
    inputs: names of tensors.
    outputs: names of tensors; one of the node's name but for splits and unknown operations.
    steps: equations of the kinds that are defined by them.
    window: of a convolution, None for a dense product and other kinds.
    scale: factor of a 'sum', a number or an array.
    low: clips the result of kinds other than 'layer'.
    high: likewise.
  """
  kind: Kind
  name: str
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  steps: tuple[Step, ...] = ()
  window: Window | None = None
  scale: Any = 1.0
  low: float = -math.inf
  high: float = math.inf


class Program(NamedTuple):
  """The operations of one example, in order.

  Attributes:
    nodes: in execution order.
    inputs: names of the network's inputs.
    outputs: names of its outputs.
    structure: the pytree of the outputs.
    shapes: of every tensor, batch of 1.
    grids: tensor -> the tensor whose grid its codes stand on, mostly itself; tensors that stay floats (inputs, outputs,
      what unknown operations make) are left out.
  """
  nodes: tuple[Node, ...]
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  structure: Any
  shapes: dict[str, tuple[int, ...]]
  grids: dict[str, str]

  @property
  def layers(self) -> tuple[Node, ...]:
    """The convolutions and dense products."""
    return tuple(node for node in self.nodes if node.kind == 'layer')

  def readers(self, tensor: str) -> list[Node]:
    """The operations that read a tensor."""
    return [node for node in self.nodes if tensor in node.inputs]


class Network(NamedTuple):
  """A program with its parameters.

  Attributes:
    program: the operations.
    layers: by name.
  """
  program: Program
  layers: dict[str, Layer]

  def __str__(self) -> str:
    rows = [(node.kind, node.name, 'x'.join(map(str, self.program.shapes[node.outputs[0]][1:]))) for node in
            self.program.nodes]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return '\n'.join(
      '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


Hook = Callable[[str, Any], Any]


class Static:
  """A node or a program as a static argument of a compiled function: equal if it is the same object."""

  def __init__(self, value: Any):
    self.value = value

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Static) and self.value is other.value

  def __hash__(self) -> int:
    return id(self.value)


def same(name: str, value: Any) -> Any:
  """The hook that changes nothing."""
  return value


def run(network: Network, *inputs: Any, hook: Hook = same) -> Any:
  """The network's outputs, in float: what `apply` computes, BatchNorm folded.

  Args:
    network: program and parameters.
    *inputs: batches of any, equal size.
    hook: see `run_one`.
  Returns:
    The outputs of `apply`.
  """
  outputs = batched(lambda *inputs: run_one(network, inputs, hook))(*inputs)
  return jax.tree_util.tree_unflatten(network.program.structure, outputs)


def run_one(network: Network, inputs: Sequence[Any], hook: Hook = same, before: Hook = same) -> tuple[Any, ...]:
  """The leaves of the network's outputs for one example, in float.

  Args:
    network: program and parameters.
    inputs: of one example, batch axis of 1 included.
    hook: (tensor, value) -> value, for every tensor that has a grid of its own.
    before: likewise, for what a layer computes before its clip.
  Returns:
    Leaves of the outputs.
  """
  program = network.program
  values = dict(zip(program.inputs, inputs, strict=True))
  for node in program.nodes:
    layer, operands = network.layers.get(node.name), [values[name] for name in node.inputs]
    if layer is None:
      results = evaluate(node, None, operands)
    else:
      results = (jnp.clip(before(node.name, affine(node, layer, operands[0])), layer.low, layer.high),)
    for name, result in zip(node.outputs, results, strict=True):
      values[name] = hook(name, result) if program.grids.get(name) == name else result
  return tuple(values[name] for name in program.outputs)


def batched(function: Callable[..., Any]) -> Callable[..., Any]:
  """A function of one example, batch axis of 1 included, mapped over a batch; arrays in results are joined alike."""

  def mapped(*inputs: Any) -> Any:
    results = jax.vmap(function)(*(jnp.expand_dims(x, 1) for x in inputs))
    return jax.tree.map(lambda y: y.reshape(y.shape[0] * y.shape[1], *y.shape[2:]) if y.ndim > 1 else y, results)

  return mapped


def evaluate(node: Node, layer: Layer | None, operands: Sequence[Any]) -> tuple[Any, ...]:
  """One operation in float.

  Args:
    node: the operation.
    layer: its parameters, of a layer.
    operands: values of its inputs, float32.
  Returns:
    Values of its outputs.
  """
  if layer is not None:
    return (jnp.clip(affine(node, layer, operands[0]), layer.low, layer.high),)
  if node.kind == 'cast':
    return (operands[0],)
  if node.kind in BINARY:
    return (jnp.clip(BINARY[node.kind](*operands), node.low, node.high),)
  if node.kind == 'sum':
    return (jnp.clip(steps(node, operands)[0] * node.scale, node.low, node.high),)
  return steps(node, operands)


def affine(node: Node, layer: Layer, x: Any) -> Array:
  """A layer before its clip."""
  return product(node, x, layer.kernel) + layer.bias


def product(node: Node, x: Any, kernel: Any) -> Array:
  """The convolution or dense product of a layer, without its bias."""
  if node.window is None:
    return jnp.tensordot(x, kernel, 1)
  strides, padding, dilation, groups = node.window
  return convolution.conv_general_dilated(
    x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups)


def steps(node: Node, operands: Sequence[Any], filling: Any = None) -> tuple[Any, ...]:
  """The equations of a node on values of any dtype.

  Args:
    node: the operation.
    operands: values of its inputs.
    filling: what stands for the zeros of a pad.
  Returns:
    Values of its outputs.
  """
  values: dict[str, Any] = dict(zip(node.inputs, operands, strict=True))
  for step in node.steps:
    given = [values[operand] if isinstance(operand, str) else operand for operand in step.operands]
    if step.primitive.name in ELEMENTWISE:
      extent = np.broadcast_shapes(*(np.shape(each) for each in given))
      given = [each if np.shape(each) in ((), extent) else jnp.broadcast_to(each, extent) for each in given]
    elif step.primitive.name == 'pad' and filling is not None:
      given = [given[0], filling]
    results = step.primitive.bind(*given, **step.params)
    values.update(zip(step.results, results if step.primitive.multiple_results else (results,), strict=True))
  return tuple(values[name] for name in node.outputs)
