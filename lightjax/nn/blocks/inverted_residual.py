"""The inverted residual with linear bottleneck of Sandler et al. 2018, arXiv:1801.04381."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import ConvNorm


class InvertedResidual(nn.Module):
  """1x1 expansion, depthwise convolution, linear 1x1 projection (table 1, figure 4d): `expand`, `depthwise`, `project`.

  The input is added where it has the output's shape. There is no `expand` where the hidden width is the input's, unless
  `always_expand`. `squeeze_excite` of the later networks acts between `depthwise` and `project` (Tan et al. 2019,
  arXiv:1807.11626, figure 7; Howard et al. 2019, arXiv:1905.02244, figure 4).

  Attributes:
    features: output channels.
    expansion: the paper's t, hidden channels a input channel.
    strides: of the depthwise convolution.
    window: of the depthwise convolution, pixels.
    hidden: hidden channels, in place of `expansion`.
    always_expand: whether there is an `expand` even from as many channels as the hidden width.
    activation: after `expand` and `depthwise`.
    squeeze_excite: makes that block, called with `dtype` and `name`, e.g. `SqueezeExcite` or a `functools.partial` of
      it; None for none.
    drop_path: probability that an example skips the block in training, where the input is added (stochastic depth,
      Huang et al. 2016, arXiv:1603.09382, with the rest scaled up); needs the rng 'dropout'.
    conv_norm: makes convolution, BatchNorm and activation; a `functools.partial` of `ConvNorm` sets padding or epsilon.
    dtype: of the computation.
  """

  features: int
  expansion: float = 1
  strides: int = 1
  window: int = 3
  hidden: int | None = None
  always_expand: bool = False
  activation: Callable[[Array], Array] = nn.relu6
  squeeze_excite: Callable[..., Any] | None = None
  drop_path: float = 0.0
  conv_norm: Callable[..., Any] = ConvNorm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    hidden = round(x.shape[-1] * self.expansion) if self.hidden is None else self.hidden
    y = x
    if hidden != x.shape[-1] or self.always_expand:
      y = self.conv_norm(hidden, 1, activation=self.activation, dtype=self.dtype, name='expand')(y, train)
    y = self.conv_norm(
        hidden, self.window, self.strides, groups=hidden, activation=self.activation, dtype=self.dtype,
        name='depthwise')(y, train)
    if self.squeeze_excite is not None:
      y = self.squeeze_excite(dtype=self.dtype, name='squeeze_excite')(y)
    y = self.conv_norm(self.features, 1, activation=None, dtype=self.dtype, name='project')(y, train)
    if x.shape != y.shape:
      return y
    if self.drop_path:
      y = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
    return x + y
