"""GoogLeNet of Szegedy et al. 2015, arXiv:1409.4842, table 1, equal to torchvision's.

  network                        params        MACs at 224      published
  without auxiliary heads         6,624,904    1,498,376,192    6.8 M, 1.5 G
  with them                      13,004,888    1,498,376,192    -

Counted in evaluation, where the auxiliary heads do not run. Deviations from the paper, all torchvision's: BatchNorm
after every convolution and no local response normalization, the third branch has 3x3 convolutions (`window3=5` gives
the paper's), and dropout is 0.2 instead of 0.4.
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.inception import EPSILON, InceptionV1
from lightjax.nn.layers import ConvNorm
from lightjax.nn.pooling import adaptive_average_pool, max_pool

__all__ = ['googlenet']

Module = tuple[int, tuple[int, int], tuple[int, int], int]

# Table 1: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool proj.
MODULES: dict[str, Module] = {
  '3a': (64, (96, 128), (16, 32), 32), '3b': (128, (128, 192), (32, 96), 64),
  '4a': (192, (96, 208), (16, 48), 64), '4b': (160, (112, 224), (24, 64), 64), '4c': (128, (128, 256), (24, 64), 64),
  '4d': (112, (144, 288), (32, 64), 64), '4e': (256, (160, 320), (32, 128), 128),
  '5a': (256, (160, 320), (32, 128), 128), '5b': (384, (192, 384), (48, 128), 128),
}
# Window and stride of the pooling after a module; auxiliary heads after a module.
POOLS = {'3b': (3, 2), '4e': (2, 2)}
AUXILIARY = {'4a': 'aux1', '4d': 'aux2'}
AUXILIARY_SIZE, AUXILIARY_CHANNELS = 4, 128

init = nn.initializers.truncated_normal(0.01)

TORCHVISION = (
  (r'(conv\d|inception\w\w/branch[14]|aux\d/conv)/conv', r'\1.conv'),
  (r'(conv\d|inception\w\w/branch[14]|aux\d/conv)/norm', r'\1.bn'),
  (r'(inception\w\w/branch[23])_1/conv', r'\1.0.conv'),
  (r'(inception\w\w/branch[23])_1/norm', r'\1.0.bn'),
  (r'(inception\w\w/branch[23])_2/conv', r'\1.1.conv'),
  (r'(inception\w\w/branch[23])_2/norm', r'\1.1.bn'),
  (r'(aux\d/fc\d)', r'\1'),
  ('classifier', 'fc'),
)


class AuxiliaryHead(nn.Module):
  """4x4 average pooling, 1x1 convolution, two dense layers (section 5): `conv`, `fc1`, `fc2`."""

  classes: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of features."""
    x = adaptive_average_pool(x, AUXILIARY_SIZE)
    x = ConvNorm(
        AUXILIARY_CHANNELS, 1, kernel_init=init, epsilon=EPSILON, dtype=self.dtype, name='conv')(x, train)
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(nn.Dense(1024, kernel_init=init, dtype=self.dtype, name='fc1')(x))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.classes, kernel_init=init, dtype=jnp.float32, name='fc2')(x)


class GoogLeNet(nn.Module):
  """`conv1` to `conv3`, `inception3a` to `inception5b`, `classifier`, and `aux1` and `aux2` if asked for.

  Attributes:
    classes: number of logits.
    aux_logits: whether there are auxiliary heads; in training the network then returns (logits, aux1's, aux2's).
    window3: of the third branches, see the module's docstring.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    aux_dropout: the same in the auxiliary heads.
    dtype: of the computation; the last layers are float32.
  """

  classes: int = 1000
  aux_logits: bool = False
  window3: int = 3
  dropout: float = 0.2
  aux_dropout: float = 0.7
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self, x: Float[Array, 'b h w c'], train: bool = False,
  ) -> Float[Array, 'b classes'] | tuple[Float[Array, 'b classes'], ...]:
    """Logits of a batch of images; with those of the auxiliary heads in training, if there are any."""
    def conv(features: int, window: int, strides: int, name: str, x: Array) -> Array:
      return ConvNorm(
          features, window, strides, kernel_init=init, epsilon=EPSILON, dtype=self.dtype, name=name)(x, train)

    x = max_pool(conv(64, 7, 2, 'conv1', x), 3, 2, ceil=True)
    x = conv(192, 3, 1, 'conv3', conv(64, 1, 1, 'conv2', x))
    x = max_pool(x, 3, 2, ceil=True)
    auxiliary = []
    for name, row in MODULES.items():
      x = InceptionV1(*row, self.window3, init, self.dtype, name=f'inception{name}')(x, train)
      # Created with the others when the network is initialized, in whatever mode.
      if self.aux_logits and name in AUXILIARY and (train or self.is_initializing()):
        auxiliary.append(AuxiliaryHead(self.classes, self.aux_dropout, self.dtype, name=AUXILIARY[name])(x, train))
      if name in POOLS:
        x = max_pool(x, *POOLS[name], ceil=True)
    logits = classify(x, self.classes, dropout=self.dropout, train=train, kernel_init=init)
    return (logits, *auxiliary) if auxiliary and train else logits

  def torch_name(self, module: str) -> str:
    """Torchvision's name of a module."""
    name = torch_names.torch_name(module, TORCHVISION)
    # The fourth branch is a pooling and then the convolution.
    return name.replace('branch4', 'branch4.1').replace('/', '.')

  def torch_flattened(self) -> dict[str, tuple[int, int, int]]:
    """Height, width and channels of what the auxiliary heads flatten."""
    shape = AUXILIARY_SIZE, AUXILIARY_SIZE, AUXILIARY_CHANNELS
    return {f'{head}/fc1': shape for head in AUXILIARY.values()} if self.aux_logits else {}


def googlenet(
    *, classes: int = 1000, aux_logits: bool = False, window3: int = 3, dropout: float = 0.2, aux_dropout: float = 0.7,
    dtype: Any = jnp.float32,
) -> GoogLeNet:
  """GoogLeNet; see the class."""
  return GoogLeNet(classes, aux_logits, window3, dropout, aux_dropout, dtype)
