"""The X and Y blocks of Radosavovic et al. 2020, arXiv:2003.13678."""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.blocks.squeeze_excite import SqueezeExcite
from lightjax.nn.layers import ConvNorm


class RegNetBlock(nn.Module):
  """A residual bottleneck of constant width with a grouped 3x3 convolution (figure 4; section 5 for the Y block).

    y = relu(conv3(se(conv2(conv1(x)))) + shortcut(x))

  Each convolution is a `ConvNorm`; `shortcut` is a strided 1x1 one where the shape changes.

  Attributes:
    features: channels of all convolutions.
    group_width: the paper's g, channels of a group.
    strides: of the 3x3 convolution and the shortcut.
    se_ratio: channels of the squeeze-and-excitation for one of the block's input (the Y block); 0 for none (X).
    dtype: of the computation.
  """

  features: int
  group_width: int
  strides: int = 1
  se_ratio: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    if self.features % self.group_width:
      raise ValueError(f'RegNetBlock: {self.features} channels are no multiple of the group width {self.group_width}.')
    groups = self.features // self.group_width
    y = ConvNorm(self.features, 1, dtype=self.dtype, name='conv1')(x, train)
    y = ConvNorm(self.features, 3, self.strides, groups, dtype=self.dtype, name='conv2')(y, train)
    if self.se_ratio:
      y = SqueezeExcite(self.se_ratio, x.shape[-1], dtype=self.dtype, name='se')(y)
    y = ConvNorm(self.features, 1, activation=None, dtype=self.dtype, name='conv3')(y, train)
    if self.strides != 1 or x.shape[-1] != self.features:
      x = ConvNorm(self.features, 1, self.strides, activation=None, dtype=self.dtype, name='shortcut')(x, train)
    return nn.relu(x + y)
