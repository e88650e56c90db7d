"""A quantized network as what an artifact holds, and back: `artifact.save(path, network=..., **stored(quantized))`."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core.encoded import Encoded
from lightjax.core.typing import Variables
from lightjax.quantize.program import Layer, Network, Node
from lightjax.quantize.simulation import Grid, Quantized

__all__ = ['restored', 'stored']


def stored(quantized: Quantized) -> dict[str, Any]:
  """The arguments `variables` and `encoded` of `artifact.save`.

  Args:
    quantized: from `simulation.quantize`.
  Returns:
    Kernels as integers with their scales, biases and clips as floats (clips that are infinite are left out), what else
    came of variables under the name of its operation, the grids of the tensors under `Encoded.activations`.
  """
  params: dict[str, dict[str, Any]] = {}
  for name, layer in quantized.network.layers.items():
    params[name] = {'kernel': layer.kernel, 'bias': layer.bias}
    params[name] |= {
      field: getattr(layer, field) for field in ('low', 'high') if np.isfinite(getattr(layer, field)).any()}
  for node in quantized.network.program.nodes:
    if _constants(node):
      params[node.name] = {f'constant{i}': constant for i, constant in enumerate(_constants(node))}
  kernels = {f'{name}/kernel': integers for name, integers in quantized.kernels.items()}
  grids = {tensor: [grid._asdict()] for tensor, grid in quantized.grids.items()}
  return {'variables': {'params': params}, 'encoded': Encoded(kernels, grids)}


def restored(network: Network, variables: Variables, encoded: Encoded) -> Quantized:
  """The quantized network that `stored` took apart.

  Args:
    network: the same architecture, from `lowering.lower`; its parameters don't count, zeros do.
    variables: `artifact.Stored.variables`.
    encoded: `artifact.Stored.encoded`.
  Returns:
    The quantized network.
  Raises:
    ValueError: the parameters are of another network.
  """
  params = variables['params']
  expected = {*network.layers, *(node.name for node in network.program.nodes if _constants(node))}
  if set(params) != expected:
    other = sorted(set(params) ^ expected)
    raise ValueError(f'restored: the file is of another network; {other[0]!r} is in one of them only.')
  layers = {}
  for name, like in network.layers.items():
    found = {'low': np.full(like.bias.shape, -np.inf), 'high': np.full(like.bias.shape, np.inf), **params[name]}
    layers[name] = Layer(**{field: jnp.asarray(value, jnp.float32) for field, value in found.items()})
    if layers[name].kernel.shape != like.kernel.shape:
      raise ValueError(
        f'restored: {name!r} has a kernel of {layers[name].kernel.shape}; the network has {like.kernel.shape}.')
  kernels = {path.removesuffix('/kernel'): integers._replace(
    codes=jnp.asarray(integers.codes), scale=jnp.asarray(integers.scale))
    for path, integers in encoded.parameters.items()}
  grids = {tensor: Grid(**frozen[0]) for tensor, frozen in encoded.activations.items()}
  unknown = set(grids) - set(network.program.shapes)
  if unknown:
    raise ValueError(f'restored: the file has a grid for {min(unknown)!r}, which the network does not compute.')
  nodes = tuple(_with_constants(node, params.get(node.name, {})) for node in network.program.nodes)
  return Quantized(Network(network.program._replace(nodes=nodes), layers), kernels, grids)


def _constants(node: Node) -> list[Any]:
  """What of an operation's equations was made of variables, such as a BatchNorm that follows no layer."""
  return [operand for step in node.steps for operand in step.operands if isinstance(operand, jax.Array)]


def _with_constants(node: Node, found: Mapping[str, Any]) -> Node:
  constants = iter(range(len(found)))

  def exchanged(operand: Any) -> Any:
    return jnp.asarray(found[f'constant{next(constants)}']) if isinstance(operand, jax.Array) else operand

  if not _constants(node):
    return node
  return node._replace(steps=tuple(
    step._replace(operands=tuple(map(exchanged, step.operands))) for step in node.steps))
