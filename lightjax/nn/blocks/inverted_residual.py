"""The inverted residual with linear bottleneck of Sandler et al. 2018, arXiv:1801.04381."""
from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import ConvNorm


class InvertedResidual(nn.Module):
  """1x1 expansion, depthwise convolution, linear 1x1 projection (table 1, figure 4d): `expand`, `depthwise`, `project`.

  The input is added where it has the output's shape. At `expansion` 1 there is no `expand`.

  Attributes:
    features: output channels.
    expansion: the paper's t, hidden channels a input channel.
    strides: of the depthwise convolution.
    window: of the depthwise convolution, pixels.
    dtype: of the computation.
  """

  features: int
  expansion: float
  strides: int = 1
  window: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    hidden = round(x.shape[-1] * self.expansion)
    conv_norm = functools.partial(ConvNorm, activation=nn.relu6, dtype=self.dtype)
    y = x
    if self.expansion != 1:
      y = conv_norm(hidden, 1, name='expand')(y, train)
    y = conv_norm(hidden, self.window, self.strides, groups=hidden, name='depthwise')(y, train)
    y = conv_norm(self.features, 1, activation=None, name='project')(y, train)
    return x + y if x.shape == y.shape else y
