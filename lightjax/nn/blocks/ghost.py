"""The Ghost module and bottleneck of Han et al. 2020, arXiv:1911.11907."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import ConvNorm


class GhostModule(nn.Module):
  """Half of the channels by a convolution, `primary`, half from those by a depthwise one, `cheap` (figure 2b).

    y1 = primary(x)
    y = [y1, cheap(y1)], the first `features` channels

  Attributes:
    features: output channels.
    ratio: the paper's s, output channels a channel of `primary`.
    window: of `primary`, pixels.
    cheap_window: of `cheap`, the paper's d, pixels.
    strides: of `primary`.
    activation: after both; None for a linear output.
    dtype: of the computation.
  """

  features: int
  ratio: int = 2
  window: int = 1
  cheap_window: int = 3
  strides: int = 1
  activation: Callable[[Array], Array] | None = nn.relu
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The module on one batch."""
    primary = -(-self.features // self.ratio)
    x = ConvNorm(
        primary, self.window, self.strides, activation=self.activation, dtype=self.dtype, name='primary')(x, train)
    ghosts = ConvNorm(
        primary * (self.ratio - 1), self.cheap_window, groups=primary, activation=self.activation, dtype=self.dtype,
        name='cheap')(x, train)
    return jnp.concatenate([x, ghosts], axis=-1)[..., :self.features]


class GhostBottleneck(nn.Module):
  """Two Ghost modules with a shortcut (figure 3): `ghost1`, `depthwise` at a stride, `squeeze_excite`, `ghost2`.

  Where the shape changes, the shortcut is a depthwise and a 1x1 convolution, `shortcut_depthwise` and
  `shortcut_pointwise`.

  Attributes:
    features: output channels.
    hidden: channels between the Ghost modules.
    strides: of `depthwise`.
    window: of the depthwise convolutions, pixels.
    squeeze_excite: makes that block, called with `dtype` and `name`; None for none.
    dtype: of the computation.
  """

  features: int
  hidden: int
  strides: int = 1
  window: int = 3
  squeeze_excite: Callable[..., Any] | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""

    def linear(features: int, window: int, strides: int, groups: int, name: str) -> ConvNorm:
      return ConvNorm(features, window, strides, groups, activation=None, dtype=self.dtype, name=name)

    channels = x.shape[-1]
    y = GhostModule(self.hidden, dtype=self.dtype, name='ghost1')(x, train)
    if self.strides > 1:
      y = linear(self.hidden, self.window, self.strides, self.hidden, 'depthwise')(y, train)
    if self.squeeze_excite is not None:
      y = self.squeeze_excite(dtype=self.dtype, name='squeeze_excite')(y)
    y = GhostModule(self.features, activation=None, dtype=self.dtype, name='ghost2')(y, train)
    if x.shape != y.shape:
      x = linear(channels, self.window, self.strides, channels, 'shortcut_depthwise')(x, train)
      x = linear(self.features, 1, 1, 1, 'shortcut_pointwise')(x, train)
    return x + y
