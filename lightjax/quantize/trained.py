"""Codes and ranges that a network was trained with, as a quantized program: nothing is rounded or calibrated again.

    network = lowering.lower(apply, stored.variables, images)       # apply without the rounding of activations
    quantized = trained.assemble(network, stored.encoded, simulation.calibrate(network, *batches))

Training rounds the inputs of layers; integers all the way need the results of additions and poolings on a grid as well.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lightjax.core.encoded import Encoded, Integers, spread
from lightjax.quantize import quantizers
from lightjax.quantize.program import Layer, Network
from lightjax.quantize.simulation import LARGEST_BIAS, Grid, Limits, Quantized

__all__ = ['assemble']

MOST_CODE = 127
# A folded kernel is codes * scale * BatchNorm's factor, in another order of float32 products.
ROUNDING = 1e-5


def assemble(network: Network, encoded: Encoded, ranges: Limits, *, bits: int = 8) -> Quantized:
  """A network with the codes and the ranges of its training.

  Args:
    network: from `lowering.lower`, of the stored variables, without the rounding of activations.
    encoded: what training stored: kernels as integers, the ranges of layers' inputs. Inputs and kernels that it does
      not name stay float, and so does a tensor that only such layers read.
    ranges: from `simulation.calibrate`, of this very network, for tensors that are no layer's input.
    bits: 2..8, of those tensors.
  Returns:
    The quantized network. A tensor that is the input of several layers has the union of their ranges: train with shared
    ranges (`activations(shared=True)`) for the very same ones.
  Raises:
    ValueError: what was stored has no place in an integer network (8-bit floats, a scale for a group of inputs, more
      than 8 bits about zero, no layer); the message names the parameter and the remedy.
  Deviations: a channel whose scale is too small for its bias to be an int32 is rounded anew, as `simulation.quantize`
    does it.
  """
  kernels, used = {}, set()
  for node in network.program.layers:
    path, kernel = _kernel(node.name, network.layers[node.name], encoded.parameters)
    if kernel is not None:
      kernels[node.name] = kernel
      used.add(path)
  lost = sorted(path for path in encoded.parameters if path not in used)
  if lost:
    raise ValueError(f'{lost[0]!r} is stored as integers, but no layer of the network computes with its values alone; '
                     'leave it out of quantization by a rule.')
  grids = _inputs(network, encoded.activations)
  for tensor, (low, high) in ranges.items():
    if tensor not in grids and _is_coded(network, tensor, kernels):
      scale, zero_point = quantizers.affine_parameters(jnp.float32(low), jnp.float32(high), bits=bits)
      grids[tensor] = Grid(float(scale), int(zero_point), bits)
  quantized = Quantized(network, {}, grids)
  for node in network.program.layers:
    root = network.program.grids[node.inputs[0]]
    if node.name in kernels and root in grids:
      layer = network.layers[node.name]
      quantized = quantized.exchanged(
        node.name, _with_room(kernels[node.name], layer, grids[root]), layer.bias)
  return quantized


def _inputs(network: Network, activations: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Grid]:
  """Grids by tensor, from the ranges of layers' inputs by module and call."""
  found: dict[str, Grid] = {}
  for node in network.program.layers:
    module, _, call = node.name.partition('#')
    if module not in activations:
      continue
    calls = activations[module]
    frozen = calls[int(call or 1) - 1] if int(call or 1) <= len(calls) else calls[-1]
    if frozen['bits'] == 1:  # a binary input is computed by the network itself
      continue
    grid = _grid(module, frozen)
    root = network.program.grids[node.inputs[0]]
    found[root] = _union(found[root], grid) if root in found else grid
  layers = {node.name.partition('#')[0] for node in network.program.layers}
  lost = sorted({module for module, calls in activations.items() if calls[0]['bits'] > 1} - layers)
  if lost:
    raise ValueError(f'{lost[0]!r} has a range for its input, but is no layer of this network.')
  return found


def _grid(module: str, frozen: Mapping[str, Any]) -> Grid:
  kind, bits, scale = frozen.get('format', 'affine'), frozen['bits'], frozen['scale']
  if kind == 'affine':
    return Grid(scale, frozen['zero_point'], bits)
  if kind == 'symmetric':
    return Grid(scale, 2 ** (bits - 1), bits)
  raise ValueError(f'{module!r}: its input is of the format {kind!r}, which integers do not have; train it with '
                   "'affine' or 'symmetric' activations.")


