"""Integer inference: a quantized network whose codes, sums and scales are integers all the way.

    network = integer.convert(quantized)
    print(network)                       # every operation, in integers or why not
    logits = network.apply(images)

Codes are int8: code - 2^(bits-1) of a `simulation.Grid`. What each operation computes:

  layer        int32 sums of int8 products, an int32 bias, a 31-bit multiplier and a shift a channel, rounded half up
  sum          int32 sums over pixels, multiplied likewise
  add, sub     both terms times 21-bit multipliers, one shift; max and min of terms that are rescaled so
  mul          product of the two differences to their zero points, multiplied as a layer's sums
  map          a table with an entry a code (a channel): exact
  concatenate  parts on other grids through such a table
  move, pool   the codes as they are
  cast         from float, at the network's input and after operations in float

An operation that is not known, or a layer that was left in float, is computed in float between codes. The outputs of
the network are floats: a last layer's sums times their scale.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core.typing import Array
from lightjax.quantize import fixed_point, program
from lightjax.quantize.fixed_point import Accumulation
from lightjax.quantize.program import BINARY, SAME_GRID, Layer, Node, Program
from lightjax.quantize.simulation import Grid, Quantized

__all__ = ['IntegerNetwork', 'convert', 'decode', 'encode', 'memory_bytes']

Constants = dict[str, Any]


class IntegerNetwork(NamedTuple):
  """A network in integers.

  Attributes:
    program: its operations.
    grids: by tensor; those that share one have the same.
    constants: by operation: kernels, biases, multipliers, tables.
    floats: operations that run in float -> why.
    accumulation: how sums are computed, see `fixed_point.accumulate`.
  """
  program: Program
  grids: dict[str, Grid]
  constants: dict[str, Constants]
  floats: dict[str, str]
  accumulation: Accumulation

  def apply(self, *inputs: Any) -> Any:
    """The network's outputs.

    Args:
      *inputs: float batches, as `apply` of the network takes them.
    Returns:
      Its outputs, float32.
    """
    outputs = program.batched(lambda *inputs: self._outputs(self._run(inputs)))(*inputs)
    return jax.tree_util.tree_unflatten(self.program.structure, outputs)

  def values(self, *inputs: Any) -> dict[str, Array]:
    """What every tensor holds: int8 codes, or floats.

    Args:
      *inputs: float batches.
    Returns:
      Tensor -> its values, batch first.
    """
    return program.batched(lambda *inputs: self._run(inputs))(*inputs)

  @property
  def size_bytes(self) -> int:
    """Bytes of all constants in memory."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(self.constants))

  def __str__(self) -> str:
    rows = []
    for node in self.program.nodes:
      why = f'float: {self.floats[node.name]}' if node.name in self.floats else 'integer'
      rows.append((node.kind, node.name, why))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return '\n'.join(f'{kind:{widths[0]}}  {name:{widths[1]}}  {why}' for kind, name, why in rows)

  def _run(self, inputs: Sequence[Any]) -> dict[str, Any]:
    values = dict(zip(self.program.inputs, inputs, strict=True))
    for node in self.program.nodes:
      operands = [values[name] for name in node.inputs]
      constants = self.constants.get(node.name, {})
      if node.name in self.floats:
        results = self._in_float(node, constants, operands)
      else:
        results = _in_integers(node, self.grids, constants, operands, self.accumulation)
      values.update(zip(node.outputs, results, strict=True))
    return values

  def _in_float(self, node: Node, constants: Constants, operands: Sequence[Any]) -> tuple[Any, ...]:
    real = [decode(self.grids[name], value) if name in self.grids else value
            for name, value in zip(node.inputs, operands, strict=True)]
    layer = Layer(**constants) if node.kind == 'layer' else None
    results = program.evaluate(node, layer, real)
    return tuple(encode(self.grids[name], value) if name in self.grids else value
                 for name, value in zip(node.outputs, results, strict=True))

  def _outputs(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(decode(self.grids[name], values[name]) if name in self.grids else values[name]
                 for name in self.program.outputs)


def encode(grid: Grid, value: Any) -> Array:
  """The codes of floats: round(x / scale) + offset, as the simulation rounds.

  Args:
    grid: where they stand.
    value: floats of any shape.
  Returns:
    int8, the same shape.
  """
  low, high = -grid.zero_point, 2**grid.bits - 1 - grid.zero_point
  steps = jnp.clip(jnp.round(value * (1 / jnp.float32(grid.scale))), low, high)
  return (steps + _offset(grid)).astype(jnp.int8)


def decode(grid: Grid, codes: Any) -> Array:
  """The floats that codes stand for.

  Args:
    grid: where they stand.
    codes: int8.
  Returns:
    float32, the same shape.
  """
  return (codes.astype(jnp.float32) - _offset(grid)) * jnp.float32(grid.scale)


def convert(quantized: Quantized, *, accumulation: Accumulation | None = None) -> IntegerNetwork:
  """A quantized network in integers.

  Args:
    quantized: from `simulation.quantize`.
    accumulation: how sums of products are computed; without it what the backend is quick at.
  Returns:
    A network that differs from the simulation, operation by operation and given the same codes, by at most one step of
    the operation's result.
  Raises:
    ValueError: a scale is out of what multipliers can express.
  Source: Jacob et al. 2018, arXiv:1712.05877, sections 2.2 to 2.4 and appendix A.
  """
  steps = quantized.network.program
  grids = {tensor: quantized.grids[root] for tensor, root in steps.grids.items() if root in quantized.grids}
  constants: dict[str, Constants] = {}
  floats: dict[str, str] = {}
  for node in steps.nodes:
    why = _why_float(node, steps, quantized, grids)
    if why:
      floats[node.name] = why
      if node.kind == 'layer':
        constants[node.name] = quantized.network.layers[node.name]._asdict()
    else:
      constants[node.name] = _constants(node, quantized, grids)
  form = fixed_point.default_accumulation() if accumulation is None else accumulation
  return IntegerNetwork(steps, grids, constants, floats, form)


def _why_float(node: Node, steps: Program, quantized: Quantized, grids: Mapping[str, Grid]) -> str:
  """Why an operation cannot be carried out in integers; '' if it can."""
  if node.kind == 'float':
    return f'{node.steps[0].primitive.name} of floats, over channels, or unknown'
  if node.kind == 'layer' and node.name not in quantized.kernels:
    return 'the layer was left in float'
  if node.kind != 'cast' and any(name not in grids for name in node.inputs):
    return 'an operand has no grid'
  if any(name not in grids for name in node.outputs) and node.kind not in ('layer', 'sum'):
    return 'the result is an output of the network' if node.outputs[0] in steps.outputs else 'the result has no grid'
  return ''


def _constants(node: Node, quantized: Quantized, grids: Mapping[str, Grid]) -> Constants:
  """What an operation needs, computed once."""
  given = [grids[name] for name in node.inputs if name in grids]
  result = grids.get(node.outputs[0])
  if node.kind == 'layer':
    return _layer_constants(node, quantized, given[0], result)
  if node.kind == 'sum':
    scale = np.asarray(node.scale, np.float64) * given[0].scale
    if result is None:
      return {'scale': jnp.asarray(scale, jnp.float32)}
    return _multiplied(scale / result.scale)
  if node.kind == 'mul' and result is not None:
    return _multiplied(given[0].scale * given[1].scale / result.scale)
  if node.kind == 'map' and result is not None:
    return {'table': _table(node, given[0], result, quantized.network.program.shapes[node.inputs[0]])}
  return {}


def _multiplied(scale: Any) -> Constants:
  m, shift = fixed_point.multiplier(scale)
  return {'multiplier': jnp.asarray(m), 'shift': jnp.asarray(shift, jnp.int8)}


def _layer_constants(node: Node, quantized: Quantized, given: Grid, result: Grid | None) -> Constants:
  layer, integers = quantized.network.layers[node.name], quantized.kernels[node.name]
  codes = np.asarray(integers.codes)
  scale = np.broadcast_to(np.asarray(integers.scale, np.float64).reshape(-1), layer.bias.shape) * given.scale
  bias = np.round(np.asarray(layer.bias, np.float64) / scale)
  # The codes of zero, wherever the kernel lies: padding is the code of zero, too.
  bias -= _offset(given) * codes.sum(axis=tuple(range(codes.ndim - 1)), dtype=np.int64)
  if not (np.abs(bias) < 2.0**31).all():
    raise ValueError(f'{node.name}: a bias is too large for the scale of its accumulators; quantize the network again '
                     'after changing its biases.')
  constants = {'kernel': jnp.asarray(codes, jnp.int8), 'bias': jnp.asarray(bias, jnp.int32)}
  if result is None:
    return {**constants, 'scale': jnp.asarray(scale, jnp.float32), 'low': layer.low, 'high': layer.high}
  low, high = _clips(np.asarray(layer.low), np.asarray(layer.high), result)
  return {**constants, **_multiplied(scale / result.scale), 'low': low, 'high': high}


def _clips(low: Any, high: Any, grid: Grid) -> tuple[Any, Any]:
  """Clips as codes, within those of the grid."""
  least, most = -(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1
  codes = [np.clip(np.round(np.asarray(each, np.float64) / grid.scale) + _offset(grid), least, most)
           for each in (low, high)]
  return jnp.asarray(codes[0], jnp.int8), jnp.asarray(codes[1], jnp.int8)


def _table(node: Node, given: Grid, result: Grid, shape: tuple[int, ...]) -> Array:
  """[codes] or [codes, channels] of the result's codes."""
  count = 2**given.bits
  codes = (jnp.arange(count) - count // 2).astype(jnp.int8)
  channels = {np.shape(operand)[-1] for step in node.steps for operand in step.operands
              if not isinstance(operand, str) and np.ndim(operand)} - {1}
  values = decode(given, codes).reshape(count, *(1 for _ in shape[1:]))
  if channels:
    values = jnp.broadcast_to(values, (*values.shape[:-1], shape[-1]))
  table = encode(result, program.evaluate(node, None, [values])[0])
  return table.reshape(count, -1) if channels else table.reshape(count)


def _in_integers(
    node: Node, grids: Mapping[str, Grid], constants: Constants, operands: Sequence[Any], accumulation: Accumulation,
) -> tuple[Any, ...]:
  """One operation on codes."""
  result = grids.get(node.outputs[0])
  if node.kind == 'cast' and result is not None:
    return (encode(result, operands[0]),)
  given = [grids[name] for name in node.inputs]
  if node.kind == 'layer':
    sums = fixed_point.accumulate(
      node, operands[0], constants['kernel'], _offset(given[0]), form=accumulation) + constants['bias']
    if result is None:
      return (jnp.clip(sums.astype(jnp.float32) * constants['scale'], constants['low'], constants['high']),)
    codes = fixed_point.rescale(sums, constants['multiplier'], constants['shift']) + _offset(result)
    return (jnp.clip(codes, constants['low'], constants['high']).astype(jnp.int8),)
  if node.kind in SAME_GRID:
    return program.steps(node, operands, filling=jnp.int8(_offset(given[0])))
  differences = [code.astype(jnp.int32) - _offset(grid) for code, grid in zip(operands, given, strict=True)]
  if node.kind == 'sum':
    (total,) = program.steps(node, differences)
    if result is None:
      return (jnp.clip(total.astype(jnp.float32) * constants['scale'], node.low, node.high),)
    return (_clipped(node, fixed_point.rescale(total, constants['multiplier'], constants['shift']), result),)
  if result is None:
    raise AssertionError('operations without a grid for their result run in float')
  if node.kind == 'map':
    return (_looked_up(constants['table'], operands[0], given[0]),)
  if node.kind == 'concatenate':
    return program.steps(node, [_moved(code, grid, result) for code, grid in zip(operands, given, strict=True)])
  if node.kind == 'mul':
    product = differences[0] * differences[1]
    return (_clipped(node, fixed_point.rescale(product, constants['multiplier'], constants['shift']), result),)
  factors, shift = fixed_point.sum_multipliers(*(grid.scale / result.scale for grid in given))
  if node.kind in ('add', 'sub'):
    terms = [differences[0], differences[1] if node.kind == 'add' else -differences[1]]
    return (_clipped(node, fixed_point.rescaled_sum(terms, factors, shift), result),)
  terms = [fixed_point.rescaled_sum([term], (factor,), shift)
           for term, factor in zip(differences, factors, strict=True)]
  return (_clipped(node, BINARY[node.kind](*terms), result),)


def _clipped(node: Node, steps: Array, grid: Grid) -> Array:
  """Differences to the zero point as codes, within the operation's clips."""
  low, high = _clips(node.low, node.high, grid)
  return jnp.clip(steps + _offset(grid), low, high).astype(jnp.int8)


def _looked_up(table: Array, codes: Array, grid: Grid) -> Array:
  places = codes.astype(jnp.int32) + 2 ** (grid.bits - 1)
  if table.ndim == 1:
    return jnp.take(table, places, mode='clip')
  return table[places, jnp.arange(table.shape[1])]


def _moved(codes: Array, grid: Grid, result: Grid) -> Array:
  """Codes of one grid as those of another."""
  if grid == result:
    return codes
  count = 2**grid.bits
  table = encode(result, decode(grid, (jnp.arange(count) - count // 2).astype(jnp.int8)))
  return _looked_up(table, codes, grid)


def _offset(grid: Grid) -> int:
  """The int8 code of zero."""
  return grid.zero_point - 2 ** (grid.bits - 1)


def memory_bytes(network: program.Network) -> int:
  """Bytes of a float network's layers, to compare with `IntegerNetwork.size_bytes`."""
  return sum(math.prod(np.shape(each)) * 4 for layer in network.layers.values() for each in (layer.kernel, layer.bias))
