"""EfficientNet of Tan & Le 2019, arXiv:1905.11946, equal to torchvision's, and the Lite networks.

  network            size  params        MACs         published, from memory (table 2)
  efficientnet_b0    224    5,288,548      385.8 M    5.3 M, 0.39 G
  efficientnet_b1    240    7,794,184      686.8 M    7.8 M, 0.70 G
  efficientnet_b2    260    9,109,994      993.6 M    9.2 M, 1.0 G
  efficientnet_b3    300   12,233,232    1,827.1 M    12 M, 1.8 G
  efficientnet_b4    380   19,341,616    4,393.8 M    19 M, 4.2 G
  efficientnet_b5    456   30,389,784   10,266.4 M    30 M, 9.9 G
  efficientnet_b6    528   43,040,704   19,067.6 M    43 M, 19 G
  efficientnet_b7    600   66,347,960   37,745.9 M    66 M, 37 G

  network            size  params        MACs         published (the reference code's README)
  efficientnet_lite0 224    4,652,008      385.2 M    4.7 M, 407 M
  efficientnet_lite1 240    5,416,680      600.2 M    5.4 M, 631 M
  efficientnet_lite2 260    6,092,072      859.7 M    6.1 M, 899 M
  efficientnet_lite3 280    8,197,096    1,383.3 M    8.2 M, 1.44 G
  efficientnet_lite4 300   13,006,568    2,553.0 M    13.0 M, 2.64 G

Squeeze-excite reduces to a quarter of the block's input channels, with swish and a sigmoid; stochastic depth grows to
0.2. Lite, for hardware without these operations: no squeeze-excite, ReLU6, stem, head and the blocks of the first and
last stage not scaled. Deviations from the reference code: padding is PyTorch's, `window // 2` zeros on all sides, where
TensorFlow pads one zero more after than before at stride 2; BatchNorm's epsilon is 1e-5 in B0 to B4 and in Lite, where
the reference has 1e-3. `padding='SAME', epsilon=1e-3` undoes both.
"""
from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from lightjax.models.mobile import MobileNetwork, Row, Stem

__all__ = [
  'efficientnet_b0', 'efficientnet_b1', 'efficientnet_b2', 'efficientnet_b3', 'efficientnet_b4', 'efficientnet_b5',
  'efficientnet_b6', 'efficientnet_b7', 'efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2',
  'efficientnet_lite3', 'efficientnet_lite4',
]

# Table 1: expansion, window, channels, layers, stride; SE everywhere (section 4).
STAGES = (
  Row(1, 3, 16, 1, 1, 0.25), Row(6, 3, 24, 2, 2, 0.25), Row(6, 5, 40, 2, 2, 0.25), Row(6, 3, 80, 3, 2, 0.25),
  Row(6, 5, 112, 3, 1, 0.25), Row(6, 5, 192, 4, 2, 0.25), Row(6, 3, 320, 1, 1, 0.25),
)


class Scaling(NamedTuple):
  """What compound scaling (equation 3, rounded by the authors) gives a network.

  Attributes:
    width: of `MobileNetwork`.
    depth: of `MobileNetwork`.
    resolution: height and width of the images that it is meant for, pixels.
    dropout: rate before the classifier.
    epsilon: of BatchNorm in torchvision and timm.
    momentum: of BatchNorm in torchvision and timm.
  """
  width: float
  depth: float
  resolution: int
  dropout: float
  epsilon: float = 1e-5
  momentum: float = 0.9


SCALINGS = {
  'efficientnet_b0': Scaling(1.0, 1.0, 224, 0.2),
  'efficientnet_b1': Scaling(1.0, 1.1, 240, 0.2),
  'efficientnet_b2': Scaling(1.1, 1.2, 260, 0.3),
  'efficientnet_b3': Scaling(1.2, 1.4, 300, 0.3),
  'efficientnet_b4': Scaling(1.4, 1.8, 380, 0.4),
  'efficientnet_b5': Scaling(1.6, 2.2, 456, 0.4, 1e-3, 0.99),
  'efficientnet_b6': Scaling(1.8, 2.6, 528, 0.5, 1e-3, 0.99),
  'efficientnet_b7': Scaling(2.0, 3.1, 600, 0.5, 1e-3, 0.99),
  'efficientnet_lite0': Scaling(1.0, 1.0, 224, 0.2),
  'efficientnet_lite1': Scaling(1.0, 1.1, 240, 0.2),
  'efficientnet_lite2': Scaling(1.1, 1.2, 260, 0.3),
  'efficientnet_lite3': Scaling(1.2, 1.4, 280, 0.3),
  'efficientnet_lite4': Scaling(1.4, 1.8, 300, 0.3),
}


