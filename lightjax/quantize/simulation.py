"""Calibration, quantization and float simulation of a `program.Network`.

    network = lower(model.apply, variables, images)
    seen = calibrate(network, images)
    quantized = quantize(network, seen, weight_bits=8, activation_bits=8)
    logits = simulate(quantized, images)
"""
from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import trees
from lightjax.core.encoded import Integers
from lightjax.core.typing import Array
from lightjax.quantize import program, quantizers
from lightjax.quantize.program import Layer, Network, Node

__all__ = ['Grid', 'Quantized', 'Site', 'calibrate', 'minimum_maximum', 'quantize', 'round_to', 'simulate', 'sweep']

Limits = dict[str, tuple[float, float]]
Rules = int | Sequence[tuple[str, int | None]]

# A bias is an int32 on the scale of its layer's accumulators; this leaves three bits to the products.
LARGEST_BIAS = 2.0**28


class Grid(NamedTuple):
  """Where the codes of a tensor stand: value = (code - zero point) * scale, codes 0..2^bits - 1.

  Attributes:
    scale: of one step.
    zero_point: the code of zero.
    bits: 2..8.
  """
  scale: float
  zero_point: int
  bits: int


class Quantized(NamedTuple):
  """A network, what its kernels are on their grids, and the grids of its tensors.

  Attributes:
    network: its layers hold the kernels as the codes stand for them, and float biases.
    kernels: the codes by layer; layers that are not named stay float.
    grids: by tensor; tensors that are not named stay float.
  """
  network: Network
  kernels: dict[str, Integers]
  grids: dict[str, Grid]

  def exchanged(self, name: str, kernel: Integers, bias: Any) -> Quantized:
    """With another kernel and bias of one layer."""
    layer = self.network.layers[name]._replace(kernel=kernel.decode(), bias=jnp.asarray(bias, jnp.float32))
    network = self.network._replace(layers={**self.network.layers, name: layer})
    return self._replace(network=network, kernels={**self.kernels, name: kernel})


def minimum_maximum(value: Array) -> tuple[Array, Array]:
  """The smallest and the largest value."""
  return jnp.min(value), jnp.max(value)


def calibrate(
    network: Network, *batches: Any, limits: Callable[[Any], tuple[Any, Any]] = minimum_maximum) -> Limits:
  """The range of every tensor on some batches; no labels are needed.

  Args:
    network: in float.
    *batches: inputs; a network of several inputs takes tuples.
    limits: (a tensor of a batch) -> its range.
  Returns:
    Tensor -> (low, high), the means over batches. A batch of one image is a good choice: a rare outlier then makes no
      step much wider.
  Raises:
    ValueError: there is no batch, or a range is not finite.
  """
  seen: dict[str, list[np.ndarray]] = {}
  for batch in batches:
    found = _limits(program.Static(network.program), limits, network.layers, *_inputs(batch))
    for name, pair in found.items():
      seen.setdefault(name, []).append(np.asarray(pair))
  if not seen:
    raise ValueError('calibrate: there is no batch to calibrate with.')
  ranges: dict[str, Any] = {}
  for name, pairs in seen.items():
    low, high = np.stack(pairs).mean(0, dtype=np.float64).tolist()
    ranges[name] = low, high
  for name, pair in ranges.items():
    if not np.isfinite(pair).all():
      raise ValueError(f'calibrate: the range of {name!r} is {pair}; is the network sound on these inputs?')
  return ranges


@functools.partial(jax.jit, static_argnums=(0, 1))
def _limits(
    static: program.Static, limits: Callable[[Any], tuple[Any, Any]], layers: dict[str, Layer], *inputs: Any,
) -> dict[str, tuple[Any, Any]]:
  """The range of every tensor of a batch."""

  def one(*inputs: Any) -> dict[str, Any]:
    seen = {}

    def hook(name: str, value: Any) -> Any:
      seen[name] = value
      return value

    program.run_one(Network(static.value, layers), inputs, hook)
    return seen

  return {name: limits(value) for name, value in program.batched(one)(*inputs).items()}


def quantize(
    network: Network, ranges: Limits, *, weight_bits: Rules = 8, activation_bits: int = 8, per_channel: bool = True,
) -> Quantized:
  """Kernels to the nearest level of symmetric abs-max grids, tensors to affine ones.

  Args:
    network: in float.
    ranges: from `calibrate`, of this very network.
    weight_bits: 2..8 a weight; or rules (pattern, bits), the first whose pattern matches all of a layer's name counts,
      None or no rule leaves a layer in float.
    activation_bits: 2..8.
    per_channel: a step for each output channel, or one a kernel.
  Returns:
    The quantized network.
  Raises:
    ValueError: a rule that takes no layer; bits out of range.
  Source: Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.
  Deviations from the paper: a kernel's step is at least |bias| / (2^28 input step), so that the bias fits into an
  int32; channels that BatchNorm has all but switched off need it.
  """
  grids = {}
  for name, (low, high) in ranges.items():
    scale, zero_point = quantizers.affine_parameters(jnp.float32(low), jnp.float32(high), bits=activation_bits)
    grids[name] = Grid(float(scale), int(zero_point), activation_bits)
  quantized = Quantized(network, {}, grids)
  bits = assigned(weight_bits, network)
  for node in network.program.layers:
    if node.name in bits:
      layer = network.layers[node.name]
      scale = kernel_scale(
        layer, grids[network.program.grids[node.inputs[0]]], bits=bits[node.name], per_channel=per_channel)
      codes = quantizers.codes(layer.kernel, scale, bits=bits[node.name]).astype(jnp.int8)
      quantized = quantized.exchanged(node.name, Integers(codes, scale, bits[node.name]), layer.bias)
  return quantized


