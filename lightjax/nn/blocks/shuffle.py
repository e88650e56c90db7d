"""Channel shuffle and the units of ShuffleNet V1, arXiv:1707.01083, and V2, arXiv:1807.11164."""
from __future__ import annotations

from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import ConvNorm
from lightjax.nn.pooling import average_pool

ShuffleAfter = Literal['reduce', 'depthwise']


def channel_shuffle(x: Float[Array, '*b c'], groups: int) -> Float[Array, '*b c']:
  """Deals the channels of each group out over all groups: [g, c / g] of channels becomes [c / g, g].

  Args:
    x: any array whose last axis holds the channels.
    groups: how many groups the channels are in; divides c.
  Returns:
    The same channels in another order, in x's dtype.
  Raises:
    ValueError: `groups` does not divide c.
  Example:
    >>> channel_shuffle(jnp.arange(6), 2).tolist()
    [0, 3, 1, 4, 2, 5]

  Source: Zhang et al. 2018, arXiv:1707.01083, section 3.1.
  """
  channels = x.shape[-1]
  if channels % groups:
    raise ValueError(f'channel_shuffle: {channels} channels do not divide into {groups} groups.')
  return x.reshape(*x.shape[:-1], groups, channels // groups).swapaxes(-1, -2).reshape(x.shape)


class ShuffleUnitV1(nn.Module):
  """Grouped 1x1 reduction, channel shuffle, depthwise 3x3, grouped 1x1 expansion (figure 2b, c of Zhang et al.).

  `reduce`, `depthwise`, `expand`. At stride 1 the input is added; at stride 2 its 3x3 average is concatenated, before.

  Attributes:
    features: output channels.
    hidden: channels between `reduce` and `expand`.
    groups: of `expand`, and of `reduce` unless `reduce_groups` says otherwise.
    strides: of the depthwise convolution, 1 or 2.
    reduce_groups: of `reduce`; the first unit of the network has 1 there.
    shuffle_after: 'reduce' as in the paper or 'depthwise' as in the authors' code, the same functions up to the order
      of the hidden channels.
    dtype: of the computation.
  """

  features: int
  hidden: int
  groups: int
  strides: int = 1
  reduce_groups: int | None = None
  shuffle_after: ShuffleAfter = 'reduce'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The unit on one batch."""
    if self.shuffle_after not in get_args(ShuffleAfter):
      raise ValueError(f'ShuffleUnitV1: shuffle_after {self.shuffle_after!r} is none of {get_args(ShuffleAfter)}.')
    reduce_groups = self.groups if self.reduce_groups is None else self.reduce_groups
    features = self.features if self.strides == 1 else self.features - x.shape[-1]
    for channels, groups in ((x.shape[-1], reduce_groups), (self.hidden, self.groups), (features, self.groups)):
      if channels % groups:
        raise ValueError(
            f'ShuffleUnitV1: {channels} channels do not divide into {groups} groups; change width or groups.')
    y = ConvNorm(self.hidden, 1, groups=reduce_groups, dtype=self.dtype, name='reduce')(x, train)
    if self.shuffle_after == 'reduce':
      y = channel_shuffle(y, self.groups)
    y = ConvNorm(
        self.hidden, 3, self.strides, groups=self.hidden, activation=None, dtype=self.dtype, name='depthwise')(y, train)
    if self.shuffle_after == 'depthwise':
      y = channel_shuffle(y, self.groups)
    y = ConvNorm(features, 1, groups=self.groups, activation=None, dtype=self.dtype, name='expand')(y, train)
    if self.strides == 1:
      return nn.relu(x + y)
    return nn.relu(jnp.concatenate([average_pool(x, 3, self.strides, padding=1).astype(y.dtype), y], axis=-1))


class ShuffleUnitV2(nn.Module):
  """Half of the channels pass, half go through 1x1, depthwise 3x3, 1x1; then a shuffle (figure 3c, d of Ma et al.).

  `reduce`, `depthwise`, `expand`. At stride 2 both halves see all channels, and the first goes through
  `shortcut_depthwise` and `shortcut_pointwise`.

  Attributes:
    features: output channels, even; at stride 1 those of the input.
    strides: of the depthwise convolution, 1 or 2.
    dtype: of the computation.
  """

  features: int
  strides: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The unit on one batch."""
    if self.features % 2 or (self.strides == 1 and self.features != x.shape[-1]):
      raise ValueError(
          f'ShuffleUnitV2: {self.features} channels from {x.shape[-1]} at stride {self.strides}; they must be even, '
          'and as many as the input has at stride 1.')
    half = self.features // 2

    def depthwise(x: Array, name: str) -> Array:
      return ConvNorm(
          x.shape[-1], 3, self.strides, groups=x.shape[-1], activation=None, dtype=self.dtype, name=name)(x, train)

    def pointwise(x: Array, name: str) -> Array:
      return ConvNorm(half, 1, dtype=self.dtype, name=name)(x, train)

    if self.strides == 1:
      passed, y = jnp.split(x, 2, axis=-1)
    else:
      passed, y = pointwise(depthwise(x, 'shortcut_depthwise'), 'shortcut_pointwise'), x
    y = pointwise(depthwise(pointwise(y, 'reduce'), 'depthwise'), 'expand')
    return channel_shuffle(jnp.concatenate([passed.astype(y.dtype), y], axis=-1), 2)
