"""ConvNeXts of Liu et al. 2022, arXiv:2201.03545, equal to torchvision's, and their small kin, equal to timm's.

  network           params        MACs at 224       published
  convnext_atto      3,695,520       547,332,480    3.7 M, 0.55 G
  convnext_femto     5,217,784       779,629,824    -
  convnext_pico      9,045,672     1,367,055,360    -
  convnext_nano     15,593,560     2,445,528,320    -
  convnext_tiny     28,589,128     4,455,531,264    28 M, 4.5 G
  convnext_small    50,223,688     8,683,712,256    50 M, 8.7 G
  convnext_base     88,591,464    15,354,729,472    89 M, 15.4 G

Atto to nano are timm's, with the shapes of Woo et al. 2023, arXiv:2301.00808. Deviations: none; stochastic depth is the
recipe's and off unless asked for (0.1, 0.4 and 0.5 for tiny, small and base in the paper).
"""
from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.convnext import ConvNeXtBlock, Pointwise, init, layer_norm
from lightjax.nn.layers import Conv

__all__ = [
  'convnext_atto', 'convnext_base', 'convnext_femto', 'convnext_nano', 'convnext_pico', 'convnext_small',
  'convnext_tiny',
]

Stages = tuple[tuple[int, int], ...]
Stem = Literal['imagenet', 'cifar']

# Blocks and channels of the stages.
ATTO = ((2, 40), (2, 80), (6, 160), (2, 320))
FEMTO = ((2, 48), (2, 96), (6, 192), (2, 384))
PICO = ((2, 64), (2, 128), (6, 256), (2, 512))
NANO = ((2, 80), (2, 160), (8, 320), (2, 640))
TINY = ((3, 96), (3, 192), (9, 384), (3, 768))
SMALL = ((3, 96), (3, 192), (27, 384), (3, 768))
BASE = ((3, 128), (3, 256), (27, 512), (3, 1024))

# Window and stride of the stem, not in the paper for small images: 224x224 ends at 7x7, 32x32 at 4x4.
STEMS = {'imagenet': 4, 'cifar': 1}

# Modules are called so in timm's networks of 1x1 convolutions, and so in torchvision's.
TIMM = (
  ('stem_conv', 'stem.0'), ('stem_norm', 'stem.1'),
  (r'stage\d/downsample_norm', 'stages.{stage}.downsample.0'),
  (r'stage\d/downsample_conv', 'stages.{stage}.downsample.1'),
  (r'stage\d/block(\d+)', r'stages.{stage}.blocks.\1'),
  (r'stage\d/block(\d+)/layer_scale', r'stages.{stage}.blocks.\1.gamma'),
  (r'stage\d/block(\d+)/depthwise', r'stages.{stage}.blocks.\1.conv_dw'),
  (r'stage\d/block(\d+)/norm', r'stages.{stage}.blocks.\1.norm'),
  (r'stage\d/block(\d+)/expand', r'stages.{stage}.blocks.\1.mlp.fc1'),
  (r'stage\d/block(\d+)/project', r'stages.{stage}.blocks.\1.mlp.fc2'),
  ('norm', 'head.norm'), ('classifier', 'head.fc'),
)
TORCHVISION = (
  ('stem_conv', 'features.0.0'), ('stem_norm', 'features.0.1'),
  (r'stage\d/downsample_norm', 'features.{downsample}.0'),
  (r'stage\d/downsample_conv', 'features.{downsample}.1'),
  (r'stage\d/block(\d+)', r'features.{blocks}.\1'),
  (r'stage\d/block(\d+)/layer_scale', r'features.{blocks}.\1.layer_scale'),
  (r'stage\d/block(\d+)/depthwise', r'features.{blocks}.\1.block.0'),
  (r'stage\d/block(\d+)/norm', r'features.{blocks}.\1.block.2'),
  (r'stage\d/block(\d+)/expand', r'features.{blocks}.\1.block.3'),
  (r'stage\d/block(\d+)/project', r'features.{blocks}.\1.block.5'),
  ('norm', 'classifier.0'), ('classifier', 'classifier.2'),
)


