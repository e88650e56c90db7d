"""RepVGG of Ding et al. 2021, arXiv:2101.03697, equal to timm's.

              training                       deployed, see `reparameterized.merge`
  network     params        MACs at 224      params        MACs         published, from memory (table 4)
  repvgg_a0    9,108,968    1,512.6 M         8,309,384    1,361.5 M    8.30 M, 1.4 G
  repvgg_a1   14,092,264    2,626.5 M        12,789,864    2,364.0 M    12.78 M, 2.4 G
  repvgg_a2   28,210,600    5,685.3 M        25,499,944    5,117.0 M    25.49 M, 5.1 G
  repvgg_b0   15,817,960    3,397.2 M        14,339,048    3,057.6 M    14.33 M, 3.1 G

Deviations from the paper: none.
"""
from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models.mobile import STEMS, Stem
from lightjax.models.torch_names import torch_name
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.reparameterized import ReparameterizedConv
from lightjax.nn.blocks.stage import Stage

__all__ = ['repvgg_a0', 'repvgg_a1', 'repvgg_a2', 'repvgg_b0']

# Table 2: channels of the stages after the stem, before the multipliers; all have stride 2.
CHANNELS = (64, 128, 256, 512)
BLOCKS_A = (2, 4, 14, 1)
BLOCKS_B = (4, 6, 16, 1)

# timm's names; its stages count from 0.
BRANCHES = {
  'branch0/conv': 'conv_kxk.conv', 'branch0/norm': 'conv_kxk.bn', 'branch_1x1/conv': 'conv_1x1.conv',
  'branch_1x1/norm': 'conv_1x1.bn', 'identity': 'identity', 'conv': 'reparam_conv',
}
RULES = (
  *((fr'stem/{ours}', f'stem.{theirs}') for ours, theirs in BRANCHES.items()),
  *((fr'stage{stage}/block(\d+)/{ours}', fr'stages.{stage - 1}.\1.{theirs}')
    for stage in range(1, len(CHANNELS) + 1) for ours, theirs in BRANCHES.items()),
  ('classifier', 'head.fc'),
)


class RepVGG(nn.Module):
  """`stem`, `stage1` to `stage4`, `classifier`; counts in the module's docstring.

  Attributes:
    blocks: of each stage.
    widths: multiply the channels of each stage; the stem has those of the first, at most 64.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`; they change stem and stage1.
    deployed: whether the branches are one convolution.
    dtype: of the computation; the last layer is float32.
  """

  blocks: tuple[int, int, int, int] = BLOCKS_A
  widths: tuple[float, float, float, float] = (1, 1, 1, 2.5)
  classes: int = 1000
  stem: Stem = 'imagenet'
  deployed: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'repvgg: stem {self.stem!r} is none of {tuple(STEMS)}.')
    stem_strides, stage1_strides = STEMS[self.stem]
    conv = functools.partial(ReparameterizedConv, deployed=self.deployed, dtype=self.dtype)
    x = conv(min(64, int(64 * self.widths[0])), strides=stem_strides, name='stem')(x, train)
    for index, (channels, width, blocks) in enumerate(zip(CHANNELS, self.widths, self.blocks, strict=True), 1):
      block = functools.partial(conv, int(channels * width))
      x = Stage(block, blocks, stage1_strides if index == 1 else 2, name=f'stage{index}')(x, train)
    return classify(x, self.classes)

  def torch_name(self, module: str) -> str:
    """timm's name of a module."""
    return torch_name(module, RULES)


def repvgg_a0(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> RepVGG:
  """RepVGG-A0; see the class for the arguments."""
  return RepVGG(BLOCKS_A, (0.75, 0.75, 0.75, 2.5), classes, stem, deployed, dtype)


def repvgg_a1(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> RepVGG:
  """RepVGG-A1; see the class for the arguments."""
  return RepVGG(BLOCKS_A, (1, 1, 1, 2.5), classes, stem, deployed, dtype)


def repvgg_a2(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> RepVGG:
  """RepVGG-A2; see the class for the arguments."""
  return RepVGG(BLOCKS_A, (1.5, 1.5, 1.5, 2.75), classes, stem, deployed, dtype)


def repvgg_b0(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> RepVGG:
  """RepVGG-B0; see the class for the arguments."""
  return RepVGG(BLOCKS_B, (1, 1, 1, 2.5), classes, stem, deployed, dtype)
