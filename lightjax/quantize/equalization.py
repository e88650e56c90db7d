"""Cross-layer equalization and high-bias absorption: the same function of weights that one step a kernel suits.

Between two layers a channel may be divided by any positive number and multiplied by it again. ReLU and ReLU6 are in
`program.Layer` clips with bounds a channel, which are divided, too: a ReLU6 stays exactly what it was, as
min(max(y, 0), 6 / s), and neither is replaced.
"""
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.quantize import program
from lightjax.quantize.program import Network, Node, Program

__all__ = ['Pair', 'absorb', 'equalize', 'pairs']

# Sweeps over all pairs, and the largest change of a factor at which there is no more to do.
MOST_SWEEPS, TOLERANCE = 50, 1e-3


class Pair(NamedTuple):
  """A layer and the layers that read its result; nothing else does.

  Attributes:
    first: the layer.
    readers: one or more.
  """
  first: Node
  readers: tuple[Node, ...]


def pairs(program_: Program) -> tuple[Pair, ...]:
  """Where channels can be rescaled: layers read by nothing but layers.

  A depthwise convolution between two others is in two pairs, whose sweeps reach the equilibrium of all three.

  Args:
    program_: the network's.
  Returns:
    Pairs in execution order.
  """
  found = []
  for node in program_.layers:
    readers = program_.readers(node.name)
    if readers and node.name not in program_.outputs and all(reader.kind == 'layer' for reader in readers):
      found.append(Pair(node, tuple(readers)))
  return tuple(found)


def equalize(network: Network) -> Network:
  """The same function with equal ranges on both sides of every channel.

    s_i = sqrt(r_i / r'_i):  W_i / s_i, b_i / s_i, W'_i * s_i

  with r_i the largest weight that makes channel i and r'_i the largest that reads it. Swept until nothing moves.
  Channels with no weight on one side are left alone.

  Args:
    network: in float.
  Returns:
    The network with other parameters and the same outputs up to rounding.
  Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1.
  Deviations from the paper: ReLU6 is not replaced by ReLU, its bound is divided by s; a layer may have several readers,
    whose largest weight counts.
  """
  found = pairs(network.program)
  layers = {name: [np.asarray(each, np.float64) for each in layer] for name, layer in network.layers.items()}
  for _ in range(MOST_SWEEPS):
    moved = 0.0
    for first, readers in found:
      kernel, bias, low, high = layers[first.name]
      made = np.abs(kernel).reshape(-1, bias.size).max(0)
      read = np.max([_by_input(reader, layers[reader.name][0]).max(1) for reader in readers], axis=0)
      sound = (made > 0) & (read > 0)
      factor = np.sqrt(np.where(sound, made, 1) / np.where(sound, read, 1))
      moved = max(moved, float(np.abs(np.log(factor)).max()))
      layers[first.name] = [kernel / factor, bias / factor, low / factor, high / factor]
      for reader in readers:
        layers[reader.name][0] = _scaled_input(reader, layers[reader.name][0], factor)
    if moved < TOLERANCE:
      break
  return network._replace(layers={
    name: program.Layer(*(jnp.asarray(each, jnp.float32) for each in layer)) for name, layer in layers.items()})


def absorb(network: Network, *batches: Any, deviations: float = 3.0) -> Network:
  """High biases moved on: what a ReLU's input almost never falls below is taken off it and added after the next layer.

    c = max(0, mean - deviations * standard deviation):  b - c,  b' + W' c

  It is exact where the input is above c. A channel that a padded layer reads is left alone: its padding is zero, not c.

  Args:
    network: in float, equalized.
    *batches: calibration inputs, over which mean and deviation of each channel are taken.
    deviations: how many standard deviations below the mean.
  Returns:
    The network with other biases and clips, and nearly the same outputs.
  Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1.3.
  Deviations from the paper: mean and standard deviation are measured, not read from BatchNorm; padded layers are left
    out; the upper bound of a ReLU6 moves down by c.
  """
  statistics = _statistics(network, batches)
  layers = dict(network.layers)
  for first, readers in pairs(network.program):
    layer = layers[first.name]
    if any(reader.window is not None and reader.window.padding != ((0, 0), (0, 0)) for reader in readers):
      continue
    mean, deviation = statistics[first.name]
    shift = np.maximum(0, mean - deviations * deviation) * (np.asarray(layer.low) == 0)
    layers[first.name] = layer._replace(bias=layer.bias - shift, high=layer.high - shift)
    for reader in readers:
      kernel = layers[reader.name].kernel
      groups = 1 if reader.window is None else reader.window.groups
      rows = np.asarray(kernel, np.float64)
      rows = rows.reshape(-1, *rows.shape[-2:]).sum(0)  # [inputs a group, outputs]
      each = np.repeat(shift.reshape(groups, -1), rows.shape[1] // groups, axis=0)  # [outputs, inputs a group]
      added = jnp.asarray((rows * each.T).sum(0), jnp.float32)
      layers[reader.name] = layers[reader.name]._replace(bias=layers[reader.name].bias + added)
  return network._replace(layers=layers)


def _statistics(network: Network, batches: Sequence[Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Mean and standard deviation of each layer's channels before its clip."""
  sums: dict[str, list[Any]] = {}
  for batch in batches:
    inputs = batch if isinstance(batch, tuple) else (batch,)
    for name, pair in _moments(program.Static(network.program), network.layers, *inputs).items():
      sums.setdefault(name, []).append([np.asarray(each, np.float64) for each in pair])
  if not sums:
    raise ValueError('absorb: there is no batch to calibrate with.')
  found = {}
  for name, moments in sums.items():
    mean, square = (np.concatenate([moment[i] for moment in moments]).mean(0) for i in (0, 1))
    found[name] = mean, np.sqrt(np.maximum(square - mean**2, 0))
  return found


@functools.partial(jax.jit, static_argnums=0)
def _moments(
    static: program.Static, layers: dict[str, program.Layer], *inputs: Any) -> dict[str, tuple[Any, Any]]:
  """Mean and mean square of each layer's channels before its clip, for each example."""

  def one(*inputs: Any) -> dict[str, tuple[Any, Any]]:
    seen = {}

    def before(name: str, value: Any) -> Any:
      flat = value.reshape(-1, value.shape[-1])
      seen[name] = flat.mean(0, keepdims=True), jnp.square(flat).mean(0, keepdims=True)
      return value

    program.run_one(Network(static.value, layers), inputs, before=before)
    return seen

  return program.batched(one)(*inputs)


def _by_input(node: Node, kernel: np.ndarray) -> np.ndarray:
  """|kernel| as [input channels, all else]."""
  groups = 1 if node.window is None else node.window.groups
  rows, outputs = kernel.shape[-2:]
  parts = np.abs(kernel).reshape(-1, rows, groups, outputs // groups)
  return np.moveaxis(parts, (2, 1), (0, 1)).reshape(groups * rows, -1)


def _scaled_input(node: Node, kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
  """The kernel with each input channel multiplied by its factor."""
  groups = 1 if node.window is None else node.window.groups
  rows, outputs = kernel.shape[-2:]
  each = np.repeat(factor.reshape(groups, rows).T, outputs // groups, axis=1)  # [rows, outputs]
  return kernel * each