def _union(one: Grid, other: Grid) -> Grid:
  """The grid that covers both; one of them where they are equal."""
  if one == other:
    return one
  bits = max(one.bits, other.bits)
  ends = [(-grid.zero_point * grid.scale, (2**grid.bits - 1 - grid.zero_point) * grid.scale) for grid in (one, other)]
  low, high = min(end[0] for end in ends), max(end[1] for end in ends)
  scale, zero_point = quantizers.affine_parameters(jnp.float32(low), jnp.float32(high), bits=bits)
  return Grid(float(scale), int(zero_point), bits)


def _is_coded(network: Network, tensor: str, kernels: Mapping[str, Integers]) -> bool:
  """Whether anything but a layer that stays float reads a tensor, or what was moved of it."""
  program = network.program
  readers = [node for node in program.nodes
             if any(program.grids.get(name) == tensor for name in node.inputs)]
  return any(node.kind != 'layer' or node.name in kernels for node in readers)


def _kernel(name: str, layer: Layer, parameters: Mapping[str, Integers]) -> tuple[str, Integers | None]:
  """Where the codes of a layer are stored, and they with BatchNorm's factor in their scale; None where there are none.

  They are known by their values, those of the layer's module first: a smaller network does not know names of modules.
  """
  module = re.sub(r'#\d+$', '', name)
  for path in sorted(parameters, key=lambda path: not path.startswith(f'{module}/')):
    if np.shape(parameters[path].codes) == np.shape(layer.kernel):
      found = _scaled(_levels(path, parameters[path]), np.asarray(layer.kernel, np.float64))
      if found is not None:
        return path, found
  return '', None


def _levels(path: str, integers: Integers) -> Integers:
  """A parameter as integers about zero."""
  codes: np.ndarray = np.asarray(integers.codes)
  if codes.dtype.kind not in 'iu':
    raise ValueError(f'{path!r} is stored as {codes.dtype}, not as integers; train it with a format of integers.')
  levels, scale = codes.astype(np.float64), np.asarray(spread(np.asarray(integers.scale), codes.shape))
  scale = np.broadcast_to(scale, codes.shape)
  if (scale != scale.reshape(-1, codes.shape[-1])[0]).any():
    raise ValueError(f"{path!r} has a scale for each group of inputs; train it with granularity='channel' or 'tensor'.")
  if integers.zero_point is not None:
    levels = levels - np.broadcast_to(spread(np.asarray(integers.zero_point), codes.shape), codes.shape)
  factor = 1 if (levels == np.round(levels)).all() else 2  # codes about half a step
  levels = levels * factor
  if np.abs(levels).max(initial=0) > MOST_CODE:
    raise ValueError(
      f'{path!r} reaches {np.abs(levels).max():.0f} steps from zero, an int8 {MOST_CODE}; train it with symmetric '
      'weights.')
  channels = scale.reshape(-1, codes.shape[-1])[0].reshape((1,) * (codes.ndim - 1) + (-1,))
  return integers._replace(codes=jnp.asarray(levels, jnp.int8), scale=channels / factor, zero_point=None)


def _scaled(integers: Integers, kernel: np.ndarray) -> Integers | None:
  """The codes with the scales that make them the kernel, channel by channel; None if none do."""
  rows = kernel.reshape(-1, kernel.shape[-1])
  decoded = np.asarray(integers.decode(), np.float64).reshape(rows.shape)
  largest = np.abs(decoded).argmax(0), np.arange(rows.shape[1])
  is_zero = decoded[largest] == 0
  factor = np.where(is_zero, 1, rows[largest] / np.where(is_zero, 1, decoded[largest]))
  bound = ROUNDING * np.abs(rows).max(0)
  if not (np.abs(decoded * factor - rows) <= bound).all():
    return None
  # BatchNorm's factor may be below zero, and so may be what the stored scale was divided by.
  scale = np.asarray(integers.scale, np.float64) * factor
  codes = np.asarray(integers.codes) * np.sign(scale).astype(np.int8)  # zero: BatchNorm has switched the channel off
  return integers._replace(
    codes=jnp.asarray(codes), scale=jnp.asarray(np.where(scale == 0, 1, np.abs(scale)), jnp.float32))


def _with_room(integers: Integers, layer: Layer, grid: Grid) -> Integers:
  """The same with steps that let the bias be an int32; channels that have such steps keep their codes."""
  floor = jnp.abs(layer.bias) * np.float32(1 / (LARGEST_BIAS * grid.scale))
  scale = jnp.maximum(integers.scale, floor)
  codes = jnp.where(scale == integers.scale, integers.codes, jnp.round(integers.decode() / scale))
  return integers._replace(codes=codes.astype(jnp.int8), scale=scale)
