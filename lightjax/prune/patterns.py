"""Patterns: which entries are zero together. A pattern cuts a parameter into tiles, and a tile goes or stays whole.

The scores of a tile are averaged; the lowest tiles of a budget's group are pruned, as many as the budget says, exactly.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core.typing import Array, Layout, Path

__all__ = ['Pattern', 'block', 'channel', 'kernel', 'n_of_m', 'unstructured']

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Pattern:
  """How a parameter is cut into tiles, and how many of them have to stay.

  Attributes:
    name: for messages.
    tile: (shape of the parameter, how the network uses it) -> size of a tile along each axis.
    at_least: (n, m, axis): of each m tiles in a row along the axis at least n stay; None: none has to.
  """
  name: str
  tile: Callable[[Shape, Layout | None], Shape]
  at_least: tuple[int, int, int] | None = None

  def grid(self, path: Path, shape: Shape, layout: Layout | None) -> Shape:
    """Tiles along each axis.

    Args:
      path: of the parameter, for messages.
      shape: of the parameter.
      layout: how the network uses it; None for what is no kernel.
    Returns:
      Their numbers.
    Raises:
      ValueError: the tile, or m, does not divide an axis, or there is no such axis.
    """
    if self.at_least is not None and not -len(shape) <= self.at_least[2] < len(shape):
      raise ValueError(f'{self.name}: {path!r} of shape {shape} has no axis {self.at_least[2]}.')
    try:
      tile = self.tile(shape, layout)
    except ValueError as error:
      raise ValueError(f'{self.name}: {path!r} of shape {shape} {error}') from error
    for axis, (size, each) in enumerate(zip(shape, tile, strict=True)):
      if size % each:
        raise ValueError(
          f'{self.name}: axis {axis} of {path!r} has size {size}, which {each} does not divide; '
          'choose another size, or leave it alone by a rule.')
    grid = tuple(size // each for size, each in zip(shape, tile, strict=True))
    if self.at_least is not None and grid[self.at_least[2]] % self.at_least[1]:
      _, m, axis = self.at_least
      raise ValueError(
        f'{self.name}: axis {axis} of {path!r} (shape {shape}) has size {grid[axis]}, which {m} does not divide; '
        'choose another axis, or leave it alone by a rule.')
    return grid

  def most(self, grid: Shape) -> int:
    """How many of a grid's tiles may be pruned."""
    units = math.prod(grid)
    return units if self.at_least is None else units // self.at_least[1] * (self.at_least[1] - self.at_least[0])

  def merge(self, values: Array, grid: Shape) -> Array:
    """Means over each tile, float32, in the shape of the grid."""
    values = values.astype(jnp.float32)
    if values.shape == grid:
      return values
    tile = [size // each for size, each in zip(values.shape, grid, strict=True)]
    split = values.reshape([part for pair in zip(grid, tile, strict=True) for part in pair])
    return split.mean(tuple(range(1, 2 * len(grid), 2)))

  def spread(self, units: Array, shape: Shape) -> Array:
    """A value for each tile -> the same value for each of its entries."""
    for axis, size in enumerate(shape):
      if units.shape[axis] != size:
        units = jnp.repeat(units, size // units.shape[axis], axis)
    return units

  def hold(self, units: Array) -> Array:
    """Scores of tiles, infinite for those that have to stay whatever else goes."""
    if self.at_least is None:
      return units
    n, m, axis = self.at_least
    rows = jnp.moveaxis(units, axis, -1)
    rows = rows.reshape(*rows.shape[:-1], -1, m)
    # Stable sorts: of tied scores the later ones stay, as everywhere else.
    rank = jnp.argsort(jnp.argsort(rows, -1, stable=True), -1, stable=True)
    held = jnp.where(rank < m - n, rows, jnp.inf)
    return jnp.moveaxis(held.reshape(*held.shape[:-2], -1), -1, axis)

  def __call__(
    self, scores: Mapping[Path, Array], pruned: Array | int, layouts: Mapping[Path, Layout] | None = None
  ) -> dict[Path, Array]:
    """Masks of a group from its scores.

    Args:
      scores: path to scores, any shapes, ranked together.
      pruned: how many tiles to prune, 0..what the pattern allows; may be traced.
      layouts: path to how the network uses it; needed by `kernel` and `channel`.
    Returns:
      Path to bool mask of the scores' shape, True where the entry is kept.
    Example:
      >>> unstructured({'w': jnp.array([3.0, 1.0, 1.0, 2.0])}, 1)['w']
      Array([ True, False,  True,  True], dtype=bool)
    """
    units = {
      path: self.hold(self.merge(score, self.grid(path, score.shape, (layouts or {}).get(path))))
      for path, score in scores.items()}
    kept = lowest(units, pruned)
    return {path: self.spread(kept[path], score.shape) for path, score in scores.items()}


def lowest(scores: Mapping[Path, Array], pruned: Array | int) -> dict[Path, Array]:
  """Which stay when the `pruned` lowest scores of a group go: exactly so many, ties broken by index.

  Args:
    scores: path to float scores, any shapes, ranked together.
    pruned: how many go, 0..size; may be traced.
  Returns:
    Path to bool array of the scores' shape; their False entries number `pruned`.
  """
  flat = jnp.concatenate([score.ravel() for score in scores.values()]).astype(jnp.float32)
  # Integers in the order of the floats; -0.0 and 0.0 are one. Even a NaN has a place, the last.
  bits = lax.bitcast_convert_type(jnp.where(flat == 0, 0.0, flat), jnp.uint32)
  keys = jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))

  def set_bit(i: Array, threshold: Array) -> Array:
    larger = threshold | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
    return jnp.where((keys < larger).sum() < pruned, larger, threshold)

  # The `pruned`-th smallest key, bit by bit: 32 counts instead of a sort, which takes many times as long on a CPU and
  # has to gather sharded scores.
  threshold = lax.fori_loop(0, 32, set_bit, jnp.uint32(0))
  below, tied = keys < threshold, keys == threshold
  keep = ~(below | (tied & (jnp.cumsum(tied) <= pruned - below.sum())))
  parts = jnp.split(keep, np.cumsum([score.size for score in scores.values()])[:-1])
  return {path: part.reshape(score.shape) for (path, score), part in zip(scores.items(), parts, strict=True)}


