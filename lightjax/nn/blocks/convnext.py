"""The block of Liu et al. 2022, arXiv:2201.03545."""
from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import Conv

Pointwise = Literal['dense', 'conv']

EPSILON = 1e-6
# LayerNorm over the channels; the variance is computed as such, not as a difference of moments.
layer_norm = functools.partial(nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False)
init = nn.initializers.truncated_normal(0.02)


class ConvNeXtBlock(nn.Module):
  """7x7 depthwise convolution, LayerNorm, four times the channels and back, layer scale, shortcut (figure 4).

    y = x + drop(layer_scale * project(gelu(expand(norm(depthwise(x))))))

  Attributes:
    expansion: channels between `expand` and `project` for one of x.
    layer_scale: start of the trained scale of each channel; None for no scale.
    stochastic_depth: rate at which an example takes the shortcut alone, in training; needs the rng 'dropout'.
    pointwise: whether `expand` and `project` are dense layers or 1x1 convolutions, which compute the same.
    dtype: of the computation.
  """

  expansion: int = 4
  layer_scale: float | None = 1e-6
  stochastic_depth: float = 0.0
  pointwise: Pointwise = 'dense'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w c']:
    """The block on one batch."""
    if self.pointwise not in get_args(Pointwise):
      raise ValueError(f'ConvNeXtBlock: pointwise {self.pointwise!r} is none of {get_args(Pointwise)}.')
    channels = x.shape[-1]

    def pointwise(features: int, name: str) -> nn.Module:
      if self.pointwise == 'conv':
        return Conv(features, (1, 1), kernel_init=init, dtype=self.dtype, name=name)
      return nn.Dense(features, kernel_init=init, dtype=self.dtype, name=name)

    y = Conv(
        channels, (7, 7), padding=3, feature_group_count=channels, kernel_init=init, dtype=self.dtype,
        name='depthwise')(x)
    y = layer_norm(dtype=self.dtype, name='norm')(y)
    y = nn.gelu(pointwise(self.expansion * channels, 'expand')(y), approximate=False)
    y = pointwise(channels, 'project')(y)
    if self.layer_scale is not None:
      scale = self.param('layer_scale', nn.initializers.constant(self.layer_scale), (channels,))
      y = y * scale.astype(y.dtype)
    if self.stochastic_depth:
      # One draw an example, that is dropout of whole residuals.
      y = nn.Dropout(self.stochastic_depth, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
    return x + y
