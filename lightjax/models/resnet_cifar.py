"""The CIFAR ResNets of He et al. 2016, arXiv:1512.03385, section 4.2.

  stage     output   layers            channels
  stem      32x32    3x3               16
  stage1    32x32    2n of 3x3         16
  stage2    16x16    2n of 3x3         32
  stage3    8x8      2n of 3x3         64
  head      1x1      average, dense    classes

6n + 2 weighted layers. With identity shortcuts (the paper's choice) and 10 classes:

  network      n    params        published    MACs at 32x32
  resnet8      1        75,290    -               12,239,488
  resnet20     3       269,722    0.27 M          40,551,040
  resnet32     5       464,154    0.46 M          68,862,592
  resnet44     7       658,586    0.66 M          97,174,144
  resnet56     9       853,018    0.85 M         125,485,696
  resnet110   18     1,727,962    1.7 M          252,887,680

And resnet14, n = 2: 172,506 params, 26,395,264 MACs; resnet1202, n = 200: 19,421,274 params (published: 19.4 M),
2,829,238,912 MACs.

The distillation literature's two wide ones, from RepDistiller (Tian et al. 2020, arXiv:1910.10699), have channels
32-64-128-256 (stem and stages), projections, and with 100 classes:

  network      n    params        published    MACs at 32x32
  resnet8x4    1     1,233,540    1.23 M         177,071,104
  resnet32x4   5     7,433,860    7.43 M       1,083,040,768

Deviations: none in shape; 110 layers were trained with a warm-up, which is the recipe's matter.
"""
from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.residual import BasicBlock, Shortcut
from lightjax.nn.blocks.stage import Stage
from lightjax.nn.layers import ConvNorm

__all__ = [
  'resnet8', 'resnet8x4', 'resnet14', 'resnet20', 'resnet32', 'resnet32x4', 'resnet44', 'resnet56', 'resnet110',
  'resnet1202',
]

# Channels of the stem and of the three stages; strides of the stages.
CHANNELS = (16, 16, 32, 64)
CHANNELS_X4 = (32, 64, 128, 256)
STRIDES = (1, 2, 2)

COMMON = (
  ('stem/conv', 'conv1'),
  ('stem/norm', 'bn1'),
  (r'stage(\d)/block(\d+)/conv(\d)', r'layer\1.\2.conv\3'),
  (r'stage(\d)/block(\d+)/norm(\d)', r'layer\1.\2.bn\3'),
)
AKAMASTER = (*COMMON, ('classifier', 'linear'))
REPDISTILLER = (
  *COMMON,
  (r'stage(\d)/block(\d+)/shortcut_conv', r'layer\1.\2.downsample.0'),
  (r'stage(\d)/block(\d+)/shortcut_norm', r'layer\1.\2.downsample.1'),
  ('classifier', 'fc'),
)


class ResNetCIFAR(nn.Module):
  """A CIFAR ResNet: `stem`, `stage1` to `stage3`, `classifier`; see the module's docstring.

  Attributes:
    depth: weighted layers, 6n + 2.
    classes: number of logits.
    width: multiplies all channels (10 gives 160-320-640).
    shortcut: 'identity' (option A, zeros appended), 'centered' (option A, zeros on both sides, as in akamaster's
      pytorch_resnet_cifar10) or 'projection' (option B), where a stage changes the shape.
    channels: of the stem and the three stages.
    dtype: of the computation; the last layer is float32.
  """

  depth: int
  classes: int = 10
  width: float = 1
  shortcut: Shortcut = 'identity'
  channels: tuple[int, int, int, int] = CHANNELS
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    blocks, rest = divmod(self.depth - 2, 6)
    if rest or blocks < 1:
      raise ValueError(f'a CIFAR ResNet has 6n + 2 layers (8, 14, 20, ...), not {self.depth}.')
    stem, *stages = (round(channels * self.width) for channels in self.channels)
    x = ConvNorm(stem, dtype=self.dtype, name='stem')(x, train)
    for index, (features, strides) in enumerate(zip(stages, STRIDES, strict=True), 1):
      block = functools.partial(BasicBlock, features, shortcut=self.shortcut, dtype=self.dtype)
      x = Stage(block, blocks, strides, name=f'stage{index}')(x, train)
    return classify(x, self.classes, kernel_init=nn.initializers.he_normal())

  def torch_name(self, module: str) -> str:
    """RepDistiller's name of a module with projections, akamaster's with centered identities.

    Raises:
      ValueError: the shortcut is 'identity': the weights of neither would compute the same here.
    """
    if self.shortcut == 'identity':
      raise ValueError('torch_name: no PyTorch reference appends the zeros of identity shortcuts; build the network '
                       "with shortcut='centered' (akamaster's) or 'projection' (RepDistiller's).")
    return torch_names.torch_name(module, AKAMASTER if self.shortcut == 'centered' else REPDISTILLER)


def resnet8(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """8 layers, one block a stage; not in the paper, a common small student and smoke-test network."""
  return ResNetCIFAR(8, classes, width, shortcut, dtype=dtype)


def resnet14(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """14 layers, 2 blocks a stage; not in the paper."""
  return ResNetCIFAR(14, classes, width, shortcut, dtype=dtype)


def resnet20(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """20 layers, 3 blocks a stage (table 6)."""
  return ResNetCIFAR(20, classes, width, shortcut, dtype=dtype)


def resnet32(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """32 layers, 5 blocks a stage (table 6)."""
  return ResNetCIFAR(32, classes, width, shortcut, dtype=dtype)


def resnet44(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """44 layers, 7 blocks a stage (table 6)."""
  return ResNetCIFAR(44, classes, width, shortcut, dtype=dtype)


def resnet56(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """56 layers, 9 blocks a stage (table 6)."""
  return ResNetCIFAR(56, classes, width, shortcut, dtype=dtype)


def resnet110(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """110 layers, 18 blocks a stage (table 6)."""
  return ResNetCIFAR(110, classes, width, shortcut, dtype=dtype)


def resnet1202(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'identity', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """1202 layers, 200 blocks a stage (table 6)."""
  return ResNetCIFAR(1202, classes, width, shortcut, dtype=dtype)


def resnet8x4(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'projection', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """8 layers, one block a stage, channels 32-64-128-256 (RepDistiller)."""
  return ResNetCIFAR(8, classes, width, shortcut, CHANNELS_X4, dtype)


def resnet32x4(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'projection', dtype: Any = jnp.float32,
) -> ResNetCIFAR:
  """32 layers, 5 blocks a stage, channels 32-64-128-256 (RepDistiller)."""
  return ResNetCIFAR(32, classes, width, shortcut, CHANNELS_X4, dtype)
