"""Wide ResNets for CIFAR of Zagoruyko & Komodakis 2016, arXiv:1605.07146: `wrn_depth_width`.

With 10 classes:

  network      params        published    MACs at 32x32
  wrn_16_1        175,066    -               26,657,408
  wrn_16_2        691,674    -              101,106,944
  wrn_16_4      2,748,890    2.7 M          392,612,352
  wrn_16_8     10,961,370    11.0 M       1,548,145,664
  wrn_22_2      1,079,642    -              157,730,048
  wrn_28_10    36,479,194    36.5 M       5,243,328,768
  wrn_40_1        563,930    0.6 M           83,280,512
  wrn_40_2      2,243,546    2.2 M          327,599,360
  wrn_40_4      8,949,210    8.9 M        1,298,582,016

6n + 4 weighted layers: as in `preact_resnet`, but the 1x1 shortcuts count, so that n = (depth - 4) / 6 blocks a stage.
Deviations: none. The paper's dropout of 0.3 is between the convolutions of a block and off unless asked for.
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from lightjax.models import torch_names
from lightjax.models.preact_resnet import PreActResNet

__all__ = [
  'wrn_16_1', 'wrn_16_2', 'wrn_16_4', 'wrn_16_8', 'wrn_22_2', 'wrn_28_10', 'wrn_40_1', 'wrn_40_2', 'wrn_40_4',
]

REPDISTILLER = (
  ('stem', 'conv1'),
  ('norm', 'bn1'),
  (r'stage(\d)/block(\d+)/conv(\d)', r'block\1.layer.\2.conv\3'),
  (r'stage(\d)/block(\d+)/norm(\d)', r'block\1.layer.\2.bn\3'),
  (r'stage(\d)/block(\d+)/shortcut_conv', r'block\1.layer.\2.convShortcut'),
  ('classifier', 'fc'),
)


class WideResNet(PreActResNet):
  """A wide pre-activation ResNet of basic blocks; `depth` counts 6n + 4, attributes of `PreActResNet`."""

  def torch_name(self, module: str) -> str:
    """RepDistiller's name of a module."""
    return torch_names.torch_name(module, REPDISTILLER)

  def _blocks(self) -> int:
    blocks, rest = divmod(self.depth - 4, 6)
    if rest or blocks < 1 or self.block != 'basic':
      raise ValueError(f'a Wide ResNet has 6n + 4 layers (16, 22, 28, 40, ...) in basic blocks, not {self.depth} in '
                       f'{self.block} blocks.')
    return blocks


def wrn_16_1(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """16 layers, 1 times as wide, 2 blocks a stage."""
  return WideResNet(16, classes=classes, width=1, dropout=dropout, dtype=dtype)


def wrn_16_2(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """16 layers, 2 times as wide, 2 blocks a stage."""
  return WideResNet(16, classes=classes, width=2, dropout=dropout, dtype=dtype)


def wrn_16_4(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """16 layers, 4 times as wide, 2 blocks a stage."""
  return WideResNet(16, classes=classes, width=4, dropout=dropout, dtype=dtype)


def wrn_16_8(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """16 layers, 8 times as wide, 2 blocks a stage."""
  return WideResNet(16, classes=classes, width=8, dropout=dropout, dtype=dtype)


def wrn_22_2(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """22 layers, 2 times as wide, 3 blocks a stage."""
  return WideResNet(22, classes=classes, width=2, dropout=dropout, dtype=dtype)


def wrn_28_10(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """28 layers, 10 times as wide, 4 blocks a stage."""
  return WideResNet(28, classes=classes, width=10, dropout=dropout, dtype=dtype)


def wrn_40_1(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """40 layers, 1 times as wide, 6 blocks a stage."""
  return WideResNet(40, classes=classes, width=1, dropout=dropout, dtype=dtype)


def wrn_40_2(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """40 layers, 2 times as wide, 6 blocks a stage."""
  return WideResNet(40, classes=classes, width=2, dropout=dropout, dtype=dtype)


def wrn_40_4(*, classes: int = 10, dropout: float = 0.0, dtype: Any = jnp.float32) -> WideResNet:
  """40 layers, 4 times as wide, 6 blocks a stage."""
  return WideResNet(40, classes=classes, width=4, dropout=dropout, dtype=dtype)
