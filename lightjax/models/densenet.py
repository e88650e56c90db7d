"""DenseNets of Huang et al. 2017, arXiv:1608.06993, the ImageNet ones equal to torchvision's.

  network               params        MACs            published    resolution, classes
  densenet121            7,978,856    2,834,161,664    8.0 M       224, 1000
  densenet161           28,681,000    7,727,907,072   28.7 M       224, 1000
  densenet169           14,149,480    3,359,843,328   14.2 M       224, 1000
  densenet201           20,013,928    4,291,365,888   20.0 M       224, 1000
  densenet40             1,019,722      264,812,928    1.0 M       32, 10
  densenet100            6,979,642    1,769,516,448    7.0 M       32, 10
  densenet_bc_40           176,122       72,365,352    -           32, 10
  densenet_bc_100          769,162      287,929,692    0.8 M       32, 10
  densenet_bc_250       15,324,406    5,418,785,724   15.3 M       32, 10
  densenet_bc_190       25,624,430    9,301,945,740   25.6 M       32, 10

The CIFAR networks (section 4.2) have three blocks; without 'bc' there is neither bottleneck nor compression. The
paper's dropout of 0.2, for CIFAR without augmentation, is off unless asked for. Network Slimming's DenseNet-40 has 24
channels in the stem: 1,059,298 params (1,068,658 with its channel selectors), 282,917,328 MACs. Deviations: none.
"""
from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.dense import DenseBlock, Transition
from lightjax.nn.layers import BatchNorm, Conv, he_fan_out
from lightjax.nn.pooling import max_pool

__all__ = [
  'densenet40',
  'densenet100',
  'densenet121',
  'densenet161',
  'densenet169',
  'densenet201',
  'densenet_bc_40',
  'densenet_bc_100',
  'densenet_bc_190',
  'densenet_bc_250',
]

Stem = Literal['imagenet', 'cifar']

TORCHVISION = (
  (r'stem_(conv|norm)', r'features.\g<1>0'),
  (r'transition(\d+)/(conv|norm)', r'features.transition\1.\2'),
  ('norm', 'features.norm{last}'),
  ('classifier', 'classifier'),
)


class DenseNet(nn.Module):
  """`stem_conv`, `stem_norm`, then `stage1`, `transition1`, `stage2` ..., `norm`, `classifier`.

  Attributes:
    layers: dense layers in each block.
    growth: the paper's k.
    stem_features: channels of the first convolution.
    bottleneck: channels of the 1x1 convolutions in multiples of k; 0 for none.
    compression: the paper's theta, channels after a transition for one before.
    dropout: rate after each convolution but the first, in training; needs the rng 'dropout'.
    classes: number of logits.
    stem: 'imagenet' (7x7, stride 2, norm, pooling) or 'cifar' (3x3 and nothing else).
    dtype: of the computation; the last layer is float32.
  """

  layers: tuple[int, ...]
  growth: int
  stem_features: int
  bottleneck: int = 4
  compression: float = 0.5
  dropout: float = 0.0
  classes: int = 1000
  stem: Stem = 'imagenet'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    def norm(x: Array, name: str) -> Array:
      return nn.relu(BatchNorm(use_running_average=not train, dtype=self.dtype, name=name)(x))

    if self.stem not in ('imagenet', 'cifar'):
      raise ValueError(f"densenet: stem {self.stem!r} is none of ('imagenet', 'cifar').")
    window, strides = (7, 2) if self.stem == 'imagenet' else (3, 1)
    x = Conv(
        self.stem_features, (window, window), strides=strides, padding=window // 2, use_bias=False,
        kernel_init=he_fan_out, dtype=self.dtype, name='stem_conv')(x)
    if self.stem == 'imagenet':
      x = max_pool(norm(x, 'stem_norm'), 3, 2, padding=1)
    for index, layers in enumerate(self.layers, 1):
      x = DenseBlock(layers, self.growth, self.bottleneck, self.dropout, self.dtype, name=f'stage{index}')(x, train)
      if index < len(self.layers):
        features = int(x.shape[-1] * self.compression)
        x = Transition(features, self.dropout, self.dtype, name=f'transition{index}')(x, train)
    return classify(norm(x, 'norm'), self.classes)

  def torch_name(self, module: str) -> str:
    """The name of a module in torchvision's `DenseNet`."""
    stage, _, rest = module.partition('/layer')
    if rest:
      layer, _, name = rest.partition('/')
      return f'features.denseblock{stage.removeprefix("stage")}.denselayer{int(layer) + 1}.{name}'
    return torch_names.torch_name(module, TORCHVISION).format(last=len(self.layers) + 1)


