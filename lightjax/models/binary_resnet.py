"""ResNet-18 as binarization papers build it: what is between its binary convolutions, and where the shortcuts go.

  network             params        MACs at 224
  xnor_resnet18       11,687,848    1,814,073,344
  bi_real_resnet18    11,689,512    1,814,073,344
  react_resnet18      11,704,424    1,814,073,344

- xnor_resnet18: BatchNorm and sign before each of two convolutions a shortcut (Rastegari et al. 2016, arXiv:1603.05279,
  section 3.2: B-A-C-P). The paper shows no figure of its ResNet: blocks are those of PreActResNet.
- bi_real_resnet18: a shortcut for each convolution (Liu et al. 2018, arXiv:1808.00278).
- react_resnet18: the same with learned shifts before the sign and in the activation (Liu et al. 2020, arXiv:2003.03488,
  on Bi-Real's ResNet).

They are the real networks: transforms make the 3x3 convolutions in the stages binary, rules ('.*/shortcut_conv/kernel',
False), ('.*', True); stem and classifier stay real by default. Without a transform the only nonlinearity in the stages
is the clip to [-1, 1] before a convolution. Deviations: a clip before each sign, which changes neither sign nor
gradient; the average of the shortcuts ends with a half window on odd sizes.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models.resnet import STAGES, STEMS, Stem
from lightjax.nn.blocks.binary import BinaryBlock
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.residual import PreActBlock
from lightjax.nn.blocks.stage import Stage
from lightjax.nn.layers import BatchNorm, ConvNorm
from lightjax.nn.pooling import max_pool

__all__ = ['bi_real_resnet18', 'react_resnet18', 'xnor_resnet18']

Kind = Literal['xnor', 'bi_real', 'react']

# 16 convolutions in four stages: blocks a stage.
BLOCKS = {'xnor': 2, 'bi_real': 4, 'react': 4}


class BinaryResNet(nn.Module):
  """`stem`, `stage1` to `stage4`, `classifier`; counts in the module's docstring.

  Attributes:
    kind: 'xnor', 'bi_real' or 'react'.
    classes: number of logits.
    width: multiplies all channels.
    stem: 'imagenet', 'cifar' or 'mnist', see `resnet.STEMS`.
    dtype: of the computation; the last layer is float32.
  """

  kind: Kind
  classes: int = 1000
  width: float = 1
  stem: Stem = 'imagenet'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'binary_resnet: stem {self.stem!r} is none of {tuple(STEMS)}.')
    window, strides, pooling = STEMS[self.stem]
    x = ConvNorm(
        round(STAGES[0][0] * self.width), window, strides, activation=nn.relu if self.kind == 'xnor' else None,
        dtype=self.dtype, name='stem')(x, train)
    if pooling > 1:
      x = max_pool(x, 3, pooling, padding=1)
    for index, (channels, strides) in enumerate(STAGES, 1):
      block = self._block(round(channels * self.width))
      x = Stage(block, BLOCKS[self.kind], strides, name=f'stage{index}')(x, train)
    if self.kind == 'xnor':
      x = nn.relu(BatchNorm(use_running_average=not train, dtype=self.dtype, name='norm')(x))
    return classify(x, self.classes)

  def _block(self, channels: int) -> Callable[..., nn.Module]:
    if self.kind == 'xnor':
      return functools.partial(PreActBlock, channels, dtype=self.dtype, activation=nn.hard_tanh)
    return functools.partial(BinaryBlock, channels, learned=self.kind == 'react', dtype=self.dtype)


def xnor_resnet18(
    *, classes: int = 1000, width: float = 1, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> BinaryResNet:
  """Two convolutions a shortcut, BatchNorm and sign before each."""
  return BinaryResNet('xnor', classes, width, stem, dtype)


def bi_real_resnet18(
    *, classes: int = 1000, width: float = 1, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> BinaryResNet:
  """A shortcut for each convolution."""
  return BinaryResNet('bi_real', classes, width, stem, dtype)


def react_resnet18(
    *, classes: int = 1000, width: float = 1, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> BinaryResNet:
  """A shortcut for each convolution, learned shifts."""
  return BinaryResNet('react', classes, width, stem, dtype)
