"""Residual blocks made for binary convolutions, of Bi-Real Net and ReActNet, and ReActNet's learned shifts.

The blocks compute on real numbers; a transform makes the convolution's weights and its input binary. What it takes the
sign of is clipped to [-1, 1] here, which changes no sign, is where the gradients of signs end, and makes the block
without a transform the real network that Bi-Real Net starts from.
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import BatchNorm, Conv, he_fan_out


class LearnedShift(nn.Module):
  """x + shift, a number a channel: before a sign it makes ReActNet's RSign, sign(x - a) with a = -shift.

  Source: Liu et al. 2020, arXiv:2003.03488.
  """

  @nn.compact
  def __call__(self, x: Float[Array, '*b c']) -> Float[Array, '*b c']:
    """The input, shifted."""
    return x + self.param('shift', nn.initializers.zeros, x.shape[-1:]).astype(x.dtype)


class RPReLU(nn.Module):
  """PReLU whose corner is shifted: x - gamma + zeta where x > gamma, slope * (x - gamma) + zeta elsewhere.

  Source: Liu et al. 2020, arXiv:2003.03488; the slope starts at 0.25 as in PReLU.
  """

  @nn.compact
  def __call__(self, x: Float[Array, '*b c']) -> Float[Array, '*b c']:
    """The activation, channel by channel."""
    shape = x.shape[-1:]
    gamma = self.param('gamma', nn.initializers.zeros, shape).astype(x.dtype)
    zeta = self.param('zeta', nn.initializers.zeros, shape).astype(x.dtype)
    slope = self.param('slope', nn.initializers.constant(0.25), shape).astype(x.dtype)
    shifted = x - gamma
    return jnp.where(shifted > 0, shifted, slope * shifted) + zeta


class BinaryBlock(nn.Module):
  """One 3x3 convolution with a shortcut of its own, so that real numbers pass every binary layer by.

    y = norm(conv(clip(x))) + shortcut(x);   with `learned`: y = rprelu(norm(conv(clip(shift(x)))) + shortcut(x))

  Where the shape changes the shortcut is a 2x2 average, a real 1x1 convolution and BatchNorm.

  Attributes:
    features: output channels.
    strides: of the convolution and the average.
    learned: whether there are learned shifts before the sign and in the activation (ReActNet).
    dtype: of the computation.
  Source: Liu et al. 2018, arXiv:1808.00278 (Bi-Real Net); Liu et al. 2020, arXiv:2003.03488 (ReActNet).
  """

  features: int
  strides: int = 1
  learned: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    def conv(name: str, window: int, strides: int) -> Conv:
      return Conv(
          self.features, (window, window), strides=strides, padding=window // 2, use_bias=False,
          kernel_init=he_fan_out, dtype=self.dtype, name=name)

    def norm(name: str) -> BatchNorm:
      return BatchNorm(use_running_average=not train, dtype=self.dtype, name=name)

    y = LearnedShift(name='shift')(x) if self.learned else x
    y = norm('norm')(conv('conv', 3, self.strides)(nn.hard_tanh(y)))
    shortcut = x
    if self.strides != 1:
      # Odd sizes end with a half window, of which the mean is taken.
      shortcut = nn.avg_pool(x, (2, 2), (self.strides,) * 2, padding='SAME', count_include_pad=False)
    if shortcut.shape[1:] != y.shape[1:]:
      shortcut = norm('shortcut_norm')(conv('shortcut_conv', 1, 1)(shortcut))
    y = y + shortcut
    return RPReLU(name='activation')(y) if self.learned else y
