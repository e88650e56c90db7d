"""Inception modules: the first of Szegedy et al. 2015, arXiv:1409.4842, those of version 3 of 2016, arXiv:1512.00567.

All are branches side by side whose outputs are concatenated; every convolution is a `ConvNorm` with BatchNorm epsilon
0.001 and ReLU. Branches and convolutions are named as in torchvision's Inception-v3.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import ConvNorm
from lightjax.nn.pooling import average_pool, max_pool

EPSILON = 1e-3


class InceptionV1(nn.Module):
  """1x1; 1x1 then 3x3; 1x1 then 5x5; 3x3 max pooling then 1x1 (figure 2b of the first paper).

  Attributes:
    branch1: output channels of the 1x1 convolution.
    branch2: output channels of the second branch's 1x1 and 3x3 convolutions.
    branch3: output channels of the third branch's 1x1 and second convolutions.
    branch4: output channels after the pooling.
    window3: of the third branch, 5 in the paper, 3 in torchvision and TensorFlow's reference.
    kernel_init: of all convolutions.
    dtype: of the computation.
  """

  branch1: int
  branch2: tuple[int, int]
  branch3: tuple[int, int]
  branch4: int
  window3: int = 3
  kernel_init: nn.initializers.Initializer = nn.initializers.truncated_normal(0.01)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The module on one batch."""
    conv = _conv_norm(train, self.kernel_init, self.dtype)
    first = conv(x, self.branch1, 1, 'branch1')
    second = conv(conv(x, self.branch2[0], 1, 'branch2_1'), self.branch2[1], 3, 'branch2_2')
    third = conv(conv(x, self.branch3[0], 1, 'branch3_1'), self.branch3[1], self.window3, 'branch3_2')
    pooled = conv(max_pool(x, 3, 1, padding=1), self.branch4, 1, 'branch4')
    return jnp.concatenate([first, second, third, pooled], axis=-1)


class InceptionA(nn.Module):
  """1x1; 5x5; two 3x3; average pooling (figure 5 of the second paper).

  Attributes:
    pool_features: output channels of the pooling branch.
    kernel_init: of all convolutions.
    dtype: of the computation.
  """

  pool_features: int
  kernel_init: nn.initializers.Initializer = nn.initializers.truncated_normal(0.1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The module on one batch."""
    conv = _conv_norm(train, self.kernel_init, self.dtype)
    single = conv(x, 64, 1, 'branch1x1')
    five = conv(conv(x, 48, 1, 'branch5x5_1'), 64, 5, 'branch5x5_2')
    double = conv(x, 64, 1, 'branch3x3dbl_1')
    double = conv(double, 96, 3, 'branch3x3dbl_2')
    double = conv(double, 96, 3, 'branch3x3dbl_3')
    pooled = conv(average_pool(x, 3, 1, padding=1), self.pool_features, 1, 'branch_pool')
    return jnp.concatenate([single, five, double, pooled], axis=-1)


class ReductionA(nn.Module):
  """To half the resolution, next to a max pooling: strided 3x3; 3x3 then strided 3x3 (figure 10)."""

  kernel_init: nn.initializers.Initializer = nn.initializers.truncated_normal(0.1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The module on one batch."""
    conv = _conv_norm(train, self.kernel_init, self.dtype)
    single = conv(x, 384, 3, 'branch3x3', strides=2)
    double = conv(conv(x, 64, 1, 'branch3x3dbl_1'), 96, 3, 'branch3x3dbl_2')
    double = conv(double, 96, 3, 'branch3x3dbl_3', strides=2)
    return jnp.concatenate([single, double, max_pool(x, 3, 2)], axis=-1)


class InceptionB(nn.Module):
  """1x1; a factorized 7x7; two factorized 7x7; average pooling (figure 6).

  Attributes:
    hidden: channels inside the factorized branches.
    kernel_init: of all convolutions.
    dtype: of the computation.
  """

  hidden: int
  kernel_init: nn.initializers.Initializer = nn.initializers.truncated_normal(0.1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The module on one batch."""
    conv = _conv_norm(train, self.kernel_init, self.dtype)
    across, along = (1, 7), (7, 1)
    single = conv(x, 192, 1, 'branch1x1')
    seven = conv(x, self.hidden, 1, 'branch7x7_1')
    seven = conv(seven, self.hidden, across, 'branch7x7_2')
    seven = conv(seven, 192, along, 'branch7x7_3')
    double = conv(x, self.hidden, 1, 'branch7x7dbl_1')
    double = conv(double, self.hidden, along, 'branch7x7dbl_2')
    double = conv(double, self.hidden, across, 'branch7x7dbl_3')
    double = conv(double, self.hidden, along, 'branch7x7dbl_4')
    double = conv(double, 192, across, 'branch7x7dbl_5')
    pooled = conv(average_pool(x, 3, 1, padding=1), 192, 1, 'branch_pool')
    return jnp.concatenate([single, seven, double, pooled], axis=-1)


class ReductionB(nn.Module):
  """To half the resolution, next to a max pooling: 1x1 then strided 3x3; a factorized 7x7 then strided 3x3."""

  kernel_init: nn.initializers.Initializer = nn.initializers.truncated_normal(0.1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The module on one batch."""
    conv = _conv_norm(train, self.kernel_init, self.dtype)
    single = conv(conv(x, 192, 1, 'branch3x3_1'), 320, 3, 'branch3x3_2', strides=2)
    seven = conv(x, 192, 1, 'branch7x7x3_1')
    seven = conv(seven, 192, (1, 7), 'branch7x7x3_2')
    seven = conv(seven, 192, (7, 1), 'branch7x7x3_3')
    seven = conv(seven, 192, 3, 'branch7x7x3_4', strides=2)
    return jnp.concatenate([single, seven, max_pool(x, 3, 2)], axis=-1)


class InceptionC(nn.Module):
  """1x1; 3x3 as 1x3 beside 3x1; the same after another 3x3; average pooling (figure 7)."""

  kernel_init: nn.initializers.Initializer = nn.initializers.truncated_normal(0.1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b h w d']:
    """The module on one batch."""
    conv = _conv_norm(train, self.kernel_init, self.dtype)
    single = conv(x, 320, 1, 'branch1x1')
    three = conv(x, 384, 1, 'branch3x3_1')
    double = conv(conv(x, 448, 1, 'branch3x3dbl_1'), 384, 3, 'branch3x3dbl_2')
    pooled = conv(average_pool(x, 3, 1, padding=1), 192, 1, 'branch_pool')
    return jnp.concatenate([
        single, conv(three, 384, (1, 3), 'branch3x3_2a'), conv(three, 384, (3, 1), 'branch3x3_2b'),
        conv(double, 384, (1, 3), 'branch3x3dbl_3a'), conv(double, 384, (3, 1), 'branch3x3dbl_3b'), pooled], axis=-1)


def _conv_norm(train: bool, kernel_init: nn.initializers.Initializer, dtype: Any) -> Callable[..., Array]:
  def conv(x: Array, features: int, window: int | tuple[int, int], name: str, strides: int = 1) -> Array:
    # What halves the resolution has no padding.
    padding = 'torch' if strides == 1 else 'VALID'
    return ConvNorm(
        features, window, strides, padding=padding, kernel_init=kernel_init, epsilon=EPSILON, dtype=dtype,
        name=name)(x, train)

  return conv
