"""A run of blocks at one resolution."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float


class Stage(nn.Module):
  """Blocks one after the other, `block0` ...; the first has the stride.

  Attributes:
    block: makes one block, called with `strides` and `name`; often a `functools.partial` of the block's class.
    blocks: how many.
    strides: of the first block; the others have 1.
  """

  block: Callable[..., Any]
  blocks: int
  strides: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The blocks on one batch."""
    for index in range(self.blocks):
      x = self.block(strides=self.strides if index == 0 else 1, name=f'block{index}')(x, train)
    return x
