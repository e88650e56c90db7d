"""Dense blocks and transitions of Huang et al. 2017, arXiv:1608.06993."""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.gradients import summed_once
from lightjax.nn.layers import BatchNorm, Conv, he_fan_out


class DenseLayer(nn.Module):
  """BatchNorm, ReLU, 3x3 convolution, whose output is appended to the input's channels (equation 2).

    [x, conv2(relu(norm2(conv1(relu(norm1(x))))))]        with a bottleneck, else   [x, conv1(relu(norm1(x)))]

  Attributes:
    growth: the paper's k, new channels.
    bottleneck: output channels of a 1x1 convolution before the 3x3 one, in multiples of k; 0 for none.
    dropout: rate after the last convolution in training; needs the rng 'dropout'.
    dtype: of the computation.
  """

  growth: int
  bottleneck: int = 4
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The layer on one batch; d = c + k."""
    windows = [(self.bottleneck * self.growth, 1)] if self.bottleneck else []
    y = x = summed_once(x) if train else x
    for index, (features, window) in enumerate((*windows, (self.growth, 3)), 1):
      y = nn.relu(BatchNorm(use_running_average=not train, dtype=self.dtype, name=f'norm{index}')(y))
      y = Conv(
          features, (window, window), padding=window // 2, use_bias=False, kernel_init=he_fan_out, dtype=self.dtype,
          name=f'conv{index}')(y)
    if self.dropout:
      y = nn.Dropout(self.dropout, deterministic=not train)(y)
    return jnp.concatenate([x.astype(y.dtype), y], axis=-1)


class DenseBlock(nn.Module):
  """Dense layers one after the other, `layer0` ...; attributes of `DenseLayer`, and `layers`, how many."""

  layers: int
  growth: int
  bottleneck: int = 4
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The layers on one batch; d = c + layers * k."""
    for index in range(self.layers):
      x = DenseLayer(self.growth, self.bottleneck, self.dropout, self.dtype, name=f'layer{index}')(x, train)
    return x


class Transition(nn.Module):
  """BatchNorm, ReLU, 1x1 convolution, dropout and 2x2 average pooling between dense blocks.

  Attributes:
    features: output channels.
    dropout: rate after the convolution in training; needs the rng 'dropout'.
    dtype: of the computation.
  """

  features: int
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The transition on one batch."""
    x = nn.relu(BatchNorm(use_running_average=not train, dtype=self.dtype, name='norm')(x))
    x = Conv(self.features, (1, 1), use_bias=False, kernel_init=he_fan_out, dtype=self.dtype, name='conv')(x)
    if self.dropout:
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.avg_pool(x, (2, 2), (2, 2))
