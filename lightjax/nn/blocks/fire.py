"""The fire module of Iandola et al. 2016, arXiv:1602.07360."""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import Conv


class Fire(nn.Module):
  """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side (figure 1), ReLU after each.

    z = relu(squeeze(x));   y = [relu(expand1x1(z)), relu(expand3x3(z))]

  Attributes:
    squeeze: the paper's s_1x1, channels of z.
    expand1x1: e_1x1, output channels of the 1x1 convolution.
    expand3x3: e_3x3, output channels of the 3x3 convolution.
    dtype: of the computation.
  """

  squeeze: int
  expand1x1: int
  expand3x3: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The module on one batch."""
    del train  # nothing here differs

    def conv(features: int, window: int, name: str, x: Array) -> Array:
      return nn.relu(Conv(
          features, (window, window), padding=window // 2, kernel_init=nn.initializers.he_uniform(), dtype=self.dtype,
          name=name)(x))

    z = conv(self.squeeze, 1, 'squeeze_conv', x)
    return jnp.concatenate(
        [conv(self.expand1x1, 1, 'expand1x1_conv', z), conv(self.expand3x3, 3, 'expand3x3_conv', z)], axis=-1)
