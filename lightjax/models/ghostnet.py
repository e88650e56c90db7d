"""GhostNet of Han et al. 2020, arXiv:1911.11907, equal to timm's.

  width   params      MACs at 224    published, from memory (table 7)
  0.5     2,587,292     42.3 M       2.6 M, 42 M
  1.0     5,182,508    141.2 M       5.2 M, 141 M
  1.3     7,358,820    227.0 M       7.3 M, 226 M

Squeeze-excite reduces to a quarter of the hidden channels, rounded to multiples of 4, with ReLU and a hard sigmoid.
Deviations from the paper: none; the 1x1 convolution after the average has a bias and no BatchNorm, as in the authors'
code.
"""
from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models.mobile import STEMS, Stem
from lightjax.models.torch_names import torch_name
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.ghost import GhostBottleneck
from lightjax.nn.blocks.squeeze_excite import SqueezeExcite
from lightjax.nn.layers import Conv, ConvNorm, make_divisible

__all__ = ['ghostnet_050', 'ghostnet_100', 'ghostnet_130']


class Row(NamedTuple):
  """One block of the table: window, hidden channels, output channels, SE ratio (0 for none), stride."""
  window: int
  hidden: int
  features: int
  squeeze: float
  strides: int


# Table 1; a stage ends before each stride, as in the authors' code.
STAGES = (
  (Row(3, 16, 16, 0, 1),),
  (Row(3, 48, 24, 0, 2),),
  (Row(3, 72, 24, 0, 1),),
  (Row(5, 72, 40, 0.25, 2),),
  (Row(5, 120, 40, 0.25, 1),),
  (Row(3, 240, 80, 0, 2),),
  (Row(3, 200, 80, 0, 1), Row(3, 184, 80, 0, 1), Row(3, 184, 80, 0, 1), Row(3, 480, 112, 0.25, 1),
   Row(3, 672, 112, 0.25, 1)),
  (Row(5, 672, 160, 0.25, 2),),
  (Row(5, 960, 160, 0, 1), Row(5, 960, 160, 0.25, 1), Row(5, 960, 160, 0, 1), Row(5, 960, 160, 0.25, 1)),
)

# timm's names; its stages count from 0, and the last 1x1 convolution before the average is one of them.
PARTS = {
  'ghost1/primary/conv': 'ghost1.primary_conv.0', 'ghost1/primary/norm': 'ghost1.primary_conv.1',
  'ghost1/cheap/conv': 'ghost1.cheap_operation.0', 'ghost1/cheap/norm': 'ghost1.cheap_operation.1',
  'ghost2/primary/conv': 'ghost2.primary_conv.0', 'ghost2/primary/norm': 'ghost2.primary_conv.1',
  'ghost2/cheap/conv': 'ghost2.cheap_operation.0', 'ghost2/cheap/norm': 'ghost2.cheap_operation.1',
  'depthwise/conv': 'conv_dw', 'depthwise/norm': 'bn_dw',
  'squeeze_excite/reduce': 'se.conv_reduce', 'squeeze_excite/expand': 'se.conv_expand',
  'shortcut_depthwise/conv': 'shortcut.0', 'shortcut_depthwise/norm': 'shortcut.1',
  'shortcut_pointwise/conv': 'shortcut.2', 'shortcut_pointwise/norm': 'shortcut.3',
}
RULES = (
  (r'stem/conv', 'conv_stem'), (r'stem/norm', 'bn1'), (r'head/conv', f'blocks.{len(STAGES)}.0.conv'),
  (r'head/norm', f'blocks.{len(STAGES)}.0.bn1'), (r'hidden', 'conv_head'), (r'classifier', 'classifier'),
  *((fr'stage{stage}/block(\d+)/{ours}', fr'blocks.{stage - 1}.\1.{theirs}')
    for stage in range(1, len(STAGES) + 1) for ours, theirs in PARTS.items()),
)


class GhostStage(nn.Module):
  """Blocks one after the other, `block0` ..."""

  blocks: tuple[Row, ...]
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The blocks on one batch."""
    for index, (window, hidden, features, squeeze, strides) in enumerate(self.blocks):
      squeeze_excite = functools.partial(SqueezeExcite, squeeze, divisor=4, gate=nn.hard_sigmoid) if squeeze else None
      x = GhostBottleneck(
          features, hidden, strides, window, squeeze_excite, self.dtype, name=f'block{index}')(x, train)
    return x


class GhostNet(nn.Module):
  """`stem`, `stage1` to `stage9`, `head`, `hidden` (a 1x1 convolution after the average), `classifier`.

  Attributes:
    width: multiplies all channels but those of `hidden`, rounded to multiples of 4.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """

  width: float = 1.0
  classes: int = 1000
  stem: Stem = 'imagenet'
  dropout: float = 0.2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'ghostnet: stem {self.stem!r} is none of {tuple(STEMS)}.')
    stem_strides, stage2_strides = STEMS[self.stem]
    x = ConvNorm(self._scaled(16), 3, stem_strides, dtype=self.dtype, name='stem')(x, train)
    for index, rows in enumerate(STAGES, 1):
      blocks = tuple(
          row._replace(
              hidden=self._scaled(row.hidden), features=self._scaled(row.features),
              strides=min(row.strides, stage2_strides) if index == 2 else row.strides) for row in rows)
      x = GhostStage(blocks, self.dtype, name=f'stage{index}')(x, train)
    x = ConvNorm(self._scaled(STAGES[-1][-1].hidden), 1, dtype=self.dtype, name='head')(x, train)
    x = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
    x = nn.relu(Conv(1280, (1, 1), dtype=jnp.float32, name='hidden')(x))
    return classify(x, self.classes, dropout=self.dropout, train=train)

  def torch_name(self, module: str) -> str:
    """timm's name of a module."""
    return torch_name(module, RULES)

  def _scaled(self, channels: int) -> int:
    return make_divisible(channels * self.width, 4)


def ghostnet_100(
    *, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> GhostNet:
  """GhostNet; see the class for the arguments."""
  return GhostNet(width, classes, stem, dropout, dtype)


def ghostnet_050(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> GhostNet:
  """GhostNet of width 0.5; see the class for the arguments."""
  return GhostNet(0.5, classes, stem, dropout, dtype)


def ghostnet_130(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> GhostNet:
  """GhostNet of width 1.3; see the class for the arguments."""
  return GhostNet(1.3, classes, stem, dropout, dtype)
