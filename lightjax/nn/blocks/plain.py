"""Runs of 3x3 convolutions without shortcuts, of Simonyan & Zisserman 2015, arXiv:1409.1556."""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import BatchNorm, Conv, he_fan_out


class PlainStage(nn.Module):
  """3x3 convolutions `conv1` ..., each followed by BatchNorm (`norm1` ...) if wanted, and ReLU.

  Attributes:
    features: channels of all convolutions.
    convolutions: how many.
    batch_norm: whether there is BatchNorm.
    use_bias: whether the convolutions have a bias.
    kernel_init: of the convolutions.
    dtype: of the computation.
  """

  features: int
  convolutions: int
  batch_norm: bool = False
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = he_fan_out
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The convolutions on one batch."""
    for index in range(1, self.convolutions + 1):
      x = Conv(
          self.features, (3, 3), padding=1, use_bias=self.use_bias, kernel_init=self.kernel_init, dtype=self.dtype,
          name=f'conv{index}')(x)
      if self.batch_norm:
        x = BatchNorm(use_running_average=not train, dtype=self.dtype, name=f'norm{index}')(x)
      x = nn.relu(x)
    return x
