"""A program as a function of one example that converters understand: named operations, and marks where codes stand.

A mark is the composite operation 'quant.fake_quant' of StableHLO, which LiteRT's converter turns into the scale of a
tensor. What it stands for is rounding, so that the function itself is the simulation.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core import modes
from lightjax.core.typing import Array
from lightjax.quantize import program, simulation
from lightjax.quantize.program import Layer, Network, Node
from lightjax.quantize.simulation import Grid, Quantized

__all__ = ['clips', 'grids', 'plain', 'with_marks']


def plain(network: Network) -> Callable[..., Any]:
  """The function of one example, in float, whose operations have the names of the program's.

  Args:
    network: from `lowering.lower`.
  Returns:
    (inputs with a batch axis of 1) -> the outputs.
  """
  return with_marks(Quantized(network, {}, {}))


def with_marks(quantized: Quantized) -> Callable[..., Any]:
  """The function of one example with marks on every kernel and tensor that is in codes.

  Args:
    quantized: the network.
  Returns:
    (inputs with a batch axis of 1) -> the outputs; what `simulation.simulate` computes.
  """
  steps, coded = quantized.network.program, grids(quantized)

  def apply(*inputs: Any) -> Any:
    values = dict(zip(steps.inputs, inputs, strict=True))
    for node in steps.nodes:
      with modes.convolution_mode('lax'), jax.named_scope(node.name):
        results = _results(quantized, node, [values[name] for name in node.inputs], coded)
        for name, result in zip(node.outputs, results, strict=True):
          values[name] = _marked(result, coded[name]) if name in coded else result
    return jax.tree_util.tree_unflatten(steps.structure, [values[name] for name in steps.outputs])

  return apply


def grids(quantized: Quantized) -> dict[str, Grid]:
  """The grid of every tensor that is in codes, also of those that share one."""
  return {tensor: quantized.grids[root] for tensor, root in quantized.network.program.grids.items()
          if root in quantized.grids}


def clips(low: float, high: float, grid: Grid) -> tuple[float, float]:
  """What of an operation's clip 8-bit codes do not do by themselves.

  Args:
    low: of the operation, -inf without.
    high: likewise.
    grid: of its result; one of fewer than 8 bits ends before the codes do.
  Returns:
    The same, or infinite where the ends of the codes cut off as much.
  """
  least, most = -grid.zero_point, 255 - grid.zero_point
  high = min(high, (2**grid.bits - 1 - grid.zero_point) * grid.scale) if grid.bits < 8 else high
  return (low if math.isfinite(low) and round(low / grid.scale) > least else -math.inf,
          high if math.isfinite(high) and round(high / grid.scale) < most else math.inf)


def _results(quantized: Quantized, node: Node, operands: list[Any], coded: dict[str, Grid]) -> tuple[Any, ...]:
  """One operation, without clips that its codes do by themselves."""
  layer, grid = quantized.network.layers.get(node.name), coded.get(node.outputs[0])
  if layer is None:
    if grid is not None and node.kind != 'float':
      low, high = clips(node.low, node.high, grid)
      node = node._replace(low=low, high=high)
    return program.evaluate(node, None, operands)
  kernel, bias, low, high = layer
  if node.name in quantized.kernels and node.inputs[0] in coded:
    scale = np.asarray(quantized.kernels[node.name].scale, np.float32)
    kernel = _kernel_mark(np.asarray(kernel), np.broadcast_to(scale.reshape(-1), bias.shape))
  y = program.affine(node, Layer(kernel, bias, low, high), operands[0])
  bounds = np.stack([np.asarray(low), np.asarray(high)]).astype(np.float64)
  if (bounds == bounds[:, :1]).all():
    ends = (float(bounds[0, 0]), float(bounds[1, 0]))
    ends = ends if grid is None else clips(*ends, grid)
    return (_clipped(y, *ends),)
  return (jnp.clip(y, low, high),)


def _clipped(y: Array, low: float, high: float) -> Array:
  """Clips as converters know them: a maximum is a ReLU."""
  y = jnp.maximum(y, low) if math.isfinite(low) else y
  return jnp.minimum(y, high) if math.isfinite(high) else y


def _marked(x: Array, grid: Grid) -> Array:
  mark = functools.partial(lax.composite, name='quant.fake_quant')(
    lambda x, **attributes: simulation.round_to(grid, x))
  return mark(x, scale=np.array([grid.scale], np.float32), zero_point=np.array([grid.zero_point - 128], np.int64),
              dtype='i8', narrow_range=False)


def _kernel_mark(kernel: np.ndarray, scale: np.ndarray) -> Array:
  mark = functools.partial(lax.composite, name='quant.fake_quant')(lambda x, **attributes: x)
  return mark(jnp.asarray(kernel), scale=scale, zero_point=np.zeros(scale.shape, np.int64), dtype='i8',
              narrow_range=True, quantization_dimension=kernel.ndim - 1)
