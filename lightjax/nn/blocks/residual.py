"""Residual blocks of He et al. 2016, arXiv:1512.03385, and their pre-activated forms of arXiv:1603.05027."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import BatchNorm, Conv, he_fan_out

Shortcut = Literal['identity', 'centered', 'projection']
StridesOn = Literal['conv1', 'conv2']


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut, ReLU after the sum (figure 2 and section 3.3).

    y = relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))

  Where the shape changes, the shortcut is one of
  - 'identity' (the paper's option A): every `strides`-th pixel, new channels zero, no parameters;
  - 'centered': the same with half of the zeros before the channels and half after them;
  - 'projection' (option B): a strided 1x1 convolution and BatchNorm, `shortcut_conv` and `shortcut_norm`.

  Attributes:
    features: output channels.
    strides: of the first convolution and the shortcut.
    shortcut: 'identity', 'centered' or 'projection'.
    dtype: of the computation.
  """

  features: int
  strides: int = 1
  shortcut: Shortcut = 'identity'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    conv, norm = _layers(self.dtype, train)
    y = nn.relu(norm('norm1')(conv('conv1', self.features, 3, self.strides)(x)))
    y = norm('norm2')(conv('conv2', self.features, 3)(y))
    return nn.relu(y + (_shortcut(self, x, conv, norm) if _changes_shape(self, x) else x))


class Bottleneck(nn.Module):
  """A 1x1, a 3x3 and a 1x1 convolution and a shortcut, ReLU after the sum (figure 5).

    y = relu(norm3(conv3(relu(norm2(conv2(relu(norm1(conv1(x))))))) + shortcut(x))

  Attributes:
    features: output channels.
    strides: of one convolution and the shortcut.
    hidden: channels of the 3x3 convolution, a quarter of `features` by default; twice that in Wide ResNets of
      Zagoruyko & Komodakis 2016, arXiv:1605.07146.
    groups: of the 3x3 convolution (ResNeXt of Xie et al. 2017, arXiv:1611.05431).
    strides_on: 'conv1' (the paper, 'v1') or 'conv2' (most implementations, 'v1.5').
    shortcut: where the shape changes, as in `BasicBlock`.
    dtype: of the computation.
  """

  features: int
  strides: int = 1
  hidden: int | None = None
  groups: int = 1
  strides_on: StridesOn = 'conv2'
  shortcut: Shortcut = 'projection'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    if self.strides_on not in get_args(StridesOn):
      raise ValueError(f'Bottleneck: strides_on {self.strides_on!r} is none of {get_args(StridesOn)}.')
    first, second = (self.strides, 1) if self.strides_on == 'conv1' else (1, self.strides)
    hidden = self.hidden or self.features // 4
    conv, norm = _layers(self.dtype, train)
    y = nn.relu(norm('norm1')(conv('conv1', hidden, 1, first)(x)))
    y = nn.relu(norm('norm2')(conv('conv2', hidden, 3, second, self.groups)(y)))
    y = norm('norm3')(conv('conv3', self.features, 1)(y))
    return nn.relu(y + (_shortcut(self, x, conv, norm) if _changes_shape(self, x) else x))


class PreActBlock(nn.Module):
  """BatchNorm and an activation before each of two 3x3 convolutions (figure 1b of He et al. 2016b).

    z = activation(norm1(x));   y = conv2(dropout(activation(norm2(conv1(z))))) + shortcut

  The shortcut is x where it has y's shape; otherwise of z, a 1x1 convolution without norm or one of the shortcuts
  without parameters.

  Attributes:
    features: output channels.
    strides: of the first convolution and the shortcut.
    dropout: rate between the convolutions in training, needs the rng 'dropout' (Wide ResNets).
    shortcut: where the shape changes, as in `BasicBlock`.
    dtype: of the computation.
    activation: ReLU in the paper; one that keeps the sign where the convolutions have binary inputs.
  """

  features: int
  strides: int = 1
  dropout: float = 0.0
  shortcut: Shortcut = 'projection'
  dtype: Any = jnp.float32
  activation: Callable[[Array], Array] = nn.relu

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    conv, norm = _layers(self.dtype, train)
    z = self.activation(norm('norm1')(x))
    y = self.activation(norm('norm2')(conv('conv1', self.features, 3, self.strides)(z)))
    if self.dropout:
      y = nn.Dropout(self.dropout, deterministic=not train)(y)
    y = conv('conv2', self.features, 3)(y)
    return y + (_shortcut(self, z, conv) if _changes_shape(self, x) else x)


