"""A program as StableHLO text for LiteRT's converter: named operations, and quantized types where codes stand.

JAX has no quantized types. A mark, an operation that computes nothing, takes their place while the program is traced,
and is exchanged in the text for a pair of quantize and dequantize with a tensor's own scale. The converter then makes
integers of what stands between such pairs.
"""
from __future__ import annotations

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core import modes
from lightjax.core.typing import Array
from lightjax.quantize import program
from lightjax.quantize.program import Layer, Node
from lightjax.quantize.simulation import Grid, Quantized

__all__ = ['clips', 'grids', 'text']

NAME = 'lightjax.codes'
MARK = re.compile(rf'(%\w+) = stablehlo\.composite "{re.escape(NAME)}" (%\w+) \{{composite_attributes = '
                  r'\{index = (\d+) : i64\}, decomposition = @[\w.]+\} : \((tensor<[^>]*>)\) -> tensor<[^>]*>')


def text(quantized: Quantized) -> str:
  """A program's function of one example.

  Args:
    quantized: the network; without grids and kernels it is in float.
  Returns:
    A StableHLO module with the function 'main', whose locations name the program's operations.
  """
  types: list[str] = []
  steps, coded = quantized.network.program, grids(quantized)

  def apply(*inputs: Any) -> Any:
    values = dict(zip(steps.inputs, inputs, strict=True))
    for node in steps.nodes:
      with modes.convolution_mode('lax'), jax.named_scope(node.name):
        results = _results(quantized, node, [values[name] for name in node.inputs], coded, types)
        for name, result in zip(node.outputs, results, strict=True):
          values[name] = _marked(result, _of_tensor(coded[name]), types) if name in coded else result
    return jax.tree_util.tree_unflatten(steps.structure, [values[name] for name in steps.outputs])

  given = [jax.ShapeDtypeStruct(steps.shapes[name], jnp.float32) for name in steps.inputs]
  module = jax.jit(apply).lower(*given).as_text(debug_info=True)

  def exchanged(found: re.Match[str]) -> str:
    result, operand, index, type_ = found.groups()
    coded_type = f'{type_.removesuffix("f32>")}{types[int(index)]}>'
    codes = f'%codes{index}'
    return (f'{codes} = "tfl.quantize"({operand}) <{{qtype = {coded_type}}}> : ({type_}) -> {coded_type}\n'
            f'    {result} = "tfl.dequantize"({codes}) : ({coded_type}) -> {type_}')

  module, count = MARK.subn(exchanged, module)
  if count != len(types):
    raise AssertionError(f'{count} of {len(types)} marks were found in the text; this JAX prints composites otherwise')
  return module


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


def _results(
  quantized: Quantized, node: Node, operands: list[Any], coded: dict[str, Grid], types: list[str],
) -> tuple[Any, ...]:
  """One operation, without clips that its codes do by themselves."""
  layer, grid = quantized.network.layers.get(node.name), coded.get(node.outputs[0])
  if layer is None:
    if node.kind not in program.BINARY and node.kind != 'sum':
      return program.evaluate(node, None, operands)
    # Without a clip where there is none: converters do not see through one between infinities.
    y = (program.BINARY[node.kind](*operands) if node.kind != 'sum' else
         program.steps(node, operands)[0] * node.scale)
    return (_clipped(y, *(clips(node.low, node.high, grid) if grid is not None else (node.low, node.high))),)
  kernel, bias, low, high = layer
  if node.name in quantized.kernels and node.inputs[0] in coded:
    scale = np.asarray(quantized.kernels[node.name].scale, np.float32)
    type_ = _of_kernel(np.broadcast_to(scale.reshape(-1), bias.shape), np.ndim(kernel) - 1)
    kernel = _marked(jnp.asarray(kernel), type_, types)
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


def _marked(x: Array, type_: str, types: list[str]) -> Array:
  """The same, with a mark for a type."""
  types.append(type_)
  return functools.partial(lax.composite, name=NAME)(lambda x, **attributes: x)(x, index=len(types) - 1)


def _of_tensor(grid: Grid) -> str:
  return f'!quant.uniform<i8:f32, {grid.scale!r}:{grid.zero_point - 128}>'


def _of_kernel(scale: np.ndarray, axis: int) -> str:
  return f'!quant.uniform<i8<-127:127>:f32:{axis}, {{{",".join(repr(float(each)) for each in scale)}}}>'
