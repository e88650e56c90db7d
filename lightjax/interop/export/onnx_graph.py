"""A quantized program as an ONNX graph with QuantizeLinear and DequantizeLinear nodes at its own scales.

Codes are uint8, as `simulation.Grid` has them; kernels int8 with a scale a channel; biases int32 on the scale of their
sums, inside the convolution, which is how onnxruntime finds its integer kernels. Images are NCHW inside. Movements and
maxima take codes as they are; a clip that the codes' range says already is left out.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lightjax.interop.export import marking, onnx_operators
from lightjax.interop.export.errors import ExportError
from lightjax.quantize.program import Layer, Node
from lightjax.quantize.simulation import Grid, Quantized

OPSET, IR_VERSION = 17, 8
NAMES = {'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'max': 'Max', 'min': 'Min'}


def model(quantized: Quantized) -> bytes:
  """The file of a quantized network, for one example a call.

  Args:
    quantized: the network.
  Returns:
    A serialized ModelProto with the input 'input' and outputs 'output', 'output1', ...
  Raises:
    ExportError: an operation has no place in ONNX; the message names it and its module.
  """
  return _Graph(quantized).build()


class _Graph:
  """Nodes as they come; each tensor of rank 4 is held in one layout or two."""

  def __init__(self, quantized: Quantized):
    from onnx import helper, numpy_helper
    self.helper, self.numpy_helper = helper, numpy_helper
    self.quantized, self.program = quantized, quantized.network.program
    self.grids = marking.grids(quantized)
    self.nodes: list[Any] = []
    self.initializers: list[Any] = []
    self.held: dict[tuple[str, str], str] = {}
    self.reals: dict[str, str] = {}
    self.count = 0

  def build(self) -> bytes:
    program, helper = self.program, self.helper
    inputs = []
    for index, name in enumerate(program.inputs):
      given = _numbered('input', index)
      inputs.append(helper.make_tensor_value_info(given, 1, list(program.shapes[name])))
      self.held[name, self.layout(name)] = given
    for node in program.nodes:
      self.add(node)
    outputs = []
    for index, name in enumerate(program.outputs):
      layout = self.layout(name)
      result = _numbered('output', index)
      self.emit('Identity', [self.real(name, layout)], outputs=[result])
      outputs.append(helper.make_tensor_value_info(result, 1, list(program.shapes[name])))
    graph = helper.make_graph(self.nodes, 'network', inputs, outputs, self.initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid('', OPSET)], producer_name='lightjax')
    made.ir_version = IR_VERSION
    return made.SerializeToString()

  # What the graph is made of.

  def emit(self, operator: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Any) -> str:
    """One node; the name of its (first) result."""
    self.count += 1
    results = list(outputs) or [f'{operator}_{self.count}']
    self.nodes.append(self.helper.make_node(operator, list(inputs), results, name=f'n{self.count}', **attributes))
    return results[0]

  def constant(self, array: Any) -> str:
    self.count += 1
    name = f'c{self.count}'
    self.initializers.append(self.numpy_helper.from_array(np.array(array, order='C'), name))
    return name

  def layout(self, tensor: str) -> str:
    return 'NHWC' if len(self.program.shapes[tensor]) == 4 else ''

  def value(self, tensor: str, layout: str) -> str:
    """Codes or floats in a layout."""
    if (tensor, layout) not in self.held:
      other = 'NHWC' if layout == 'NCHW' else 'NCHW'
      order = [0, 3, 1, 2] if layout == 'NCHW' else [0, 2, 3, 1]
      self.held[tensor, layout] = self.emit('Transpose', [self.held[tensor, other]], perm=order)
    return self.held[tensor, layout]

  def real(self, tensor: str, layout: str) -> str:
    """Floats in a layout."""
    value = self.value(tensor, layout)
    if tensor not in self.grids:
      return value
    if value not in self.reals:
      self.reals[value] = self.emit('DequantizeLinear', [value, *self.scale(self.grids[tensor])])
    return self.reals[value]

  def scale(self, grid: Grid) -> tuple[str, str]:
    return self.constant(np.float32(grid.scale)), self.constant(np.uint8(grid.zero_point))

  def put(self, tensor: str, result: str, layout: str, low: float = -math.inf, high: float = math.inf) -> None:
    """Note a result in float, clipped, as codes if it has a grid."""
    grid = self.grids.get(tensor)
    if grid is not None:
      low, high = marking.clips(low, high, grid)
    if math.isfinite(low) or math.isfinite(high):
      bounds = [self.constant(np.float32(bound)) if math.isfinite(bound) else '' for bound in (low, high)]
      result = self.emit('Clip', [result, *bounds])
    if grid is not None:
      result = self.emit('QuantizeLinear', [result, *self.scale(grid)])
    self.held[tensor, layout] = result

  # Operations.

  def add(self, node: Node) -> None:
    kind = node.kind
    if kind == 'layer':
      self.layer(node, self.quantized.network.layers[node.name])
    elif kind == 'sum':
      self.sum(node)
    elif kind in NAMES:
      layout = self.common(node.inputs)
      self.put(node.outputs[0], self.emit(NAMES[kind], [self.real(name, layout) for name in node.inputs]), layout,
               node.low, node.high)
    elif kind == 'cast':
      layout = self.layout(node.inputs[0])
      self.put(node.outputs[0], self.value(node.inputs[0], layout), layout)
    elif kind == 'pool' and self.pool(node):
      return
    elif kind == 'concatenate':
      self.concatenate(node)
    elif kind == 'map':
      layout = self.common(node.inputs)
      self.put(node.outputs[0], self.steps(node, self.real, layout)[0], layout)
    elif kind in ('move', 'pool'):
      results = self.steps(node, self.value)
      for tensor, result in zip(node.outputs, results, strict=True):
        self.held[tensor, self.layout(tensor)] = result
    else:
      results = self.steps(node, self.real)
      for tensor, result in zip(node.outputs, results, strict=True):
        self.put(tensor, result, self.layout(tensor))

  def common(self, tensors: Sequence[str]) -> str:
    """The layout in which all of some tensors are had with the fewest transpositions."""
    if not self.layout(tensors[0]):
      return ''
    return 'NCHW' if any((name, 'NCHW') in self.held for name in tensors) else 'NHWC'

  def layer(self, node: Node, layer: Layer) -> None:
    given, result = node.inputs[0], node.outputs[0]
    rank = len(self.program.shapes[given])
    kernel, bias = np.asarray(layer.kernel, np.float32), np.asarray(layer.bias, np.float32)
    is_image = rank == 4
    axis = 0 if is_image else 1
    order = (3, 2, 0, 1) if is_image else (0, 1)
    if is_image and node.window is None:
      kernel = kernel[None, None]
    codes, scale = self.quantized.kernels.get(node.name), None
    if codes is not None and given in self.grids:
      scale = np.broadcast_to(np.asarray(codes.scale, np.float32).reshape(-1), bias.shape)
      held = self.constant(np.asarray(codes.codes, np.int8).reshape(kernel.shape).transpose(order))
      kernel_name = self.emit('DequantizeLinear', [
        held, self.constant(scale), self.constant(np.zeros(bias.shape, np.int8))], axis=axis)
      sums = scale * np.float32(self.grids[given].scale)
      steps = np.round(bias.astype(np.float64) / sums).astype(np.int32)
      bias_name = self.emit('DequantizeLinear', [
        self.constant(steps), self.constant(sums), self.constant(np.zeros(bias.shape, np.int32))], axis=0)
    else:
      kernel_name, bias_name = self.constant(kernel.transpose(order)), self.constant(bias)
    layout = 'NCHW' if is_image else ''
    x = self.real(given, layout)
    if is_image:
      y = self.emit('Conv', [x, kernel_name, bias_name], **_window(node))
    elif rank == 2:
      y = self.emit('Gemm', [x, kernel_name, bias_name])
    else:
      y = self.emit('Add', [self.emit('MatMul', [x, kernel_name]), bias_name])
    low, high = np.asarray(layer.low, np.float64), np.asarray(layer.high, np.float64)
    if (low == low[0]).all() and (high == high[0]).all():
      self.put(result, y, layout, float(low[0]), float(high[0]))
      return
    shape = (1, -1, 1, 1) if is_image else (-1,)  # bounds of equalized channels
    for operator, bound in (('Max', low), ('Min', high)):
      if np.isfinite(bound).any():
        y = self.emit(operator, [y, self.constant(bound.astype(np.float32).reshape(shape))])
    self.put(result, y, layout)

  def sum(self, node: Node) -> None:
    """Sums over pixels, means where the scale makes them."""
    (step,), given, result = node.steps, node.inputs[0], node.outputs[0]
    shape = self.program.shapes[given]
    scale = np.asarray(node.scale, np.float32)
    if step.primitive.name == 'reduce_sum' and tuple(step.params['axes']) == (1, 2) and (
        len(shape) == 4 and scale.size == 1):
      mean = self.emit('GlobalAveragePool', [self.real(given, 'NCHW')])
      factor = scale.reshape(()) * np.float32(shape[1] * shape[2])
      rest = len(self.program.shapes[result])
      grid = self.grids.get(result)
      y = mean if np.allclose(factor, 1, rtol=1e-6) else self.emit('Mul', [mean, self.constant(factor)])
      if grid is not None and not (math.isfinite(node.low) or math.isfinite(node.high)) and grid.bits == 8:
        y = self.emit('QuantizeLinear', [y, *self.scale(grid)])
        self.held[result, self.layout(result)] = y if rest == 4 else self.reshaped(y, result)
        return
      self.put(result, y if rest == 4 else self.reshaped(y, result), self.layout(result), node.low, node.high)
    elif step.primitive.name == 'reduce_window_sum' and len(shape) == 4:
      window = [int(size) for size in step.params['window_dimensions'][1:3]]
      y = self.emit('AveragePool', [self.real(given, 'NCHW')], kernel_shape=window, count_include_pad=1,
                    **_pooling(step.params))
      factor = scale * np.float32(math.prod(window))
      if not np.allclose(factor, 1, rtol=1e-6):  # an array where windows are cut off at borders
        y = self.emit('Mul', [y, self.known(factor, 'NCHW')])
      self.put(result, y, 'NCHW', node.low, node.high)
    else:
      (y,) = self.steps(node, self.real)
      self.put(result, self.emit('Mul', [y, self.constant(scale)]), self.layout(result), node.low, node.high)

  def reshaped(self, value: str, tensor: str) -> str:
    return self.emit('Reshape', [value, self.constant(np.asarray(self.program.shapes[tensor], np.int64))])

  def pool(self, node: Node) -> bool:
    """Maxima of windows; False for any other."""
    (step,), given = node.steps, node.inputs[0]
    if step.primitive.name != 'reduce_window_max' or len(self.program.shapes[given]) != 4:
      return False
    window = [int(size) for size in step.params['window_dimensions'][1:3]]
    value = self.value(given, 'NCHW')
    self.held[node.outputs[0], 'NCHW'] = self.emit('MaxPool', [value], kernel_shape=window, **_pooling(step.params))
    return True

  def concatenate(self, node: Node) -> None:
    (step,), result = node.steps, node.outputs[0]
    layout, axis = self.common(node.inputs), int(step.params['dimension'])
    if layout == 'NCHW':
      axis = (0, 2, 3, 1)[axis]
    if result in self.grids and {self.grids.get(name) for name in node.inputs} == {self.grids[result]}:
      self.held[result, layout] = self.emit('Concat', [self.value(name, layout) for name in node.inputs], axis=axis)
    else:
      self.put(result, self.emit('Concat', [self.real(name, layout) for name in node.inputs], axis=axis), layout)

  def steps(self, node: Node, read: Callable[[str, str], str], layout: str = '') -> list[str]:
    """The equations of a node, in float or on codes, in a layout or in that of the program."""
    names: dict[str, str] = {name: read(name, layout or self.layout(name)) for name in node.inputs}
    filling = self.grids[node.inputs[0]].zero_point if node.kind == 'move' and node.inputs[0] in self.grids else None
    for step in node.steps:
      operands = [names[each] if isinstance(each, str) else self.known(each, layout) for each in step.operands]
      results = onnx_operators.lower(self.emit, self.constant, step, operands, filling)
      if results is None:
        raise ExportError(
          f'onnx: {node.name}: no ONNX operators are known for {step.primitive.name!r} of JAX; export in float, where '
          'jax2onnx is asked as well.')
      names.update(zip(step.results, results, strict=True))
    return [names[name] for name in node.outputs]

  def known(self, operand: Any, layout: str) -> str:
    array = np.asarray(operand)
    array = array.astype(np.float32) if array.dtype.kind == 'f' else array
    if layout == 'NCHW' and array.ndim == 4:
      array = array.transpose(0, 3, 1, 2)
    elif layout == 'NCHW' and array.ndim == 1 and array.size > 1:
      array = array.reshape(1, -1, 1, 1)
    return self.constant(array)


def _numbered(name: str, index: int) -> str:
  return f'{name}{index or ""}'


def _window(node: Node) -> dict[str, Any]:
  """A convolution's attributes; a dense product of pixels is one of 1 x 1."""
  if node.window is None:
    return {'kernel_shape': [1, 1]}
  strides, ((top, bottom), (left, right)), dilation, groups = node.window
  return {'strides': list(strides), 'pads': [top, left, bottom, right], 'dilations': list(dilation), 'group': groups}


def _pooling(params: Mapping[str, Any]) -> dict[str, Any]:
  _, (top, bottom), (left, right), _ = params['padding']
  return {'strides': [int(each) for each in params['window_strides'][1:3]], 'pads': [top, left, bottom, right]}
