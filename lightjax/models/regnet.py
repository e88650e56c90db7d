"""RegNets of Radosavovic et al. 2020, arXiv:2003.13678, the small ones, equal to timm's or torchvision's.

  network           params       MACs at 224    published
  regnety_002       3,162,996    199,514,080    3.2 M, 200 M
  regnety_004       4,344,144    401,842,848    4.3 M, 400 M
  regnety_006       6,055,160    601,220,992    6.1 M, 600 M
  regnety_008       6,263,168    797,176,832    6.3 M, 800 M
  regnetx_004       5,157,512    397,677,568    5.2 M, 400 M
  regnet_y_400mf    4,344,144    401,842,848    4.3 M, 400 M
  regnet_y_800mf    6,432,512    833,856,256    6.3 M, 800 M
  regnet_x_400mf    5,495,976    413,812,608    5.2 M, 400 M

`regnety_004` and the like are timm's and have the paper's widths, `regnet_y_400mf` and the like torchvision's, which
rounds some widths up. Deviations: none.
"""
from __future__ import annotations

import functools
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.regnet import RegNetBlock
from lightjax.nn.blocks.stage import Stage
from lightjax.nn.layers import ConvNorm

__all__ = [
  'regnet_x_400mf', 'regnet_y_400mf', 'regnet_y_800mf', 'regnetx_004', 'regnety_002', 'regnety_004', 'regnety_006',
  'regnety_008',
]

STEM_CHANNELS = 32
Row = tuple[int, int]

TIMM = (
  ('stem/conv', 'stem.conv'),
  ('stem/norm', 'stem.bn'),
  (r'stage(\d)/block\d+/conv(\d)/conv', r's\1.b{number}.conv\2.conv'),
  (r'stage(\d)/block\d+/conv(\d)/norm', r's\1.b{number}.conv\2.bn'),
  (r'stage(\d)/block\d+/se/reduce', r's\1.b{number}.se.fc1'),
  (r'stage(\d)/block\d+/se/expand', r's\1.b{number}.se.fc2'),
  (r'stage(\d)/block\d+/shortcut/conv', r's\1.b{number}.downsample.conv'),
  (r'stage(\d)/block\d+/shortcut/norm', r's\1.b{number}.downsample.bn'),
  ('classifier', 'head.fc'),
)
BLOCK = r'stage(\d)/block(\d+)'
TORCHVISION_BLOCK = r'trunk_output.block\1.block\1-\2'
TORCHVISION = (
  ('stem/conv', 'stem.0'),
  ('stem/norm', 'stem.1'),
  *((f'{BLOCK}/conv{index}/{ours}', f'{TORCHVISION_BLOCK}.f.{letter}.{theirs}')
    for index, letter in enumerate('abc', 1) for ours, theirs in (('conv', 0), ('norm', 1))),
  (f'{BLOCK}/se/reduce', f'{TORCHVISION_BLOCK}.f.se.fc1'),
  (f'{BLOCK}/se/expand', f'{TORCHVISION_BLOCK}.f.se.fc2'),
  (f'{BLOCK}/shortcut/conv', f'{TORCHVISION_BLOCK}.proj.0'),
  (f'{BLOCK}/shortcut/norm', f'{TORCHVISION_BLOCK}.proj.1'),
  ('classifier', 'fc'),
)


class RegNet(nn.Module):
  """`stem`, `stage1` to `stage4`, `classifier`; counts in the module's docstring.

  Attributes:
    stages: blocks and channels of each stage, the paper's d_i and w_i; each starts with stride 2.
    group_width: the paper's g.
    se_ratio: of the squeeze-and-excitation, 0 for none (RegNetX).
    classes: number of logits.
    reference: whose names `torch_name` gives.
    dtype: of the computation; the last layer is float32.
  """

  stages: tuple[Row, ...]
  group_width: int
  se_ratio: float = 0.25
  classes: int = 1000
  reference: Literal['timm', 'torchvision'] = 'timm'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    x = ConvNorm(STEM_CHANNELS, 3, 2, dtype=self.dtype, name='stem')(x, train)
    for index, (blocks, channels) in enumerate(self.stages, 1):
      block = functools.partial(
          RegNetBlock, channels, self.group_width, se_ratio=self.se_ratio, dtype=self.dtype)
      x = Stage(block, blocks, 2, name=f'stage{index}')(x, train)
    return classify(x, self.classes, kernel_init=nn.initializers.normal(0.01))

  def torch_name(self, module: str) -> str:
    """The reference's name of a module."""
    if self.reference == 'torchvision':
      return torch_names.torch_name(module, TORCHVISION)
    return self.timm_name(module)

  def timm_name(self, module: str) -> str:
    """timm's name of a module."""
    _, _, block = module.partition('/block')
    number = int(block.partition('/')[0]) + 1 if block else 0
    return torch_names.torch_name(module, TIMM).format(number=number)


def regnety_002(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetY-200MF, timm's."""
  return RegNet(((1, 24), (1, 56), (4, 152), (7, 368)), 8, classes=classes, dtype=dtype)


def regnety_004(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetY-400MF, timm's."""
  return RegNet(((1, 48), (3, 104), (6, 208), (6, 440)), 8, classes=classes, dtype=dtype)


def regnety_006(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetY-600MF, timm's."""
  return RegNet(((1, 48), (3, 112), (7, 256), (4, 608)), 16, classes=classes, dtype=dtype)


def regnety_008(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetY-800MF, timm's."""
  return RegNet(((1, 64), (3, 128), (8, 320), (2, 768)), 16, classes=classes, dtype=dtype)


def regnetx_004(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetX-400MF, timm's."""
  return RegNet(((1, 32), (2, 64), (7, 160), (12, 384)), 16, 0.0, classes, dtype=dtype)


def regnet_y_400mf(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetY-400MF, torchvision's."""
  return RegNet(((1, 48), (3, 104), (6, 208), (6, 440)), 8, 0.25, classes, 'torchvision', dtype)


def regnet_y_800mf(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetY-800MF, torchvision's."""
  return RegNet(((1, 64), (3, 144), (8, 320), (2, 784)), 16, 0.25, classes, 'torchvision', dtype)


def regnet_x_400mf(*, classes: int = 1000, dtype: Any = jnp.float32) -> RegNet:
  """RegNetX-400MF, torchvision's."""
  return RegNet(((1, 32), (2, 64), (7, 160), (12, 400)), 16, 0.0, classes, 'torchvision', dtype)
