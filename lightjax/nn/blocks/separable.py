"""Depthwise separable convolutions without anything between, and Xception's modules of them, arXiv:1610.02357."""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import BatchNorm, Conv, ConvNorm, he_fan_out
from lightjax.nn.pooling import max_pool


class SeparableConvNorm(nn.Module):
  """3x3 depthwise convolution, 1x1 convolution, BatchNorm: `depthwise`, `pointwise`, `norm` (figure 4 of Chollet 2017).

  Attributes:
    features: output channels.
    dtype: of the computation.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The layer on one batch."""
    channels = x.shape[-1]
    x = Conv(
        channels, (3, 3), padding=1, use_bias=False, feature_group_count=channels, kernel_init=he_fan_out,
        dtype=self.dtype, name='depthwise')(x)
    x = Conv(self.features, (1, 1), use_bias=False, kernel_init=he_fan_out, dtype=self.dtype, name='pointwise')(x)
    return BatchNorm(use_running_average=not train, dtype=self.dtype, name='norm')(x)


class XceptionBlock(nn.Module):
  """ReLU before each separable convolution, max pooling at a stride, and a shortcut (figure 5 of Chollet 2017).

  `separable1` ...; where the shape changes, the shortcut is a strided 1x1 convolution with BatchNorm, `shortcut`.

  Attributes:
    features: output channels of each separable convolution.
    strides: of the pooling and the shortcut.
    starts_with_relu: whether there is a ReLU before the first convolution.
    dtype: of the computation.
  """

  features: tuple[int, ...]
  strides: int = 1
  starts_with_relu: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    y = x
    for index, features in enumerate(self.features, 1):
      y = nn.relu(y) if index > 1 or self.starts_with_relu else y
      y = SeparableConvNorm(features, self.dtype, name=f'separable{index}')(y, train)
    if self.strides > 1:
      y = max_pool(y, 3, self.strides, padding=1)
    if self.strides > 1 or x.shape[-1] != self.features[-1]:
      x = ConvNorm(
          self.features[-1], 1, self.strides, activation=None, dtype=self.dtype, name='shortcut')(x, train)
    return x + y