def densenet121(
    *, classes: int = 1000, growth: int = 32, dropout: float = 0.0, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> DenseNet:
  """121 layers, k = 32 (table 1)."""
  return DenseNet((6, 12, 24, 16), growth, 2 * growth, dropout=dropout, classes=classes, stem=stem, dtype=dtype)


def densenet161(
    *, classes: int = 1000, growth: int = 48, dropout: float = 0.0, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> DenseNet:
  """161 layers, k = 48."""
  return DenseNet((6, 12, 36, 24), growth, 2 * growth, dropout=dropout, classes=classes, stem=stem, dtype=dtype)


def densenet169(
    *, classes: int = 1000, growth: int = 32, dropout: float = 0.0, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> DenseNet:
  """169 layers, k = 32 (table 1)."""
  return DenseNet((6, 12, 32, 32), growth, 2 * growth, dropout=dropout, classes=classes, stem=stem, dtype=dtype)


def densenet201(
    *, classes: int = 1000, growth: int = 32, dropout: float = 0.0, stem: Stem = 'imagenet', dtype: Any = jnp.float32,
) -> DenseNet:
  """201 layers, k = 32 (table 1)."""
  return DenseNet((6, 12, 48, 32), growth, 2 * growth, dropout=dropout, classes=classes, stem=stem, dtype=dtype)


def densenet40(
    *, classes: int = 10, growth: int = 12, stem_features: int = 16, dropout: float = 0.0, dtype: Any = jnp.float32,
) -> DenseNet:
  """40 layers, k = 12, for CIFAR (table 2)."""
  return _cifar(40, growth, stem_features, False, dropout, classes, dtype)


def densenet100(
    *, classes: int = 10, growth: int = 12, stem_features: int = 16, dropout: float = 0.0, dtype: Any = jnp.float32,
) -> DenseNet:
  """100 layers, k = 12 (24 is in table 2, too), for CIFAR."""
  return _cifar(100, growth, stem_features, False, dropout, classes, dtype)


def densenet_bc_40(
    *, classes: int = 10, growth: int = 12, dropout: float = 0.0, dtype: Any = jnp.float32,
) -> DenseNet:
  """40 layers with bottlenecks and compression, k = 12, for CIFAR; not in the paper."""
  return _cifar(40, growth, 2 * growth, True, dropout, classes, dtype)


def densenet_bc_100(
    *, classes: int = 10, growth: int = 12, dropout: float = 0.0, dtype: Any = jnp.float32,
) -> DenseNet:
  """100 layers with bottlenecks and compression, k = 12, for CIFAR (table 2)."""
  return _cifar(100, growth, 2 * growth, True, dropout, classes, dtype)


def densenet_bc_250(
    *, classes: int = 10, growth: int = 24, dropout: float = 0.0, dtype: Any = jnp.float32,
) -> DenseNet:
  """250 layers with bottlenecks and compression, k = 24, for CIFAR (table 2)."""
  return _cifar(250, growth, 2 * growth, True, dropout, classes, dtype)


def densenet_bc_190(
    *, classes: int = 10, growth: int = 40, dropout: float = 0.0, dtype: Any = jnp.float32,
) -> DenseNet:
  """190 layers with bottlenecks and compression, k = 40, for CIFAR (table 2)."""
  return _cifar(190, growth, 2 * growth, True, dropout, classes, dtype)


def _cifar(
    depth: int, growth: int, stem_features: int, compressed: bool, dropout: float, classes: int, dtype: Any,
) -> DenseNet:
  layers = (depth - 4) // (6 if compressed else 3)
  bottleneck, compression = (4, 0.5) if compressed else (0, 1.0)
  return DenseNet((layers,) * 3, growth, stem_features, bottleneck, compression, dropout, classes, 'cifar', dtype)