def kernel_scale(layer: Layer, grid: Grid, *, bits: int, per_channel: bool) -> Array:
  """The steps of a kernel: abs-max, but large enough for the bias to be an int32."""
  rank = np.ndim(layer.kernel)
  reduced = range(rank - 1) if per_channel else range(rank)
  scale = quantizers.scale_absmax(layer.kernel, bits=bits, reduced_axes=tuple(reduced))
  floor = jnp.abs(layer.bias) * np.float32(1 / (LARGEST_BIAS * grid.scale))
  floor = floor.reshape((1,) * (rank - 1) + (-1,))
  floor = floor if per_channel else floor.max(keepdims=True)
  # An all-zero channel has the scale 1, which is too coarse for its bias.
  is_zero = jnp.max(jnp.abs(layer.kernel), axis=tuple(reduced), keepdims=True) == 0
  return jnp.where(is_zero & (floor > 0), floor, jnp.maximum(scale, floor))


def assigned(rules: Rules, network: Network) -> dict[str, int]:
  """Bits by layer."""
  pairs = (('.*', rules),) if isinstance(rules, int) else tuple(rules)
  found, used = {}, set()
  for node in network.program.layers:
    for pattern, bits in pairs:
      if re.fullmatch(pattern, node.name):
        used.add(pattern)
        if bits is not None:
          quantizers.limit(bits)
          found[node.name] = bits
        break
  for pattern, _ in pairs:
    if pattern not in used:
      near = trees.nearest(pattern, [node.name for node in network.program.layers])
      raise ValueError(f'weight_bits: {pattern!r} takes no layer; nearest: {near}.')
  return found


def round_to(grid: Grid, value: Any) -> Array:
  """A tensor on its grid, in float.

  Args:
    grid: where its codes stand.
    value: any shape.
  Returns:
    The nearest values of the grid, the same shape.
  """
  return quantizers.affine(value, jnp.float32(grid.scale), jnp.float32(grid.zero_point), bits=grid.bits)


def simulate(quantized: Quantized, *inputs: Any) -> Any:
  """The outputs of the quantized network, computed in float.

  Args:
    quantized: from `quantize`.
    *inputs: batches of equal size.
  Returns:
    The outputs of `apply`.
  """
  return program.run(quantized.network, *inputs, hook=_rounding(quantized))


def _rounding(quantized: Quantized) -> program.Hook:
  return lambda name, value: round_to(quantized.grids[name], value) if name in quantized.grids else value


class Site(NamedTuple):
  """A quantized layer in its place: what it is given in the float network, and in the one quantized so far.

  Attributes:
    node: the layer.
    layer: its parameters in the float network.
    kernel: its codes so far.
    x: inputs of all examples in the float network.
    x_quantized: inputs in the quantized one, whose earlier layers have been visited.
  """
  node: Node
  layer: Layer
  kernel: Integers
  x: Any
  x_quantized: Any


def sweep(
    network: Network, quantized: Quantized, inputs: Any,
    visit: Callable[[Site], tuple[Integers, Any]] | None = None,
    watch: Callable[[str, Any, Any], None] = lambda tensor, value, rounded: None,
) -> Quantized:
  """The float and the quantized network side by side, operation by operation, all examples at once.

  Args:
    network: the float one.
    quantized: the same program, quantized.
    inputs: of all examples; a tuple for a network of several inputs. Both networks' live tensors are kept in memory.
    visit: called at each quantized layer, in order, before it is run; returns its new codes and bias.
    watch: called with each tensor's name, its float value and its quantized one.
  Returns:
    The quantized network after all visits.
  """
  steps = network.program
  exact = dict(zip(steps.inputs, map(jnp.asarray, _inputs(inputs)), strict=True))
  rough = dict(exact)
  last = {name: index for index, node in enumerate(steps.nodes) for name in node.inputs}
  for index, node in enumerate(steps.nodes):
    if visit is not None and node.name in quantized.kernels:
      kernel, bias = visit(Site(
        node, network.layers[node.name], quantized.kernels[node.name], exact[node.inputs[0]], rough[node.inputs[0]]))
      quantized = quantized.exchanged(node.name, kernel, bias)
    call = functools.partial(_all_examples, program.Static(node))
    pairs = zip(
      node.outputs,
      call(network.layers.get(node.name), *(exact[name] for name in node.inputs)),
      call(quantized.network.layers.get(node.name), *(rough[name] for name in node.inputs)), strict=True)
    for name, value, rounded in pairs:
      own = steps.grids.get(name) == name and name in quantized.grids
      exact[name], rough[name] = value, round_to(quantized.grids[name], rounded) if own else rounded
      watch(name, value, rough[name])
    for name in node.inputs:
      if last[name] == index:
        del exact[name], rough[name]
  return quantized


@functools.partial(jax.jit, static_argnums=0)
def _all_examples(static: program.Static, layer: Layer | None, *operands: Any) -> Any:
  return program.batched(lambda *operands: program.evaluate(static.value, layer, operands))(*operands)


def _inputs(batch: Any) -> tuple[Any, ...]:
  return batch if isinstance(batch, tuple) else (batch,)
