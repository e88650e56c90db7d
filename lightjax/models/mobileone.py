"""MobileOne of Vasu et al. 2023, arXiv:2206.04040, equal to timm's.

                 training                       deployed, see `reparameterized.merge`
  network        params        MACs at 224      params        MACs         published, from memory (table 9)
  mobileone_s0    5,293,272    1,051.9 M         2,078,504      275.1 M    2.1 M, 275 M
  mobileone_s1    4,825,192      830.1 M         4,764,840      825.1 M    4.8 M, 825 M
  mobileone_s2    7,884,648    1,304.0 M         7,808,168    1,298.4 M    7.8 M, 1299 M
  mobileone_s3   10,170,600    1,902.1 M        10,078,312    1,895.8 M    10.1 M, 1896 M
  mobileone_s4   14,951,248    2,986.8 M        14,838,352    2,979.3 M    14.8 M, 2978 M

S4 has squeeze-excite in its last blocks, to a sixteenth of the channels. Deviations: the stem has one branch of 3x3, as
in timm, where S0 of the authors' code has four.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models.mobile import STEMS, Stem
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.reparameterized import ReparameterizedConv
from lightjax.nn.blocks.squeeze_excite import SqueezeExcite

__all__ = ['mobileone_s0', 'mobileone_s1', 'mobileone_s2', 'mobileone_s3', 'mobileone_s4']

# Table 2: channels of the stages before the multipliers, blocks of each; all have stride 2.
CHANNELS = (64, 128, 256, 512)
BLOCKS = (2, 8, 10, 1)


class MobileOneBlock(nn.Module):
  """A 3x3 depthwise and a 1x1 convolution, both reparameterized (figure 3): `depthwise`, `pointwise`.

  Attributes:
    features: output channels.
    strides: of `depthwise`.
    branches: of both.
    squeeze_excite: see `ReparameterizedConv`; in both.
    deployed: whether the branches are one convolution.
    dtype: of the computation.
  """

  features: int
  strides: int = 1
  branches: int = 1
  squeeze_excite: Callable[..., Any] | None = None
  deployed: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    conv = functools.partial(
        ReparameterizedConv, branches=self.branches, squeeze_excite=self.squeeze_excite, deployed=self.deployed,
        dtype=self.dtype)
    channels = x.shape[-1]
    x = conv(channels, strides=self.strides, groups=channels, name='depthwise')(x, train)
    return conv(self.features, 1, name='pointwise')(x, train)


class MobileOneStage(nn.Module):
  """Blocks one after the other, `block0` ...; the first has the stride, the last `squeezed` have squeeze-excite."""

  features: int
  blocks: int
  strides: int
  branches: int
  squeezed: int
  deployed: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The blocks on one batch."""
    for index in range(self.blocks):
      squeezes = index >= self.blocks - self.squeezed
      x = MobileOneBlock(
          self.features, self.strides if index == 0 else 1, self.branches,
          functools.partial(SqueezeExcite, 1 / 16, divisor=8) if squeezes else None, self.deployed, self.dtype,
          name=f'block{index}')(x, train)
    return x


class MobileOne(nn.Module):
  """`stem`, `stage1` to `stage4`, `classifier`; counts in the module's docstring.

  Attributes:
    widths: multiply the channels of each stage; the stem has those of the first, at most 64.
    branches: with the full window, of all blocks but the stem.
    squeezed: blocks of each stage, from its end, with squeeze-excite.
    blocks: of each stage.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`; they change stem and stage1.
    deployed: whether the branches are one convolution.
    dtype: of the computation; the last layer is float32.
  """

  widths: tuple[float, float, float, float] = (0.75, 1.0, 1.0, 2.0)
  branches: int = 1
  squeezed: tuple[int, int, int, int] = (0, 0, 0, 0)
  blocks: tuple[int, int, int, int] = BLOCKS
  classes: int = 1000
  stem: Stem = 'imagenet'
  deployed: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'mobileone: stem {self.stem!r} is none of {tuple(STEMS)}.')
    stem_strides, stage1_strides = STEMS[self.stem]
    stem_features = min(64, int(CHANNELS[0] * self.widths[0]))
    x = ReparameterizedConv(
        stem_features, strides=stem_strides, deployed=self.deployed, dtype=self.dtype, name='stem')(x, train)
    rows = zip(CHANNELS, self.widths, self.blocks, self.squeezed, strict=True)
    for index, (channels, width, blocks, squeezed) in enumerate(rows, 1):
      x = MobileOneStage(
          int(channels * width), blocks, stage1_strides if index == 1 else 2, self.branches, squeezed, self.deployed,
          self.dtype, name=f'stage{index}')(x, train)
    return classify(x, self.classes)

  def torch_name(self, module: str) -> str:
    """timm's name of a module."""
    if module == 'classifier':
      return 'head.fc'
    layer, *rest = module.split('/')
    if layer == 'stem':
      return f'stem.{_within(rest)}'
    block, part, *rest = rest
    # The two convolutions of a block count.
    place = 2 * int(block.removeprefix('block')) + ('depthwise', 'pointwise').index(part)
    return f'stages.{int(layer.removeprefix("stage")) - 1}.{place}.{_within(rest)}'


def _within(path: list[str]) -> str:
  """timm's name of what a `ReparameterizedConv` holds."""
  branch, *rest = path
  if branch in ('identity', 'conv'):
    return {'identity': 'identity', 'conv': 'reparam_conv'}[branch]
  leaf = {'conv': 'conv', 'norm': 'bn', 'reduce': 'fc1', 'expand': 'fc2'}[rest[0]]
  if branch == 'squeeze_excite':
    return f'attn.{leaf}'
  return f'conv_scale.{leaf}' if branch == 'branch_1x1' else f'conv_kxk.{branch.removeprefix("branch")}.{leaf}'


def mobileone_s0(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> MobileOne:
  """MobileOne-S0; see the class for the arguments."""
  return MobileOne((0.75, 1.0, 1.0, 2.0), 4, classes=classes, stem=stem, deployed=deployed, dtype=dtype)


def mobileone_s1(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> MobileOne:
  """MobileOne-S1; see the class for the arguments."""
  return MobileOne((1.5, 1.5, 2.0, 2.5), classes=classes, stem=stem, deployed=deployed, dtype=dtype)


def mobileone_s2(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> MobileOne:
  """MobileOne-S2; see the class for the arguments."""
  return MobileOne((1.5, 2.0, 2.5, 4.0), classes=classes, stem=stem, deployed=deployed, dtype=dtype)


def mobileone_s3(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> MobileOne:
  """MobileOne-S3; see the class for the arguments."""
  return MobileOne((2.0, 2.5, 3.0, 4.0), classes=classes, stem=stem, deployed=deployed, dtype=dtype)


def mobileone_s4(
    *, classes: int = 1000, stem: Stem = 'imagenet', deployed: bool = False, dtype: Any = jnp.float32,
) -> MobileOne:
  """MobileOne-S4; see the class for the arguments."""
  return MobileOne(
      (3.0, 3.5, 3.5, 4.0), squeezed=(0, 0, 5, 1), classes=classes, stem=stem, deployed=deployed, dtype=dtype)
