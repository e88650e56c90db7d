"""Quantization of weights as a view."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lightjax.core import rngs, trees
from lightjax.core.encoded import Encoded, spread
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Layout, Path, PyTree, Variables
from lightjax.quantize import formats, granularities, quantizers, scales
from lightjax.quantize.formats import Format

__all__ = ['weights']


def weights(
  *,
  bits: int,
  format: Callable[[int], Format] = formats.symmetric,
  scale: Callable[..., Any] = scales.absmax,
  granularity: Callable[[tuple[int, ...], Layout | None], tuple[int, ...]] = granularities.channel,
  stochastic: bool = False,
) -> Transform:
  """Weights on a grid of codes.

  Args:
    bits: 2..8 a weight.
    format: which codes there are, see `formats`.
    scale: where scales come from, see `scales`: a range, taken from the weights as they are in each pass, or a trained
      scale (`scales.lsq`).
    granularity: what shares a scale, see `granularities`.
    stochastic: in training round up with the probability of the fraction, with a key of each step and parameter; to
      nearest in evaluation and in what is stored.
  Returns:
    A transform that owns trained scales, if they are. It keeps zeros (but for the format `half_step`), so that it may
    follow pruning.
  Raises:
    ValueError: the format does not have so many bits.
  Source: Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.
  """
  grid = format(bits)  # refuses a bad number where it was written
  learned = scale(grid) if scales.is_learned(scale) else None
  if learned is not None and stochastic:
    raise ValueError('weights: a trained scale is for rounding to nearest; set stochastic=False.')
  name = f'weights({grid.name})'

  def init(variables: Variables, context: Context) -> Own:
    """The state says, by its shape, what shares a scale; beside a trained one, what it does not train."""
    trainable: dict[Path, PyTree] = {}
    state: dict[Path, PyTree] = {}
    for path, leaf in context.select(variables).items():
      try:
        shape = granularity(leaf.shape, context.layouts.get(path))
      except ValueError as error:
        raise ValueError(f'{name}: {path!r}: {error}') from error
      if learned is None:
        state[path] = jnp.zeros(shape, bool)
      else:
        start = learned.start(granularities.rows(jnp.asarray(leaf, jnp.float32), shape))
        trainable[path], state[path] = ({key: each.reshape(shape) for key, each in part.items()} for part in start)
    return Own(trainable, state)

  def parameters(leaf: Array, path: Path, own: Own) -> tuple[Array, Array]:
    """Scale and zero point, an entry for each block."""
    if learned is not None:
      return learned.parameters(own.trainable[path], own.state[path])
    shape = own.state[path].shape
    rows = granularities.rows(lax.stop_gradient(leaf).astype(jnp.float32), shape)
    found_scale, zero_point = grid.parameters(*scale(rows, grid))
    return found_scale.reshape(shape), zero_point.reshape(shape)

  def rounded(leaf: Array, path: Path, own: Own, key: Array | None) -> Array:
    if learned is not None:
      numbers = (own.trainable[path], own.state[path])
      count = leaf.size / jax.tree.leaves(numbers)[0].size
      wide = jax.tree.map(lambda each: spread(each, leaf.shape), numbers)
      levels, wide_scale = learned.levels(leaf, *wide, count)
    else:
      wide_scale, zero_point = (spread(each, leaf.shape) for each in parameters(leaf, path, own))
      rounding = quantizers.stochastic(rngs.fold(key, path)) if stochastic and key is not None else None
      levels = grid.levels(leaf, wide_scale, zero_point, rounding)
    return (levels * wide_scale).astype(leaf.dtype)

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    leaves = trees.flatten(variables)
    return trees.replace(variables, {path: rounded(jnp.asarray(leaves[path]), path, own, key) for path in own.state})

  def update(variables: Variables, own: Own, context: Context) -> Own:
    if learned is None:
      return own
    return own._replace(trainable={path: learned.project(numbers) for path, numbers in own.trainable.items()})

  def finalize(variables: Variables, own: Own) -> Encoded:
    leaves = trees.flatten(variables)
    stored = {}
    for path in own.state:
      leaf = jnp.asarray(leaves[path])
      found, zero_point = parameters(leaf, path, own)
      wide, wide_zero_point = (spread(each, leaf.shape) for each in (found, zero_point))
      stored[path] = grid.encode(grid.levels(leaf, wide, wide_zero_point, None), found, zero_point)
    return Encoded(stored, {})

  return transform(name, init=init, view=view, update=update, finalize=finalize)
