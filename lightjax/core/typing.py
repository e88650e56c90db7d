"""The names that every package shares: trees, paths and how a parameter is used."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
PyTree = Any
Variables = Any  # linen's `{'params': ..., 'batch_stats': ...}`, an NNX state, an Equinox partition: any pytree
Path = str  # 'stage1/block0/conv1/kernel'; see `trees.path_string`
Leaves = Mapping[Path, Array]


class Layout(NamedTuple):
  """How the network uses a kernel, read from its graph and not guessed from the parameter's name or rank.

  Attributes:
    kind: 'conv' or 'dense'.
    output_axes: axes of the stored parameter that index output channels (HWIO: `(3,)`, OIHW: `(0,)`).
    order: position of the operation in the forward pass; the first is 0.
    input_axes: axes that are summed over and index input channels.
    macs: multiply-adds of one example with this kernel, over all of its uses.
  """
  kind: str
  output_axes: tuple[int, ...]
  order: int
  input_axes: tuple[int, ...] = ()
  macs: int = 0

  def reduced_axes(self, rank: int) -> tuple[int, ...]:
    """All axes but the output channels: what a statistic per channel reduces over."""
    return tuple(axis for axis in range(rank) if axis not in self.output_axes)
