"""Inception-v3 of Szegedy et al. 2016, arXiv:1512.00567, table 1, equal to torchvision's.

  network                       params        MACs at 299      published
  without auxiliary head        23,834,568    5,713,216,096    < 25 M, 5 G
  with it                       27,161,264    5,713,216,096    -

Counted in evaluation, where the auxiliary head does not run. Deviations from the paper, those of the authors' code,
which all implementations follow: the stem ends with a 1x1 and a 3x3 convolution and a pooling (table 1 has three 3x3
convolutions), and the 35x35 modules keep one branch of 5x5 convolutions.
"""
from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.inception import EPSILON, InceptionA, InceptionB, InceptionC, ReductionA, ReductionB
from lightjax.nn.layers import ConvNorm
from lightjax.nn.pooling import average_pool, max_pool

__all__ = ['inception_v3']

init = nn.initializers.truncated_normal(0.1)

# The modules in their order; the number is the pooling branch's or the factorized branches' channels.
MODULES: dict[str, Callable[..., Any]] = {
  'mixed5b': functools.partial(InceptionA, 32), 'mixed5c': functools.partial(InceptionA, 64),
  'mixed5d': functools.partial(InceptionA, 64), 'mixed6a': ReductionA, 'mixed6b': functools.partial(InceptionB, 128),
  'mixed6c': functools.partial(InceptionB, 160), 'mixed6d': functools.partial(InceptionB, 160),
  'mixed6e': functools.partial(InceptionB, 192), 'mixed7a': ReductionB, 'mixed7b': InceptionC, 'mixed7c': InceptionC,
}
AUXILIARY_AFTER = 'mixed6e'

TORCHVISION = (
  (r'conv(\d)([ab])/(\w+)', r'Conv2d_\1\2_{window}.\3'),
  (r'mixed(\d)([a-e])/(\w+)/(\w+)', r'Mixed_\1\2.\3.\4'),
  (r'aux/conv(\d)/(\w+)', r'AuxLogits.conv\1.\2'),
  ('aux/fc', 'AuxLogits.fc'),
  ('classifier', 'fc'),
)


class AuxiliaryHead(nn.Module):
  """5x5 average pooling, 1x1 and 5x5 convolutions, global average, dense layer: `conv0`, `conv1`, `fc`."""

  classes: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of features."""
    x = average_pool(x, 5, 3)
    x = ConvNorm(128, 1, kernel_init=init, epsilon=EPSILON, dtype=self.dtype, name='conv0')(x, train)
    x = ConvNorm(
        768, 5, padding='VALID', kernel_init=nn.initializers.truncated_normal(0.01), epsilon=EPSILON, dtype=self.dtype,
        name='conv1')(x, train)
    return classify(x, self.classes, kernel_init=nn.initializers.truncated_normal(0.001), name='fc')


class InceptionV3(nn.Module):
  """`conv1a` to `conv4a`, `mixed5b` to `mixed7c`, `classifier`, and `aux` if asked for.

  Attributes:
    classes: number of logits.
    aux_logits: whether there is an auxiliary head; in training the network then returns (logits, the head's). Needs
      images of at least 299x299 or so: the head's last convolution is 5x5 without padding.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layers are float32.
  """

  classes: int = 1000
  aux_logits: bool = False
  dropout: float = 0.5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self, x: Float[Array, 'b h w c'], train: bool = False,
  ) -> Float[Array, 'b classes'] | tuple[Float[Array, 'b classes'], ...]:
    """Logits of a batch of images; with those of the auxiliary head in training, if there is one."""
    conv = functools.partial(ConvNorm, kernel_init=init, epsilon=EPSILON, dtype=self.dtype)
    x = conv(32, 3, 2, padding='VALID', name='conv1a')(x, train)
    x = conv(32, 3, padding='VALID', name='conv2a')(x, train)
    x = max_pool(conv(64, 3, name='conv2b')(x, train), 3, 2)
    x = conv(80, 1, name='conv3b')(x, train)
    x = max_pool(conv(192, 3, padding='VALID', name='conv4a')(x, train), 3, 2)
    auxiliary = []
    for name, module in MODULES.items():
      x = module(dtype=self.dtype, name=name)(x, train)
      # Created with the others when the network is initialized, in whatever mode.
      if self.aux_logits and name == AUXILIARY_AFTER and (train or self.is_initializing()):
        auxiliary.append(AuxiliaryHead(self.classes, self.dtype, name='aux')(x, train))
    logits = classify(x, self.classes, dropout=self.dropout, train=train, kernel_init=init)
    return (logits, *auxiliary) if auxiliary and train else logits

  def torch_name(self, module: str) -> str:
    """Torchvision's name of a module."""
    name = torch_names.torch_name(module, TORCHVISION)
    return re.sub(r'\.norm$', '.bn', name).format(window='1x1' if module.startswith('conv3b') else '3x3')


def inception_v3(
    *, classes: int = 1000, aux_logits: bool = False, dropout: float = 0.5, dtype: Any = jnp.float32,
) -> InceptionV3:
  """Inception-v3; see the class."""
  return InceptionV3(classes, aux_logits, dropout, dtype)
