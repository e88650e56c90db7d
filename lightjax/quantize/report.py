"""What quantization does to each layer: its own error in its place, and what the outputs suffer from it alone."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.quantize import program, simulation
from lightjax.quantize.program import Network
from lightjax.quantize.simulation import Grid, Quantized

__all__ = ['Line', 'by_layer', 'sensitivity', 'sqnr_db', 'table']


class Line(NamedTuple):
  """One layer.

  Attributes:
    layer: its name.
    bits: of a weight.
    low: the least value that its result can have, the end of its grid; None where the result has no grid.
    high: the largest one.
    weight_sqnr_db: of its kernel.
    output_sqnr_db: of its result in the quantized network, with the errors of all layers before it.
    alone_sqnr_db: of the network's outputs where it is the only one quantized; None where that was not asked for.
  """
  layer: str
  bits: int
  low: float | None
  high: float | None
  weight_sqnr_db: float
  output_sqnr_db: float
  alone_sqnr_db: float | None = None


def sqnr_db(signal: Any, rounded: Any) -> float:
  """Signal to quantization noise, 10 log10(sum x^2 / sum (x - x^)^2), in dB; inf without noise.

  Args:
    signal: any shape.
    rounded: the same shape.
  Returns:
    Decibels; 6 more are half the error.
  Example:
    >>> sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    20.0
  """
  signal, rounded = np.asarray(signal, np.float64), np.asarray(rounded, np.float64)
  noise = np.square(signal - rounded).sum()
  return float(10 * np.log10(np.square(signal).sum() / noise)) if noise else float('inf')


def by_layer(network: Network, quantized: Quantized, inputs: Any) -> tuple[Line, ...]:
  """The error of every quantized layer.

  Args:
    network: the float one that `quantized` was made from.
    quantized: to look at.
    inputs: all at once; a tuple for a network of several inputs.
  Returns:
    A line a layer, in execution order.
  """
  errors = {}

  def watch(tensor: str, value: Any, rounded: Any) -> None:
    if tensor in quantized.kernels:
      errors[tensor] = sqnr_db(value, rounded)

  simulation.sweep(network, quantized, inputs, watch=watch)
  return tuple(
    Line(name, quantized.kernels[name].bits, *_range(quantized.grids.get(name)),
         sqnr_db(network.layers[name].kernel, quantized.network.layers[name].kernel), error)
    for name, error in errors.items())


def _range(grid: Grid | None) -> tuple[float | None, float | None]:
  """The ends of a grid."""
  if grid is None:
    return None, None
  return -grid.zero_point * grid.scale, (2**grid.bits - 1 - grid.zero_point) * grid.scale


def sensitivity(network: Network, quantized: Quantized, inputs: Any) -> dict[str, float]:
  """The outputs' SQNR where one layer alone has its quantized kernel, bias and input.

  Args:
    network: the float one that `quantized` was made from.
    quantized: to look at.
    inputs: all at once; a tuple for a network of several inputs.
  Returns:
    Layer -> decibels. One function is compiled for all of them.
  """
  batch = inputs if isinstance(inputs, tuple) else (inputs,)
  roots = {node.name: network.program.grids[node.inputs[0]] for node in network.program.layers}
  tensors = sorted({roots[name] for name in quantized.kernels} & set(quantized.grids))

  @jax.jit
  def outputs(layers: Any, is_rounded: Any) -> Any:
    def hook(name: str, value: Any) -> Any:
      if name not in is_rounded:
        return value
      return jnp.where(is_rounded[name], simulation.round_to(quantized.grids[name], value), value)

    return program.run(network._replace(layers=layers), *batch, hook=hook)

  exact = _joined(outputs(network.layers, dict.fromkeys(tensors, False)))
  found = {}
  for name in quantized.kernels:
    layers = {**network.layers, name: quantized.network.layers[name]}
    found[name] = sqnr_db(exact, _joined(outputs(layers, {tensor: tensor == roots[name] for tensor in tensors})))
  return found


def table(lines: Sequence[Line]) -> str:
  """The report as text, one line a layer."""
  rows = [('layer', 'bits', 'low', 'high', 'weight dB', 'output dB', 'alone dB')]
  for line in lines:
    low, high = ('' if each is None else f'{each:.4g}' for each in (line.low, line.high))
    alone = '' if line.alone_sqnr_db is None else f'{line.alone_sqnr_db:.1f}'
    weight, output = (f'{each:.1f}' for each in (line.weight_sqnr_db, line.output_sqnr_db))
    rows.append((line.layer, str(line.bits), low, high, weight, output, alone))
  widths = [max(len(row[i]) for row in rows) for i in range(7)]
  return '\n'.join('  '.join(
    cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
  ).rstrip() for row in rows)


def _joined(outputs: Any) -> np.ndarray:
  return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(outputs)])