class PreActBottleneck(nn.Module):
  """BatchNorm and ReLU before each of a 1x1, a 3x3 and a 1x1 convolution; shortcut as in `PreActBlock`.

    z = relu(norm1(x));   y = conv3(relu(norm3(conv2(relu(norm2(conv1(z))))))) + shortcut

  Attributes:
    features: output channels.
    strides: of the 3x3 convolution and the shortcut.
    hidden: channels of the 3x3 convolution, a quarter of `features` by default.
    shortcut: where the shape changes, as in `BasicBlock`.
    dtype: of the computation.
  """

  features: int
  strides: int = 1
  hidden: int | None = None
  shortcut: Shortcut = 'projection'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    conv, norm = _layers(self.dtype, train)
    hidden = self.hidden or self.features // 4
    z = nn.relu(norm('norm1')(x))
    y = nn.relu(norm('norm2')(conv('conv1', hidden, 1)(z)))
    y = nn.relu(norm('norm3')(conv('conv2', hidden, 3, self.strides)(y)))
    y = conv('conv3', self.features, 1)(y)
    return y + (_shortcut(self, z, conv) if _changes_shape(self, x) else x)


def subsample_and_pad(
    x: Float[Array, 'b h w c'], *, strides: int, features: int, before: int = 0,
) -> Float[Array, 'b ho wo d']:
  """The shortcut without parameters: every `strides`-th pixel, zeros as new channels up to `features`.

  Args:
    x: input.
    strides: pixels.
    features: output channels, not fewer than c.
    before: how many of the zeros stand before x's channels; the others are appended.
  Returns:
    Output in x's dtype.
  Raises:
    ValueError: `features` is less than c.
  Source: option A of He et al. 2016, section 4.1; the paper does not say where the zeros go.
  """
  added = features - x.shape[-1]
  if added < 0:
    raise ValueError(f'an identity shortcut cannot go from {x.shape[-1]} to {features} channels: use a projection.')
  return jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (before, added - before)))


def _layers(dtype: Any, train: bool) -> tuple[Callable[..., Conv], Callable[[str], BatchNorm]]:
  def conv(name: str, features: int, window: int, strides: int = 1, groups: int = 1) -> Conv:
    return Conv(
        features, (window, window), strides=strides, padding=window // 2, use_bias=False, feature_group_count=groups,
        kernel_init=he_fan_out, dtype=dtype, name=name)

  def norm(name: str) -> BatchNorm:
    return BatchNorm(use_running_average=not train, dtype=dtype, name=name)

  return conv, norm


def _changes_shape(block: Any, x: Array) -> bool:
  if block.shortcut not in get_args(Shortcut):
    raise ValueError(f'{type(block).__name__}: shortcut {block.shortcut!r} is none of {get_args(Shortcut)}.')
  return block.strides != 1 or x.shape[-1] != block.features


def _shortcut(
    block: Any, x: Array, conv: Callable[..., Conv], norm: Callable[[str], BatchNorm] | None = None,
) -> Array:
  if block.shortcut == 'projection':
    y = conv('shortcut_conv', block.features, 1, block.strides)(x)
    return y if norm is None else norm('shortcut_norm')(y)
  before = (block.features - x.shape[-1]) // 2 if block.shortcut == 'centered' else 0
  return subsample_and_pad(x, strides=block.strides, features=block.features, before=before).astype(block.dtype)