class ConvNeXtStage(nn.Module):
  """LayerNorm and a strided 2x2 convolution to half the resolution, if wanted; then blocks, `block0` ....

  Attributes:
    features: channels.
    rates: of stochastic depth, one for each block.
    downsamples: whether the resolution is halved.
    layer_scale: of the blocks.
    pointwise: of the blocks.
    dtype: of the computation.
  """

  features: int
  rates: tuple[float, ...]
  downsamples: bool
  layer_scale: float | None
  pointwise: Pointwise
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The stage on one batch."""
    if self.downsamples:
      x = layer_norm(dtype=self.dtype, name='downsample_norm')(x)
      x = Conv(
          self.features, (2, 2), strides=2, padding='VALID', kernel_init=init, dtype=self.dtype,
          name='downsample_conv')(x)
    for index, rate in enumerate(self.rates):
      x = ConvNeXtBlock(4, self.layer_scale, rate, self.pointwise, self.dtype, name=f'block{index}')(x, train)
    return x


class ConvNeXt(nn.Module):
  """`stem_conv`, `stem_norm`, `stage1` to `stage4`, `norm`, `classifier`; counts in the module's docstring.

  Attributes:
    stages: blocks and channels of each.
    classes: number of logits.
    stem: 'imagenet' (4x4 patches) or 'cifar' (single pixels), see `STEMS`.
    layer_scale: start of the trained scale of each residual; None for no scales.
    stochastic_depth: rate of the last block in training, growing linearly from 0; needs the rng 'dropout'.
    pointwise: 'dense', as in torchvision, or 'conv', as in timm's small ones.
    dtype: of the computation; the last layer is float32.
  """

  stages: Stages
  classes: int = 1000
  stem: Stem = 'imagenet'
  layer_scale: float | None = 1e-6
  stochastic_depth: float = 0.0
  pointwise: Pointwise = 'dense'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'convnext: stem {self.stem!r} is none of {tuple(STEMS)}.')
    patch = STEMS[self.stem]
    x = Conv(
        self.stages[0][1], (patch, patch), strides=patch, padding='VALID', kernel_init=init, dtype=self.dtype,
        name='stem_conv')(x)
    x = layer_norm(dtype=self.dtype, name='stem_norm')(x)
    last = sum(blocks for blocks, _ in self.stages) - 1
    done = 0
    for index, (blocks, channels) in enumerate(self.stages, 1):
      rates = tuple(self.stochastic_depth * block / last for block in range(done, done + blocks))
      done += blocks
      x = ConvNeXtStage(
          channels, rates, index > 1, self.layer_scale, self.pointwise, self.dtype, name=f'stage{index}')(x, train)
    x = layer_norm(name='norm')(x.mean((1, 2), dtype=jnp.float32))
    return nn.Dense(self.classes, kernel_init=init, dtype=jnp.float32, name='classifier')(x)

  def torch_name(self, module: str) -> str:
    """Torchvision's name of a module, or timm's where the pointwise layers are convolutions."""
    return self.timm_name(module) if self.pointwise == 'conv' else _placed(module, TORCHVISION)

  def torch_shape(self, array: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of layer scales: torchvision's run over channels, height and width, timm's over channels."""
    return shape if self.pointwise == 'conv' else (*shape, 1, 1)

  def timm_name(self, module: str) -> str:
    """timm's name of a module."""
    return _placed(module, TIMM)


def _placed(module: str, rules: torch_names.Rules) -> str:
  stage = int(module[len('stage')]) if module.startswith('stage') else 0
  name = torch_names.torch_name(module, rules)
  return name.format(stage=stage - 1, blocks=2 * stage - 1, downsample=2 * stage - 2)


def convnext_atto(
    *, classes: int = 1000, stem: Stem = 'imagenet', layer_scale: float | None = 1e-6, stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
  """ConvNeXt-Atto, timm's."""
  return ConvNeXt(ATTO, classes, stem, layer_scale, stochastic_depth, 'conv', dtype)


def convnext_femto(
    *, classes: int = 1000, stem: Stem = 'imagenet', layer_scale: float | None = 1e-6, stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
  """ConvNeXt-Femto, timm's."""
  return ConvNeXt(FEMTO, classes, stem, layer_scale, stochastic_depth, 'conv', dtype)


def convnext_pico(
    *, classes: int = 1000, stem: Stem = 'imagenet', layer_scale: float | None = 1e-6, stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
  """ConvNeXt-Pico, timm's."""
  return ConvNeXt(PICO, classes, stem, layer_scale, stochastic_depth, 'conv', dtype)


def convnext_nano(
    *, classes: int = 1000, stem: Stem = 'imagenet', layer_scale: float | None = 1e-6, stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
  """ConvNeXt-Nano, timm's."""
  return ConvNeXt(NANO, classes, stem, layer_scale, stochastic_depth, 'conv', dtype)


def convnext_tiny(
    *, classes: int = 1000, stem: Stem = 'imagenet', layer_scale: float | None = 1e-6, stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
  """ConvNeXt-Tiny, the paper's."""
  return ConvNeXt(TINY, classes, stem, layer_scale, stochastic_depth, 'dense', dtype)


def convnext_small(
    *, classes: int = 1000, stem: Stem = 'imagenet', layer_scale: float | None = 1e-6, stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
  """ConvNeXt-Small, the paper's."""
  return ConvNeXt(SMALL, classes, stem, layer_scale, stochastic_depth, 'dense', dtype)


def convnext_base(
    *, classes: int = 1000, stem: Stem = 'imagenet', layer_scale: float | None = 1e-6, stochastic_depth: float = 0.0,
    dtype: Any = jnp.float32,
) -> ConvNeXt:
  """ConvNeXt-Base, the paper's."""
  return ConvNeXt(BASE, classes, stem, layer_scale, stochastic_depth, 'dense', dtype)
