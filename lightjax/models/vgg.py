"""VGG of Simonyan & Zisserman 2015, arXiv:1409.1556, table 1, equal to torchvision's.

  network     configuration    params         MACs at 224       published
  vgg11       A                132,863,336     7,609,090,048    133 M
  vgg13       B                133,047,848    11,308,466,176    133 M
  vgg16       D                138,357,544    15,470,264,320    138 M
  vgg19       E                143,667,240    19,632,062,464    144 M
  vgg11_bn    A                132,868,840     7,609,090,048    -
  vgg13_bn    B                133,053,736    11,308,466,176    -
  vgg16_bn    D                138,365,992    15,470,264,320    -
  vgg19_bn    E                143,678,248    19,632,062,464    -

Deviations from the paper: none in shape at 224; other sizes are averaged to 7x7 before the dense layers. With 'bn'
there is BatchNorm after each convolution, which the paper has not. The small networks for CIFAR are in `vgg_cifar`.
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.blocks.plain import PlainStage
from lightjax.nn.pooling import adaptive_average_pool, max_pool

__all__ = ['vgg11', 'vgg11_bn', 'vgg13', 'vgg13_bn', 'vgg16', 'vgg16_bn', 'vgg19', 'vgg19_bn']

# Table 1: channels of the five stages, and convolutions in each.
CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

# Height and width of what is flattened; width of the two dense layers before the last.
SIZE, HIDDEN = 7, 4096

# Places in torchvision's `classifier`, where ReLU and dropout count; and timm's, whose first two are convolutions.
DENSE = {'fc1': 'classifier.0', 'fc2': 'classifier.3', 'classifier': 'classifier.6'}
TIMM_DENSE = {'fc1': 'pre_logits.fc1', 'fc2': 'pre_logits.fc2', 'classifier': 'head.fc'}


class VGG(nn.Module):
  """`stage1` to `stage5`, a pooling after each, `fc1`, `fc2`, `classifier`.

  Attributes:
    depth: 11, 13, 16 or 19 weighted layers, see `CONVOLUTIONS`.
    batch_norm: whether there is BatchNorm after the convolutions.
    classes: number of logits.
    dropout: rate after the two hidden dense layers, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """

  depth: int
  batch_norm: bool = False
  classes: int = 1000
  dropout: float = 0.5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.depth not in CONVOLUTIONS:
      raise ValueError(f'vgg: depth {self.depth} is none of {tuple(CONVOLUTIONS)}.')
    for index, (channels, convolutions) in enumerate(zip(CHANNELS, CONVOLUTIONS[self.depth], strict=True), 1):
      x = PlainStage(channels, convolutions, self.batch_norm, dtype=self.dtype, name=f'stage{index}')(x, train)
      x = max_pool(x, 2, 2)
    x = adaptive_average_pool(x, SIZE)
    x = x.reshape(x.shape[0], -1)
    init = nn.initializers.normal(0.01)
    for name in ('fc1', 'fc2'):
      x = nn.relu(nn.Dense(HIDDEN, kernel_init=init, dtype=self.dtype, name=name)(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.classes, kernel_init=init, dtype=jnp.float32, name='classifier')(x)

  def torch_name(self, module: str) -> str:
    """Torchvision's name of a module."""
    if module in DENSE:
      return DENSE[module]
    return f'features.{sequential_place(module, CONVOLUTIONS[self.depth], batch_norm=self.batch_norm)}'

  def timm_name(self, module: str) -> str:
    """timm's name of a module."""
    return TIMM_DENSE.get(module) or self.torch_name(module)

  def timm_shape(self, array: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """timm's shape of an array."""
    windows = {'fc1/kernel': (CHANNELS[-1], SIZE, SIZE), 'fc2/kernel': (HIDDEN, 1, 1)}
    return (shape[0], *windows[array]) if array in windows else shape

  def torch_flattened(self) -> dict[str, tuple[int, int, int]]:
    """Height, width and channels of what `fc1` flattens."""
    return {'fc1': (SIZE, SIZE, CHANNELS[-1])}


def sequential_place(module: str, convolutions: tuple[int, ...], *, batch_norm: bool) -> int:
  """Where a module stands in one `torch.nn.Sequential` of all stages, in which ReLU and poolings count.

  Args:
    module: 'stage2/conv1' or 'stage2/norm1'.
    convolutions: in each stage, which ends in a pooling.
    batch_norm: whether a BatchNorm follows each convolution.
  Returns:
    Index from 0.
  Example:
    >>> sequential_place('stage2/conv1', (1, 1), batch_norm=False)
    3
  """
  stage, _, layer = module.partition('/')
  before = int(stage.removeprefix('stage')) - 1
  each = 3 if batch_norm else 2
  return each * (sum(convolutions[:before]) + int(layer[4:]) - 1) + before + layer.startswith('norm')


def vgg11(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration A."""
  return VGG(11, False, classes, dropout, dtype)


def vgg11_bn(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration A with BatchNorm."""
  return VGG(11, True, classes, dropout, dtype)


def vgg13(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration B."""
  return VGG(13, False, classes, dropout, dtype)


def vgg13_bn(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration B with BatchNorm."""
  return VGG(13, True, classes, dropout, dtype)


def vgg16(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration D."""
  return VGG(16, False, classes, dropout, dtype)


def vgg16_bn(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration D with BatchNorm."""
  return VGG(16, True, classes, dropout, dtype)


def vgg19(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration E."""
  return VGG(19, False, classes, dropout, dtype)


def vgg19_bn(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> VGG:
  """Configuration E with BatchNorm."""
  return VGG(19, True, classes, dropout, dtype)
