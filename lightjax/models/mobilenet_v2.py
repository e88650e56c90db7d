"""MobileNetV2 of Sandler et al. 2018, arXiv:1801.04381, equal to torchvision's.

  width   params      MACs at 224    published
  0.35    1,677,128     59.3 M       1.66 M, 59 M
  0.5     1,968,680     97.1 M       1.95 M, 97 M
  0.75    2,636,424    209.1 M       2.61 M, 209 M
  1.0     3,504,872    300.8 M       3.4 M, 300 M
  1.3     5,386,792    509.4 M       5.34 M, 509 M
  1.4     6,108,776    582.2 M       6.9 M, 585 M

Published figures: table 4 for widths 1.0 and 1.4, the reference code's README for the others. No implementation has the
6.9 M of width 1.4. Deviations from the paper: BatchNorm keeps 0.9 of its running statistics and dropout is 0.2,
as in torchvision; the last 1x1 convolution does not shrink below 1280 channels (the reference code, too). Small
images: see `mobile.STEMS`, and `mobile_half`.
"""
from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from lightjax.models.mobile import MobileNetwork, Row, Stem

__all__ = ['mobile_half', 'mobilenet_v2']

# Table 2: expansion t, channels c, repeats n, stride s.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
HALF_STAGES = (*STAGES[:1], (6, 24, 2, 1), *STAGES[2:])


class MobileNetV2(MobileNetwork):
  """Stages of `STAGES`; counts in the module's docstring."""

  family: ClassVar[str] = 'mobilenet_v2'

  def torch_name(self, module: str) -> str:
    """torchvision's name of a module."""
    if module == 'classifier':
      return 'classifier.1'
    counts = [len(blocks) for blocks in self.blocks()]
    if not module.startswith('stage'):
      layer, leaf = module.split('/')
      return f'features.{0 if layer == "stem" else 1 + sum(counts)}.{("conv", "norm").index(leaf)}'
    stage, block, part, leaf = self.located(module)
    parts = ['expand', 'depthwise', 'project'][not self.expands(self.blocks()[stage][block]):]
    place, place_in_layer = parts.index(part), ('conv', 'norm').index(leaf)
    # Convolution and norm are a module of their own but for the last, which has no activation.
    inner = f'{place + place_in_layer}' if part == 'project' else f'{place}.{place_in_layer}'
    return f'features.{1 + sum(counts[:stage]) + block}.conv.{inner}'


class MobileHalf(MobileNetwork):
  """`mobile_half`, see there."""

  family: ClassVar[str] = 'mobile_half'

  def torch_name(self, module: str) -> str:
    """RepDistiller's name of a module."""
    if module == 'classifier':
      return 'classifier.0'
    *_, leaf = module.split('/')
    if not module.startswith('stage'):
      return f'{"conv1" if module.startswith("stem") else "conv2"}.{("conv", "norm").index(leaf)}'
    stage, block, part, _ = self.located(module)
    # Convolution, norm and activation each count.
    place = 3 * ('expand', 'depthwise', 'project').index(part) + ('conv', 'norm').index(leaf)
    return f'blocks.{stage}.{block}.conv.{place}'


def mobilenet_v2(
    *, width: float = 1.0, depth: float = 1.0, fixed_ends: bool = False, classes: int = 1000, stem: Stem = 'imagenet',
    dropout: float = 0.2, stages: tuple[tuple[int, int, int, int], ...] = STAGES, padding: str = 'torch',
    epsilon: float = 1e-5, dtype: Any = jnp.float32,
) -> MobileNetV2:
  """MobileNetV2.

  Args:
    width: multiplies the channels of stem and stages, rounded to multiples of 8.
    depth: multiplies the blocks of each stage, rounded up.
    fixed_ends: whether `width` leaves stem and head and `depth` the first and the last stage alone, as in timm's
      mobilenetv2_110d (width 1.1, depth 1.2) and mobilenetv2_120d (1.2, 1.4).
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    stages: rows of `STAGES`.
    padding: 'torch', or 'SAME' as in TensorFlow and Keras, see `ConvNorm`.
    epsilon: of BatchNorm; 1e-3 in TensorFlow and Keras.
    dtype: of the computation; the last layer is float32.
  """
  rows = tuple((Row(expansion, 3, channels, repeats, stride),) for expansion, channels, repeats, stride in stages)
  fixed = ('stem', 'head') if fixed_ends else ('head',) if width < 1 else ()
  return MobileNetV2(
      rows, width, depth, classes, stem, dropout, fixed=fixed, fixed_ends=fixed_ends, padding=padding,
      epsilon=epsilon, dtype=dtype)


def mobile_half(*, width: float = 0.5, classes: int = 100, dtype: Any = jnp.float32) -> MobileHalf:
  """The small 'MobileNetV2' of the distillation tables on CIFAR-100, equal to RepDistiller's.

  812,836 params, 6,523,648 MACs at 32x32 with 100 classes (published: 0.81 M). Not the paper's: stride 2 in the stem
  and 1 in stage2, a 1x1 expansion even at expansion 1, ReLU in place of ReLU6, channels not rounded to multiples of 8,
  no dropout.

  Args:
    width: multiplies the channels of stem and stages.
    classes: number of logits.
    dtype: of the computation; the last layer is float32.

  Source: Tian et al. 2020, arXiv:1910.10699, table 2, and its code.
  """
  rows = tuple((Row(expansion, 3, channels, repeats, stride),) for expansion, channels, repeats, stride in HALF_STAGES)
  return MobileHalf(
      rows, width, classes=classes, dropout=0.0, fixed=('head',) if width < 1 else (), activation='relu',
      always_expand=True, divisor=1, dtype=dtype)
