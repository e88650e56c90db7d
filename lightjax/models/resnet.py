"""The ImageNet ResNets of He et al. 2016, arXiv:1512.03385, table 1, equal to torchvision's, and their wider kin.

  network               params         MACs at 224       MACs of 'v1'     published MACs
  resnet18              11,689,512     1,814,073,344     -                1.8 G
  resnet34              21,797,672     3,663,761,408     -                3.6 G
  resnet50              25,557,032     4,089,184,256     3,857,973,248    3.8 G
  resnet101             44,549,160     7,801,405,440     7,570,194,432    7.6 G
  resnet152             60,192,808    11,513,626,624    11,282,415,616    11.3 G
  wide_resnet50_2       68,883,240    11,398,021,120     -                -
  wide_resnet101_2     126,886,696    22,753,050,624     -                -

Like torchvision, the bottlenecks have their stride on the 3x3 convolution ('v1.5'); `variant='v1'` puts it on the
first 1x1 convolution as the paper does, with the paper's MACs. Deviation from the paper: ResNet-18 and -34 have
projections where the shape changes (its option B; table 2 has option A). Wide ResNets: Zagoruyko & Komodakis 2016,
arXiv:1605.07146, section 3.4; ResNeXts: Xie et al. 2017, arXiv:1611.05431. Small images: see `STEMS`.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.residual import BasicBlock, Bottleneck, StridesOn
from lightjax.nn.blocks.stage import Stage
from lightjax.nn.layers import ConvNorm
from lightjax.nn.pooling import max_pool

__all__ = [
  'resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'resnext50_32x4d', 'resnext101_32x8d',
  'wide_resnet50_2', 'wide_resnet101_2',
]

Blocks = tuple[int, int, int, int]
Stem = Literal['imagenet', 'cifar', 'mnist']
Variant = Literal['v1', 'v1.5']

# Channels of the 3x3 convolutions and stride, stages 1 to 4 (conv2_x to conv5_x in table 1).
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
# Output channels of a bottleneck for one of the above.
EXPANSION = 4

# Window and stride of the stem, stride of the pooling after it; not in the paper for small images: 224x224 ends at
# 7x7, 32x32 at 4x4, 28x28 at 2x2.
STEMS = {'imagenet': (7, 2, 2), 'cifar': (3, 1, 1), 'mnist': (3, 2, 1)}
STRIDES_ON: dict[str, StridesOn] = {'v1': 'conv1', 'v1.5': 'conv2'}

TORCHVISION = (
  ('stem/conv', 'conv1'),
  ('stem/norm', 'bn1'),
  (r'stage(\d)/block(\d+)/conv(\d)', r'layer\1.\2.conv\3'),
  (r'stage(\d)/block(\d+)/norm(\d)', r'layer\1.\2.bn\3'),
  (r'stage(\d)/block(\d+)/shortcut_conv', r'layer\1.\2.downsample.0'),
  (r'stage(\d)/block(\d+)/shortcut_norm', r'layer\1.\2.downsample.1'),
  ('classifier', 'fc'),
)


class ResNet(nn.Module):
  """`stem`, `stage1` to `stage4`, `classifier`; counts in the module's docstring.

  Attributes:
    blocks: in each stage.
    bottleneck: whether blocks are bottlenecks, with 4 times the stage's channels as output.
    classes: number of logits.
    width: multiplies all channels.
    groups: of the 3x3 convolutions of bottlenecks.
    width_per_group: channels of those convolutions in stage 1, for each group.
    stem: 'imagenet' (7x7, stride 2, then pooling), 'cifar' or 'mnist' (3x3, no pooling), see `STEMS`.
    variant: 'v1.5' or 'v1', see the module's docstring; only bottlenecks differ.
    dtype: of the computation; the last layer is float32.
  """

  blocks: Blocks
  bottleneck: bool
  classes: int = 1000
  width: float = 1
  groups: int = 1
  width_per_group: int = 64
  stem: Stem = 'imagenet'
  variant: Variant = 'v1.5'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'resnet: stem {self.stem!r} is none of {tuple(STEMS)}.')
    if self.variant not in STRIDES_ON:
      raise ValueError(f'resnet: variant {self.variant!r} is none of {tuple(STRIDES_ON)}.')
    window, strides, pooling = STEMS[self.stem]
    x = ConvNorm(round(STAGES[0][0] * self.width), window, strides, dtype=self.dtype, name='stem')(x, train)
    if pooling > 1:
      x = max_pool(x, 3, pooling, padding=1)
    for index, (blocks, (channels, strides)) in enumerate(zip(self.blocks, STAGES, strict=True), 1):
      x = Stage(self._block(round(channels * self.width)), blocks, strides, name=f'stage{index}')(x, train)
    return classify(x, self.classes)

  def torch_name(self, module: str) -> str:
    """Torchvision's name of a module."""
    return torch_names.torch_name(module, TORCHVISION)

  def _block(self, channels: int) -> Callable[..., nn.Module]:
    if not self.bottleneck:
      return functools.partial(BasicBlock, channels, shortcut='projection', dtype=self.dtype)
    return functools.partial(
        Bottleneck, EXPANSION * channels, hidden=channels * self.width_per_group // 64 * self.groups,
        groups=self.groups, strides_on=STRIDES_ON[self.variant], dtype=self.dtype)


