"""The depthwise separable convolution of Howard et al. 2017, arXiv:1704.04861."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import ConvNorm


class DepthwiseSeparable(nn.Module):
  """Depthwise convolution, 1x1 convolution, each with BatchNorm and activation (figure 3): `depthwise`, `pointwise`.

  Attributes:
    features: output channels.
    strides: of the depthwise convolution.
    window: of the depthwise convolution, pixels.
    activation: after both.
    conv_norm: makes convolution, BatchNorm and activation; a `functools.partial` of `ConvNorm` sets padding or epsilon.
    dtype: of the computation.
  """

  features: int
  strides: int = 1
  window: int = 3
  activation: Callable[[Array], Array] = nn.relu
  conv_norm: Callable[..., Any] = ConvNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    channels = x.shape[-1]
    x = self.conv_norm(
        channels, self.window, self.strides, groups=channels, activation=self.activation, dtype=self.dtype,
        name='depthwise')(x, train)
    return self.conv_norm(
        self.features, 1, activation=self.activation, dtype=self.dtype, name='pointwise')(x, train)
