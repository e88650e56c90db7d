"""MobileNetV2 of Sandler et al. 2018, arXiv:1801.04381, equal to torchvision's.

  width   params      MACs at 224    published
  0.35    1,677,128     59.3 M       1.66 M, 59 M
  0.5     1,968,680     97.1 M       1.95 M, 97 M
  1.0     3,504,872    300.8 M       3.4 M, 300 M
  1.4     6,108,776    582.2 M       6.9 M, 585 M

Published figures: table 4 for widths 1.0 and 1.4, the reference code's README for 0.35 and 0.5. No implementation has
the 6.9 M of width 1.4. Deviations from the paper: BatchNorm keeps 0.9 of its running statistics and dropout is 0.2,
as in torchvision; the last 1x1 convolution does not shrink below 1280 channels (the reference code, too). Small
images: see `STEMS`.
"""
from __future__ import annotations

import functools
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.blocks.inverted_residual import InvertedResidual
from lightjax.nn.layers import ConvNorm, make_divisible

__all__ = ['mobilenet_v2']

Row = tuple[int, int, int, int]

# Table 2: expansion t, channels c, repeats n, stride s.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

Stem = Literal['imagenet', 'cifar', 'mnist']

# Strides of the stem and of stage2, not in the paper for small images: 32x32 ends at 4x4, 28x28 at 2x2.
STEMS = {'imagenet': (2, 2), 'cifar': (1, 1), 'mnist': (1, 2)}


class Stage(nn.Module):
  """A run of inverted residuals, `block0` ...; the first has the stride."""

  features: int
  expansion: int
  blocks: int
  strides: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The blocks one after the other."""
    for index in range(self.blocks):
      strides = self.strides if index == 0 else 1
      x = InvertedResidual(self.features, self.expansion, strides, dtype=self.dtype, name=f'block{index}')(x, train)
    return x


class MobileNetV2(nn.Module):
  """`stem`, `stage1` to `stage7`, `head` (the last 1x1 convolution), `classifier`; counts in the module's docstring.

  Attributes:
    width: multiplies the channels of stem and stages, rounded to multiples of 8.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    stages: rows of `STAGES`.
    dtype: of the computation; the last layer is float32.
  """

  width: float = 1.0
  classes: int = 1000
  stem: Stem = 'imagenet'
  dropout: float = 0.2
  stages: tuple[Row, ...] = STAGES
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'mobilenet_v2: stem {self.stem!r} is none of {tuple(STEMS)}.')
    stem_strides, stage2_strides = STEMS[self.stem]
    conv_norm = functools.partial(ConvNorm, activation=nn.relu6, dtype=self.dtype)
    x = conv_norm(make_divisible(32 * self.width), strides=stem_strides, name='stem')(x, train)
    for index, (expansion, channels, blocks, strides) in enumerate(self.stages, 1):
      features = make_divisible(channels * self.width)
      strides = min(strides, stage2_strides) if index == 2 else strides
      x = Stage(features, expansion, blocks, strides, self.dtype, name=f'stage{index}')(x, train)
    x = conv_norm(make_divisible(1280 * max(1.0, self.width)), window=1, name='head')(x, train)
    x = x.mean((1, 2), dtype=jnp.float32)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01), dtype=jnp.float32, name='classifier')(x)


def mobilenet_v2(
    *, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2,
    stages: tuple[Row, ...] = STAGES, dtype: Any = jnp.float32,
) -> MobileNetV2:
  """MobileNetV2; see the class."""
  rows = tuple((expansion, channels, repeats, stride) for expansion, channels, repeats, stride in stages)
  return MobileNetV2(width, classes, stem, dropout, rows, dtype)