class EfficientNet(MobileNetwork):
  """Stages of `STAGES`, scaled; counts in the module's docstring."""

  family: ClassVar[str] = 'efficientnet'
  timm_arguments: ClassVar[dict[str, Any]] = {'epsilon': 1e-5}

  def head_channels(self) -> int:
    """Channels of `head`: four times those of the last stage."""
    return 4 * self.blocks()[-1][-1].features

  def torch_name(self, module: str) -> str:
    """torchvision's name of a module."""
    if module == 'classifier':
      return 'classifier.1'
    if not module.startswith('stage'):
      layer, leaf = module.split('/')
      return f'features.{0 if layer == "stem" else 1 + len(self.stages)}.{("conv", "norm").index(leaf)}'
    stage, block, part, leaf = self.located(module)
    parts = ['expand', 'depthwise', 'squeeze_excite', 'project'][not self.expands(self.blocks()[stage][block]):]
    leaf = {'conv': '0', 'norm': '1', 'reduce': 'fc1', 'expand': 'fc2'}[leaf]
    return f'features.{stage + 1}.{block}.block.{parts.index(part)}.{leaf}'


class EfficientNetLite(MobileNetwork):
  """Stages of `STAGES` without squeeze-excite, scaled; counts in the module's docstring."""

  family: ClassVar[str] = 'efficientnet_lite'


def _network(
    name: str, classes: int, stem: Stem, dropout: float | None, drop_path: float, padding: str, epsilon: float | None,
    dtype: Any,
) -> EfficientNet:
  scaling = SCALINGS[name]
  return EfficientNet(
      tuple((row,) for row in STAGES), scaling.width, scaling.depth, classes, stem,
      scaling.dropout if dropout is None else dropout, drop_path, activation='swish', squeeze_activation='swish',
      padding=padding, epsilon=scaling.epsilon if epsilon is None else epsilon, momentum=scaling.momentum, dtype=dtype)


def _lite_network(
    name: str, classes: int, stem: Stem, dropout: float | None, drop_path: float, padding: str, epsilon: float | None,
    dtype: Any,
) -> EfficientNetLite:
  scaling = SCALINGS[name]
  return EfficientNetLite(
      tuple((row._replace(squeeze=0),) for row in STAGES), scaling.width, scaling.depth, classes, stem,
      scaling.dropout if dropout is None else dropout, drop_path, fixed=('stem', 'head'), fixed_ends=True,
      padding=padding, epsilon=scaling.epsilon if epsilon is None else epsilon, dtype=dtype)


def efficientnet_b0(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B0, for images of 224x224.

  Args:
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    dropout: rate before the classifier, in training; None for that of `SCALINGS`. Needs the rng 'dropout'.
    drop_path: rate of stochastic depth at the end, in training; it grows from 0. Needs the rng 'dropout'.
    padding: 'torch' or 'SAME', see the module's docstring.
    epsilon: of BatchNorm; None for that of `SCALINGS`.
    dtype: of the computation; the last layer is float32.
  """
  return _network('efficientnet_b0', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_b1(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B1, for images of 240x240; the arguments are those of `efficientnet_b0`."""
  return _network('efficientnet_b1', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_b2(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B2, for images of 260x260; the arguments are those of `efficientnet_b0`."""
  return _network('efficientnet_b2', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_b3(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B3, for images of 300x300; the arguments are those of `efficientnet_b0`."""
  return _network('efficientnet_b3', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_b4(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B4, for images of 380x380; the arguments are those of `efficientnet_b0`."""
  return _network('efficientnet_b4', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_b5(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B5, for images of 456x456; the arguments are those of `efficientnet_b0`."""
  return _network('efficientnet_b5', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_b6(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B6, for images of 528x528; the arguments are those of `efficientnet_b0`."""
  return _network('efficientnet_b6', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_b7(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNet:
  """EfficientNet-B7, for images of 600x600; the arguments are those of `efficientnet_b0`."""
  return _network('efficientnet_b7', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_lite0(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNetLite:
  """EfficientNet-Lite0, for images of 224x224; the arguments are those of `efficientnet_b0`."""
  return _lite_network('efficientnet_lite0', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_lite1(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNetLite:
  """EfficientNet-Lite1, for images of 240x240; the arguments are those of `efficientnet_b0`."""
  return _lite_network('efficientnet_lite1', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_lite2(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNetLite:
  """EfficientNet-Lite2, for images of 260x260; the arguments are those of `efficientnet_b0`."""
  return _lite_network('efficientnet_lite2', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_lite3(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNetLite:
  """EfficientNet-Lite3, for images of 280x280; the arguments are those of `efficientnet_b0`."""
  return _lite_network('efficientnet_lite3', classes, stem, dropout, drop_path, padding, epsilon, dtype)


def efficientnet_lite4(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float | None = None, drop_path: float = 0.2,
    padding: str = 'torch', epsilon: float | None = None, dtype: Any = jnp.float32,
) -> EfficientNetLite:
  """EfficientNet-Lite4, for images of 300x300; the arguments are those of `efficientnet_b0`."""
  return _lite_network('efficientnet_lite4', classes, stem, dropout, drop_path, padding, epsilon, dtype)
