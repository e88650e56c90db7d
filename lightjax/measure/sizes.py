"""Non-zeros, bits and ideal bytes of each parameter: one definition for every table and plot.

The size of a file, with positions, scales and header, is the artifact's; these are the figures that explain it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lightjax.core import trees
from lightjax.core.encoded import NOTHING, Encoded, spread
from lightjax.core.typing import Path, Variables


class LayerSize(NamedTuple):
  """One parameter, or several together.

  Attributes:
    path: the parameter's path, or 'total'.
    parameters: number of entries.
    nonzeros: entries that are not zero; codes that do not stand for zero for an encoded parameter.
    bits: bits per stored value: those of the integer codes, else those of the dtype (32 for float32); for several
      parameters their mean over the non-zeros.
  """
  path: Path
  parameters: int
  nonzeros: int
  bits: float

  @property
  def density(self) -> float:
    """nonzeros / parameters, 0..1; 1 where there are no entries at all."""
    return self.nonzeros / self.parameters if self.parameters else 1.0

  @property
  def ideal_bytes(self) -> float:
    """nonzeros * bits / 8: the values alone, as if positions, scales and header cost nothing."""
    return self.nonzeros * self.bits / 8


def layers(variables: Variables, encoded: Encoded = NOTHING) -> tuple[LayerSize, ...]:
  """The figures of every parameter, in the tree's order; statistics are no parameters.

  Args:
    variables: the final view, any pytree of arrays; pruned weights are exactly zero.
    encoded: the parameters that are stored as integers instead.
  Returns:
    One entry a parameter.
  Raises:
    ValueError: `encoded` names something that is no parameter, or codes of another shape.

  Example:
    >>> layers({'params': {'fc': {'kernel': np.array([[0.0, 0.5]], np.float32)}}})
    (LayerSize(path='fc/kernel', parameters=2, nonzeros=1, bits=32),)
  """
  leaves = trees.flatten(variables)
  for path, integers in encoded.parameters.items():
    if path not in leaves:
      raise ValueError(f'encoded: {path!r} is no parameter of these variables; nearest: {trees.nearest(path, leaves)}.')
    if np.shape(integers.codes) != np.shape(leaves[path]):
      raise ValueError(
        f'{path}: codes of shape {np.shape(integers.codes)} stand for a parameter of shape {np.shape(leaves[path])}.')

  def measured(path: Path) -> LayerSize:
    integers = encoded.parameters.get(path)
    stored = np.asarray(leaves[path] if integers is None else integers.codes)
    bits = 8 * stored.dtype.itemsize if integers is None else integers.bits
    if integers is not None and integers.zero_point is not None:
      stored = stored.astype(np.float32) - spread(np.asarray(integers.zero_point), stored.shape)
    return LayerSize(path, stored.size, int(np.count_nonzero(stored)), bits)

  return tuple(measured(path) for path in leaves)


def total(sizes: Sequence[LayerSize]) -> LayerSize:
  """Several parameters as one: sums of entries and non-zeros, the mean of bits over the non-zeros.

  Args:
    sizes: any of what `layers` returns.
  Returns:
    Their total; its `ideal_bytes` is the sum of theirs.

  Example:
    >>> total([LayerSize('a', 10, 1, 32), LayerSize('b', 10, 3, 8)])
    LayerSize(path='total', parameters=20, nonzeros=4, bits=14.0)
  """
  nonzeros = sum(size.nonzeros for size in sizes)
  bits = sum(size.nonzeros * size.bits for size in sizes) / nonzeros if nonzeros else 0.0
  return LayerSize('total', sum(size.parameters for size in sizes), nonzeros, bits)