def _entry(shape: Shape, layout: Layout | None) -> Shape:
  return (1,) * len(shape)


unstructured = Pattern('unstructured', _entry)
"""Any entry by itself."""


def _window(shape: Shape, layout: Layout | None) -> Shape:
  if layout is None:
    raise ValueError('is no kernel of a conv or dense layer; take it out by a rule.')
  channels = (*layout.output_axes, *layout.input_axes)
  return tuple(1 if axis in channels else size for axis, size in enumerate(shape))


kernel = Pattern('kernel', _window)
"""Two-dimensional kernels: the window between an input and an output channel; of a dense layer single weights.

Source: Mao et al. 2017, arXiv:1705.08922, section 3 (there 2-D, 'kernel-level').
"""


def _filter(shape: Shape, layout: Layout | None) -> Shape:
  if layout is None:
    raise ValueError('is no kernel of a conv or dense layer; take it out by a rule.')
  return tuple(1 if axis in layout.output_axes else size for axis, size in enumerate(shape))


channel = Pattern('channel', _filter)
"""Whole output channels, masked and not removed; what follows the layer (bias, normalization) stays.

Source: Li et al. 2017, arXiv:1608.08710, section 3.1.
"""


def n_of_m(n: int, m: int, *, axis: int = -2) -> Pattern:
  """At least n of each m neighbours along an axis stay: 2:4 at sparsity 0.5 is what sparse tensor cores take.

  At a sparsity below 1 - n/m the lowest scores go that the pattern allows; above it the budget can't be met.

  Args:
    n: entries of each m that stay, 1..m-1.
    m: neighbours in a row.
    axis: along which; -2 are the input channels of a kernel stored as HWIO or IO.
  Returns:
    The pattern.
  Raises:
    ValueError: n is not between 1 and m-1. Where it is used: m does not divide the axis.
  Example:
    >>> n_of_m(1, 2, axis=0)({'w': jnp.array([3.0, 1.0, 5.0, 2.0])}, 2)['w']
    Array([ True, False,  True, False], dtype=bool)

  Source: Mishra et al. 2021, arXiv:2104.08378, section 3; Zhou et al. 2021, arXiv:2102.04010.
  """
  if not 1 <= n < m:
    raise ValueError(f'n_of_m({n}, {m}): n of m stay, 1 <= n < m.')
  return Pattern(f'n_of_m({n}, {m}, axis={axis})', _entry, (n, m, axis))


def block(rows: int, columns: int, *, axes: tuple[int, int] = (-2, -1)) -> Pattern:
  """Blocks of rows x columns over two axes.

  Args:
    rows: size along the first of the axes, at least 1.
    columns: size along the second, at least 1.
    axes: the two; (-2, -1) are the input and output channels of a kernel stored as HWIO or IO.
  Returns:
    The pattern.
  Raises:
    ValueError: a size below 1. Where it is used: a size does not divide its axis.

  Source: Narang et al. 2017, arXiv:1711.02782 (there the maximum of a block, here its mean).
  """
  if rows < 1 or columns < 1:
    raise ValueError(f'block({rows}, {columns}): sizes are 1 or more.')

  def tile(shape: Shape, layout: Layout | None) -> Shape:
    if len(shape) < 2:
      raise ValueError('has fewer than two axes; take it out by a rule.')
    sizes = [1] * len(shape)
    sizes[axes[0]], sizes[axes[1]] = rows, columns
    return tuple(sizes)

  return Pattern(f'block({rows}, {columns})', tile)
