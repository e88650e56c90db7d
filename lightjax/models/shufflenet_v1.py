"""ShuffleNetV1 of Zhang et al. 2018, arXiv:1707.01083.

  groups   params      MACs at 224    published (table 1)
  1        1,531,936    143.1 M       143 M
  2        1,733,848    140.8 M       140 M
  3        1,865,728    137.5 M       137 M
  4        1,968,344    134.3 M       133 M
  8        2,434,768    138.4 M       137 M

Channels between the 1x1 convolutions are a quarter of the stage's. The first 1x1 convolution has one group (section
3.3). Where the paper leaves the channels of other widths open, those of the stem are scaled like all others; the
authors' code, variant='megvii', has its own numbers there, shuffles one layer later (the same functions up to the order
of channels) and has no bias in the classifier. Published params: none in the paper.
"""
from __future__ import annotations

import functools
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.blocks.shuffle import ShuffleUnitV1
from lightjax.nn.layers import ConvNorm
from lightjax.nn.pooling import max_pool

__all__ = ['shufflenet_v1', 'shufflenet_v1_cifar']

# Table 1: channels of the three stages, by the number of groups; the units of each stage.
CHANNELS = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
UNITS = (4, 8, 4)
STEM_FEATURES = 24

# Stems of the authors' code, by groups and width; the stages are those of the paper, scaled.
MEGVII_STEMS = {(3, 0.5): 12, (3, 1.0): 24, (3, 1.5): 24, (3, 2.0): 48, (8, 0.5): 16, (8, 1.0): 24, (8, 1.5): 24,
                (8, 2.0): 48}

Stem = Literal['imagenet', 'cifar', 'mnist']
Variant = Literal['paper', 'megvii']
HiddenFrom = Literal['stage', 'added']

# Window and stride of the stem, and stride of the pooling after it: 224x224 ends at 7x7, 32x32 and 28x28 at 4x4.
STEMS = {'imagenet': (3, 2, 2), 'cifar': (1, 1, 1), 'mnist': (3, 1, 1)}


class ShuffleNetV1(nn.Module):
  """`stem`, `stage2` to `stage4` (the paper's numbers), `classifier`; counts in the module's docstring.

  Attributes:
    groups: of the 1x1 convolutions.
    channels: of the stages.
    stem_features: channels of the stem.
    units: of each stage.
    classes: number of logits.
    stem: 'imagenet' (3x3, stride 2, then pooling), 'cifar' (1x1, no pooling) or 'mnist' (3x3, no pooling).
    variant: 'paper' or 'megvii', see the module's docstring.
    hidden_from: what the channels between the 1x1 convolutions are a quarter of: the 'stage' or, in the first unit of a
      stage, only those 'added' to the concatenated input.
    dtype: of the computation; the last layer is float32.
  """

  groups: int
  channels: tuple[int, int, int]
  stem_features: int = STEM_FEATURES
  units: tuple[int, int, int] = UNITS
  classes: int = 1000
  stem: Stem = 'imagenet'
  variant: Variant = 'paper'
  hidden_from: HiddenFrom = 'stage'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    for name, choice, known in (
        ('stem', self.stem, tuple(STEMS)), ('variant', self.variant, get_args(Variant)),
        ('hidden_from', self.hidden_from, get_args(HiddenFrom))):
      if choice not in known:
        raise ValueError(f'shufflenet_v1: {name} {choice!r} is none of {known}.')
    window, strides, pooling = STEMS[self.stem]
    x = ConvNorm(self.stem_features, window, strides, dtype=self.dtype, name='stem')(x, train)
    if pooling > 1:
      x = max_pool(x, 3, pooling, padding=1)
    for index, (channels, units) in enumerate(zip(self.channels, self.units, strict=True), 2):
      x = ShuffleStage(
          channels, self.groups, units, 1 if index == 2 else self.groups, self.variant, self.hidden_from, self.dtype,
          name=f'stage{index}')(x, train)
    x = x.mean((1, 2), dtype=jnp.float32)
    return nn.Dense(self.classes, use_bias=self.variant == 'paper', dtype=jnp.float32, name='classifier')(x)

  def torch_name(self, module: str) -> str:
    """The name of a module in the authors' code."""
    if module == 'classifier':
      return 'classifier.0'
    *path, leaf = module.split('/')
    after = ('conv', 'norm').index(leaf)
    if path == ['stem']:
      return f'first_conv.{after}'
    stage, block, part = path
    place = sum(self.units[:int(stage.removeprefix('stage')) - 2]) + int(block.removeprefix('block'))
    inner = {'reduce': f'branch_main_1.{after}', 'depthwise': f'branch_main_1.{3 + after}',
             'expand': f'branch_main_2.{after}'}
    return f'features.{place}.{inner[part]}'


