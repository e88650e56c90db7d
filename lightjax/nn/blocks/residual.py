"""Residual blocks of He et al. 2016, arXiv:1512.03385."""
from __future__ import annotations

from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import BatchNorm, Conv, he_fan_out

Shortcut = Literal['identity', 'projection']


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut, ReLU after the sum (figure 2 and section 3.3).

    y = relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))

  Where the shape changes, the shortcut is one of
  - 'identity' (the paper's option A): every `strides`-th pixel, new channels zero, no parameters;
  - 'projection' (option B): a strided 1x1 convolution and BatchNorm, `shortcut_conv` and `shortcut_norm`.

  Attributes:
    features: output channels.
    strides: of the first convolution and the shortcut.
    shortcut: 'identity' or 'projection'.
    dtype: of the computation.
  """

  features: int
  strides: int = 1
  shortcut: Shortcut = 'identity'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    if self.shortcut not in get_args(Shortcut):
      raise ValueError(f'BasicBlock: shortcut {self.shortcut!r} is none of {get_args(Shortcut)}.')

    def conv(window: int, strides: int, name: str) -> Conv:
      return Conv(
          self.features, (window, window), strides=strides, padding=window // 2, use_bias=False, kernel_init=he_fan_out,
          dtype=self.dtype, name=name)

    def norm(name: str) -> BatchNorm:
      return BatchNorm(use_running_average=not train, dtype=self.dtype, name=name)

    y = nn.relu(norm('norm1')(conv(3, self.strides, 'conv1')(x)))
    y = norm('norm2')(conv(3, 1, 'conv2')(y))
    if self.strides != 1 or x.shape[-1] != self.features:
      if self.shortcut == 'projection':
        x = norm('shortcut_norm')(conv(1, self.strides, 'shortcut_conv')(x))
      else:
        x = subsample_and_pad(x, strides=self.strides, features=self.features).astype(y.dtype)
    return nn.relu(y + x)


def subsample_and_pad(x: Float[Array, 'b h w c'], *, strides: int, features: int) -> Float[Array, 'b ho wo d']:
  """The shortcut without parameters: every `strides`-th pixel, zeros appended as channels c to `features`.

  Args:
    x: input.
    strides: pixels.
    features: output channels, not fewer than c.
  Returns:
    Output in x's dtype.
  Raises:
    ValueError: `features` is less than c.
  Source: option A of He et al. 2016, section 4.1; the paper does not say where the zeros go.
  """
  added = features - x.shape[-1]
  if added < 0:
    raise ValueError(f'an identity shortcut cannot go from {x.shape[-1]} to {features} channels: use a projection.')
  return jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (0, added)))
