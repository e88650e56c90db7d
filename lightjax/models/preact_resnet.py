"""Pre-activation ResNets for CIFAR of He et al. 2016, arXiv:1603.05027.

With 10 classes, projections where the shape changes:

  network              blocks        params        published    MACs at 32x32
  preact_resnet20      basic            272,282    -               40,813,184
  preact_resnet110     basic          1,730,522    1.7 M          253,149,824
  preact_resnet164     bottleneck     1,703,258    1.7 M          247,646,720
  preact_resnet1001    bottleneck    10,327,706    10.2 M       1,490,995,712

Depth 6n + 2 with basic blocks, 9n + 2 with bottlenecks, whose output has 4 times the stage's channels. The stem has no
norm, the last block is followed by one. Deviation: projections take the pre-activated input and have no norm, in every
stage that changes the shape, as in most implementations.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.residual import PreActBlock, PreActBottleneck, Shortcut
from lightjax.nn.blocks.stage import Stage
from lightjax.nn.layers import BatchNorm, Conv, he_fan_out

__all__ = ['preact_resnet20', 'preact_resnet110', 'preact_resnet164', 'preact_resnet1001']

Block = Literal['basic', 'bottleneck']

# Channels (of the 3x3 convolutions) and strides of the three stages.
STAGES = ((16, 1), (32, 2), (64, 2))
STEM_CHANNELS = 16

PYTORCH_CLASSIFICATION = (
  ('stem', 'conv1'),
  ('norm', 'bn'),
  (r'stage(\d)/block(\d+)/conv(\d)', r'layer\1.\2.conv\3'),
  (r'stage(\d)/block(\d+)/norm(\d)', r'layer\1.\2.bn\3'),
  (r'stage(\d)/block(\d+)/shortcut_conv', r'layer\1.\2.downsample.0'),
  ('classifier', 'fc'),
)


class PreActResNet(nn.Module):
  """`stem`, `stage1` to `stage3`, `norm`, `classifier`; see the module's docstring.

  Attributes:
    depth: weighted layers, 6n + 2 or 9n + 2.
    block: 'basic' or 'bottleneck'.
    classes: number of logits.
    width: multiplies the channels of the stages, not of the stem.
    dropout: rate between the convolutions of basic blocks, in training; needs the rng 'dropout'.
    shortcut: where the shape changes, see `lightjax.nn.blocks.residual`.
    dtype: of the computation; the last layer is float32.
  """

  depth: int
  block: Block = 'basic'
  classes: int = 10
  width: float = 1
  dropout: float = 0.0
  shortcut: Shortcut = 'projection'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    blocks = self._blocks()
    x = Conv(
        STEM_CHANNELS, (3, 3), padding=1, use_bias=False, kernel_init=he_fan_out, dtype=self.dtype, name='stem')(x)
    for index, (channels, strides) in enumerate(STAGES, 1):
      x = Stage(self._block(round(channels * self.width)), blocks, strides, name=f'stage{index}')(x, train)
    x = nn.relu(BatchNorm(use_running_average=not train, dtype=self.dtype, name='norm')(x))
    return classify(x, self.classes)

  def torch_name(self, module: str) -> str:
    """The name of a module in bearpaw's pytorch-classification, on which Network Slimming builds."""
    return torch_names.torch_name(module, PYTORCH_CLASSIFICATION)

  def _blocks(self) -> int:
    if self.block not in get_args(Block):
      raise ValueError(f'preact_resnet: block {self.block!r} is none of {get_args(Block)}.')
    layers = 6 if self.block == 'basic' else 9
    blocks, rest = divmod(self.depth - 2, layers)
    if rest or blocks < 1:
      raise ValueError(f'a pre-activation ResNet of {self.block} blocks has {layers}n + 2 layers, not {self.depth}.')
    return blocks

  def _block(self, channels: int) -> Callable[..., nn.Module]:
    if self.block == 'basic':
      return functools.partial(
          PreActBlock, channels, dropout=self.dropout, shortcut=self.shortcut, dtype=self.dtype)
    if self.dropout:
      raise ValueError(f'preact_resnet: dropout {self.dropout} is for basic blocks; set it to 0.')
    return functools.partial(
        PreActBottleneck, 4 * channels, hidden=channels, shortcut=self.shortcut, dtype=self.dtype)


def preact_resnet20(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'projection', dtype: Any = jnp.float32,
) -> PreActResNet:
  """20 layers of basic blocks; not in the paper, the small network of quantization papers."""
  return PreActResNet(20, 'basic', classes, width, shortcut=shortcut, dtype=dtype)


def preact_resnet110(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'projection', dtype: Any = jnp.float32,
) -> PreActResNet:
  """110 layers of basic blocks (table 2)."""
  return PreActResNet(110, 'basic', classes, width, shortcut=shortcut, dtype=dtype)


def preact_resnet164(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'projection', dtype: Any = jnp.float32,
) -> PreActResNet:
  """164 layers of bottlenecks (table 2)."""
  return PreActResNet(164, 'bottleneck', classes, width, shortcut=shortcut, dtype=dtype)


def preact_resnet1001(
    *, classes: int = 10, width: float = 1, shortcut: Shortcut = 'projection', dtype: Any = jnp.float32,
) -> PreActResNet:
  """1001 layers of bottlenecks (tables 3 and 4)."""
  return PreActResNet(1001, 'bottleneck', classes, width, shortcut=shortcut, dtype=dtype)
