"""The CIFAR ResNets of He et al. 2016, arXiv:1512.03385, section 4.2.

  stage     output   layers            channels
  stem      32x32    3x3               16
  stage1    32x32    2n of 3x3         16
  stage2    16x16    2n of 3x3         32
  stage3    8x8      2n of 3x3         64
  head      1x1      average, dense    classes

6n + 2 weighted layers. With identity shortcuts (the paper's choice) and 10 classes:

  network      n    params       published    MACs at 32x32
  resnet8      1        75,290   -              12,239,488
  resnet20     3       269,722   0.27 M         40,551,040
  resnet32     5       464,154   0.46 M         68,862,592
  resnet44     7       658,586   0.66 M         97,174,144
  resnet56     9       853,018   0.85 M        125,485,696
  resnet110   18     1,727,962   1.7 M         252,887,680

Deviations: none in shape; 110 layers were trained with a warm-up, which is the recipe's matter.
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.blocks.residual import BasicBlock, Shortcut
from lightjax.nn.layers import ConvNorm

__all__ = ['resnet8', 'resnet20', 'resnet32', 'resnet44', 'resnet56', 'resnet110']

# Channels and stride of the three stages.
STAGES = ((16, 1), (32, 2), (64, 2))


class Stage(nn.Module):
  """A run of basic blocks, `block0` ...; the first has the stride."""

  features: int
  blocks: int
  strides: int
  shortcut: Shortcut
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The blocks one after the other."""
    for index in range(self.blocks):
      strides = self.strides if index == 0 else 1
      x = BasicBlock(self.features, strides, self.shortcut, self.dtype, name=f'block{index}')(x, train)
    return x


class ResNetCIFAR(nn.Module):
  """A CIFAR ResNet: `stem`, `stage1` to `stage3`, `classifier`; see the module's docstring.

  Attributes:
    depth: weighted layers, 6n + 2.
    classes: number of logits.
    width: multiplies all channels (10 gives 160-320-640).
    shortcut: 'identity' (option A) or 'projection' (option B), where a stage changes the shape.
    dtype: of the computation; the last layer is float32.
  """

  depth: int
  classes: int = 10
  width: float = 1
  shortcut: Shortcut = 'identity'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    blocks, rest = divmod(self.depth - 2, 6)
    if rest or blocks < 1:
      raise ValueError(f'a CIFAR ResNet has 6n + 2 layers (8, 14, 20, ...), not {self.depth}.')
    x = ConvNorm(round(16 * self.width), dtype=self.dtype, name='stem')(x, train)
    for index, (channels, strides) in enumerate(STAGES, 1):
      features = round(channels * self.width)
      x = Stage(features, blocks, strides, self.shortcut, self.dtype, name=f'stage{index}')(x, train)
    x = x.mean((1, 2), dtype=jnp.float32)
    return nn.Dense(self.classes, kernel_init=nn.initializers.he_normal(), dtype=jnp.float32, name='classifier')(x)


def resnet8(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """8 layers, one block a stage; not in the paper, a common small student and smoke-test network."""
  return ResNetCIFAR(8, classes, width, shortcut, dtype)


def resnet20(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """20 layers, 3 blocks a stage (table 6)."""
  return ResNetCIFAR(20, classes, width, shortcut, dtype)


def resnet32(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """32 layers, 5 blocks a stage (table 6)."""
  return ResNetCIFAR(32, classes, width, shortcut, dtype)


def resnet44(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """44 layers, 7 blocks a stage (table 6)."""
  return ResNetCIFAR(44, classes, width, shortcut, dtype)


def resnet56(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """56 layers, 9 blocks a stage (table 6)."""
  return ResNetCIFAR(56, classes, width, shortcut, dtype)


def resnet110(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """110 layers, 18 blocks a stage (table 6)."""
  return ResNetCIFAR(110, classes, width, shortcut, dtype)
