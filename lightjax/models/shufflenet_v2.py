"""ShuffleNetV2 of Ma et al. 2018, arXiv:1807.11164, equal to torchvision's.

  network              params      MACs at 224    published (authors' README)
  shufflenet_v2_x0_5   1,366,792     40.5 M       1.4 M, 41 M
  shufflenet_v2_x1_0   2,278,604    144.9 M       2.3 M, 146 M
  shufflenet_v2_x1_5   3,503,624    295.8 M       3.5 M, 299 M
  shufflenet_v2_x2_0   7,393,996    583.3 M       7.4 M, 591 M

With stem='cifar' and 100 classes, x1_0 is the 'ShuffleV2' of the distillation tables (Tian et al. 2020,
arXiv:1910.10699): 1,355,528 params (published 1.36 M) and 44,504,448 MACs at 32x32. Deviations from the paper: none.
"""
from __future__ import annotations

import functools
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models.torch_names import torch_name
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.shuffle import ShuffleUnitV2
from lightjax.nn.blocks.stage import Stage
from lightjax.nn.layers import ConvNorm
from lightjax.nn.pooling import max_pool

__all__ = ['shufflenet_v2_x0_5', 'shufflenet_v2_x1_0', 'shufflenet_v2_x1_5', 'shufflenet_v2_x2_0']

# Table 5: channels of the three stages and of the last 1x1 convolution; the units of each stage.
CHANNELS = {
  'x0_5': (48, 96, 192, 1024), 'x1_0': (116, 232, 464, 1024), 'x1_5': (176, 352, 704, 1024),
  'x2_0': (244, 488, 976, 2048),
}
UNITS = (4, 8, 4)
STEM_FEATURES = 24

Stem = Literal['imagenet', 'cifar', 'mnist']

# Window and stride of the stem, and stride of the pooling after it: 224x224 ends at 7x7, 32x32 and 28x28 at 4x4.
STEMS = {'imagenet': (3, 2, 2), 'cifar': (1, 1, 1), 'mnist': (3, 1, 1)}

# torchvision's names; the stages have the paper's numbers, the first is 2.
TORCHVISION = (
  (r'stem/conv', 'conv1.0'), (r'stem/norm', 'conv1.1'), (r'head/conv', 'conv5.0'), (r'head/norm', 'conv5.1'),
  (r'classifier', 'fc'),
  *((fr'stage(\d)/block(\d+)/{ours}/{leaf}', fr'stage\1.\2.{branch}.{place + after}')
    for ours, branch, place in (
      ('shortcut_depthwise', 'branch1', 0), ('shortcut_pointwise', 'branch1', 2), ('reduce', 'branch2', 0),
      ('depthwise', 'branch2', 3), ('expand', 'branch2', 5))
    for after, leaf in enumerate(('conv', 'norm'))),
)


class ShuffleNetV2(nn.Module):
  """`stem`, `stage2` to `stage4` (the paper's numbers), `head`, `classifier`; counts in the module's docstring.

  Attributes:
    channels: of the stages and of `head`.
    units: of each stage.
    classes: number of logits.
    stem: 'imagenet' (3x3, stride 2, then pooling), 'cifar' (1x1, no pooling) or 'mnist' (3x3, no pooling).
    dtype: of the computation; the last layer is float32.
  """

  channels: tuple[int, int, int, int]
  units: tuple[int, int, int] = UNITS
  classes: int = 1000
  stem: Stem = 'imagenet'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'shufflenet_v2: stem {self.stem!r} is none of {tuple(STEMS)}.')
    window, strides, pooling = STEMS[self.stem]
    x = ConvNorm(STEM_FEATURES, window, strides, dtype=self.dtype, name='stem')(x, train)
    if pooling > 1:
      x = max_pool(x, 3, pooling, padding=1)
    *stages, head = self.channels
    for index, (channels, units) in enumerate(zip(stages, self.units, strict=True), 2):
      unit = functools.partial(ShuffleUnitV2, channels, dtype=self.dtype)
      x = Stage(unit, units, 2, name=f'stage{index}')(x, train)
    x = ConvNorm(head, 1, dtype=self.dtype, name='head')(x, train)
    return classify(x, self.classes)

  def torch_name(self, module: str) -> str:
    """torchvision's name of a module."""
    return torch_name(module, TORCHVISION)


def shufflenet_v2_x0_5(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ShuffleNetV2:
  """ShuffleNetV2, 0.5 times as wide."""
  return ShuffleNetV2(CHANNELS['x0_5'], UNITS, classes, stem, dtype)


def shufflenet_v2_x1_0(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ShuffleNetV2:
  """ShuffleNetV2."""
  return ShuffleNetV2(CHANNELS['x1_0'], UNITS, classes, stem, dtype)


def shufflenet_v2_x1_5(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ShuffleNetV2:
  """ShuffleNetV2, 1.5 times as wide."""
  return ShuffleNetV2(CHANNELS['x1_5'], UNITS, classes, stem, dtype)


def shufflenet_v2_x2_0(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ShuffleNetV2:
  """ShuffleNetV2, twice as wide."""
  return ShuffleNetV2(CHANNELS['x2_0'], UNITS, classes, stem, dtype)