def resnet18(
    *, classes: int = 1000, width: float = 1, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> ResNet:
  """18 layers of basic blocks."""
  return ResNet((2, 2, 2, 2), False, classes, width, stem=stem, dtype=dtype)


def resnet34(
    *, classes: int = 1000, width: float = 1, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> ResNet:
  """34 layers of basic blocks."""
  return ResNet((3, 4, 6, 3), False, classes, width, stem=stem, dtype=dtype)


def resnet50(
    *, classes: int = 1000, width: float = 1, groups: int = 1, width_per_group: int = 64, stem: Stem = 'imagenet',
    variant: Variant = 'v1.5', dtype: Any = jnp.float32,
) -> ResNet:
  """50 layers of bottlenecks."""
  return ResNet((3, 4, 6, 3), True, classes, width, groups, width_per_group, stem, variant, dtype)


def resnet101(
    *, classes: int = 1000, width: float = 1, groups: int = 1, width_per_group: int = 64, stem: Stem = 'imagenet',
    variant: Variant = 'v1.5', dtype: Any = jnp.float32,
) -> ResNet:
  """101 layers of bottlenecks."""
  return ResNet((3, 4, 23, 3), True, classes, width, groups, width_per_group, stem, variant, dtype)


def resnet152(
    *, classes: int = 1000, width: float = 1, groups: int = 1, width_per_group: int = 64, stem: Stem = 'imagenet',
    variant: Variant = 'v1.5', dtype: Any = jnp.float32,
) -> ResNet:
  """152 layers of bottlenecks."""
  return ResNet((3, 8, 36, 3), True, classes, width, groups, width_per_group, stem, variant, dtype)


def resnext50_32x4d(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ResNet:
  """50 layers with 32 groups of 4 channels in stage 1."""
  return resnet50(classes=classes, groups=32, width_per_group=4, stem=stem, dtype=dtype)


def resnext101_32x8d(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ResNet:
  """101 layers with 32 groups of 8 channels in stage 1."""
  return resnet101(classes=classes, groups=32, width_per_group=8, stem=stem, dtype=dtype)


def wide_resnet50_2(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ResNet:
  """50 layers, 3x3 convolutions twice as wide."""
  return resnet50(classes=classes, width_per_group=128, stem=stem, dtype=dtype)


def wide_resnet101_2(*, classes: int = 1000, stem: Stem = 'imagenet', dtype: Any = jnp.float32) -> ResNet:
  """101 layers, 3x3 convolutions twice as wide."""
  return resnet101(classes=classes, width_per_group=128, stem=stem, dtype=dtype)