class ShuffleStage(nn.Module):
  """Units one after the other, `block0` ...; the first has stride 2 and `first_groups` in its first convolution."""

  features: int
  groups: int
  units: int
  first_groups: int
  variant: Variant
  hidden_from: HiddenFrom
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The units on one batch."""
    unit = functools.partial(
        ShuffleUnitV1, self.features, groups=self.groups, dtype=self.dtype,
        shuffle_after='depthwise' if self.variant == 'megvii' else 'reduce')
    first = self.features - (x.shape[-1] if self.hidden_from == 'added' else 0)
    x = unit(first // 4, strides=2, reduce_groups=self.first_groups, name='block0')(x, train)
    for index in range(1, self.units):
      x = unit(self.features // 4, name=f'block{index}')(x, train)
    return x


def shufflenet_v1(
    *, groups: int = 3, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', variant: Variant = 'paper',
    dtype: Any = jnp.float32,
) -> ShuffleNetV1:
  """ShuffleNetV1.

  Args:
    groups: of the 1x1 convolutions: 1, 2, 3, 4 or 8.
    width: multiplies all channels; they must stay divisible by `groups`.
    classes: number of logits.
    stem: 'imagenet' (3x3, stride 2, then pooling), 'cifar' (1x1, no pooling) or 'mnist' (3x3, no pooling).
    variant: 'paper' or 'megvii' (the authors' code; groups 3 and 8, widths 0.5, 1, 1.5 and 2).
    dtype: of the computation; the last layer is float32.
  Raises:
    ValueError: there are no such groups, or that width does not exist in the variant.
  """
  if groups not in CHANNELS:
    raise ValueError(f'shufflenet_v1: groups {groups} is none of {tuple(CHANNELS)}.')
  stem_features = round(STEM_FEATURES * width)
  if variant == 'megvii':
    if (groups, width) not in MEGVII_STEMS:
      raise ValueError(f"shufflenet_v1: variant 'megvii' has no groups {groups} with width {width}, only "
                       f'{sorted(MEGVII_STEMS)}.')
    stem_features = MEGVII_STEMS[groups, width]
  stage2, stage3, stage4 = (round(channels * width) for channels in CHANNELS[groups])
  return ShuffleNetV1(groups, (stage2, stage3, stage4), stem_features, UNITS, classes, stem, variant, dtype=dtype)


def shufflenet_v1_cifar(*, classes: int = 100, dtype: Any = jnp.float32) -> ShuffleNetV1:
  """The 'ShuffleV1' of the distillation tables on CIFAR-100, with RepDistiller's channels.

  949,258 params, 38,691,456 MACs at 32x32 with 100 classes (published: 0.95 M). Three groups, a 1x1 stem, and narrower
  first units. Deviations from RepDistiller: no ReLU after the depthwise convolution (as the paper), the input stands
  before what the unit adds where it is concatenated, and the first unit is shuffled, too.

  Args:
    classes: number of logits.
    dtype: of the computation; the last layer is float32.

  Source: Tian et al. 2020, arXiv:1910.10699, table 2, and its code.
  """
  return ShuffleNetV1(3, CHANNELS[3], STEM_FEATURES, UNITS, classes, 'cifar', hidden_from='added', dtype=dtype)
