"""A quantized network as what an artifact holds, and back: `artifact.save(path, network=..., **stored(quantized))`."""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from lightjax.core.encoded import Encoded
from lightjax.core.typing import Variables
from lightjax.quantize.program import Layer, Network
from lightjax.quantize.simulation import Grid, Quantized

__all__ = ['restored', 'stored']


def stored(quantized: Quantized) -> dict[str, Any]:
  """The arguments `variables` and `encoded` of `artifact.save`.

  Args:
    quantized: from `simulation.quantize`.
  Returns:
    Kernels as integers with their scales, biases and clips as floats (clips that are infinite are left out), the grids
    of the tensors under `Encoded.activations`.
  """
  params: dict[str, dict[str, Any]] = {}
  for name, layer in quantized.network.layers.items():
    params[name] = {'kernel': layer.kernel, 'bias': layer.bias}
    params[name] |= {
      field: getattr(layer, field) for field in ('low', 'high') if np.isfinite(getattr(layer, field)).any()}
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
  if set(params) != set(network.layers):
    other = sorted(set(params) ^ set(network.layers))
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
  return Quantized(network._replace(layers=layers), kernels, grids)
