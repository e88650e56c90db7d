"""What a stored network keeps, by parameter and in all: weights, bits of a value and of a position, and the rate."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightjax import measure
from lightjax.artifact.sizes import ArraySize, Sizes

FLOAT_BYTES = 4  # of a weight to which nothing was done


def figures(
  layers: Sequence[measure.LayerSize], sizes: Mapping[str, Sizes]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
  """The figures of each parameter and, under the same names, of the network.

  Args:
    layers: of `measure.layers`.
    sizes: 'coded' for the file, 'plain' for what it would be without entropy coding.
  Returns:
    A record for each parameter, and the figures of all. `density` is the share of the weights that are not zero;
    `value_bits` and `position_bits` are for each of those, without codebook and scales; `bytes` are all, and `rate` is
    their ratio to those of float32. For the network, bytes are those of the file with its header, and bits leave out
    what is stored as it is, such as biases.
  """
  arrays = {name: {array.path: array for array in each.arrays} for name, each in sizes.items()}

  def of(chosen: Sequence[measure.LayerSize]) -> dict[str, float]:
    nonzeros = sum(layer.nonzeros for layer in chosen)
    found = {'density': nonzeros / max(sum(layer.parameters for layer in chosen), 1)}
    for name, by_path in arrays.items():
      found[f'{name}/value_bits'] = _bits([by_path[layer.path] for layer in chosen], ('values', 'rest'), nonzeros)
      found[f'{name}/position_bits'] = _bits([by_path[layer.path] for layer in chosen], ('positions',), nonzeros)
    return found

  def rates(parameters: int, totals: Mapping[str, int]) -> dict[str, float]:
    of_floats = FLOAT_BYTES * max(parameters, 1)
    return {f'{name}/bytes': total for name, total in totals.items()} | {
      f'{name}/rate': total / of_floats for name, total in totals.items()}

  records = [
    {**layer._asdict(), **of([layer]),
     **rates(layer.parameters, {name: by_path[layer.path].total for name, by_path in arrays.items()})}
    for layer in layers]
  coded = of([layer for layer in layers if not arrays['coded'][layer.path].rest])
  parameters = sum(layer.parameters for layer in layers)
  density = sum(layer.nonzeros for layer in layers) / max(parameters, 1)
  whole = coded | {'density': density} | rates(parameters, {name: each.total for name, each in sizes.items()})
  return records, whole | {'compression': 1 / whole['coded/rate']}


def _bits(arrays: Sequence[ArraySize], parts: Sequence[str], count: int) -> float:
  return 8 * sum(getattr(array, part) for array in arrays for part in parts) / max(count, 1)
