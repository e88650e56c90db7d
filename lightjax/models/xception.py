"""Xception of Chollet 2017, arXiv:1610.02357, figure 5, equal to timm's `legacy_xception`.

22,855,952 params (published: 22,855,952), 8,357,403,496 MACs at 299 (published: -).

Deviations: poolings pad one pixel on all sides, like timm's and unlike the paper's own SAME padding in Keras, which
differs on even sizes; no dropout before the classifier unless asked for (0.5 in the paper's training).
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.separable import SeparableConvNorm, XceptionBlock
from lightjax.nn.layers import ConvNorm

__all__ = ['xception']

# Figure 5, the blocks with a shortcut: output channels of their separable convolutions, stride.
ENTRY = (((128, 128), 2), ((256, 256), 2), ((728, 728), 2))
MIDDLE = (((728, 728, 728), 1),) * 8
EXIT = (((728, 1024), 2),)
BLOCKS = (*ENTRY, *MIDDLE, *EXIT)

TIMM = (
  (r'conv(\d)/(conv|depthwise)', r'conv\1{depthwise}'),
  (r'conv(\d)/pointwise', r'conv\1.pointwise'),
  (r'conv(\d)/norm', r'bn\1'),
  (r'block(\d+)/shortcut/conv', r'block\1.skip'),
  (r'block(\d+)/shortcut/norm', r'block\1.skipbn'),
  (r'block(\d+)/separable\d/depthwise', r'block\1.rep.{place}.conv1'),
  (r'block(\d+)/separable\d/pointwise', r'block\1.rep.{place}.pointwise'),
  (r'block(\d+)/separable\d/norm', r'block\1.rep.{place_of_norm}'),
  ('classifier', 'fc'),
)


class Xception(nn.Module):
  """`conv1`, `conv2`, `block1` to `block12`, `conv3`, `conv4`, `classifier`; counts in the module's docstring.

  Attributes:
    classes: number of logits.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """

  classes: int = 1000
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    x = ConvNorm(32, 3, 2, padding='VALID', dtype=self.dtype, name='conv1')(x, train)
    x = ConvNorm(64, 3, padding='VALID', dtype=self.dtype, name='conv2')(x, train)
    for index, (features, strides) in enumerate(BLOCKS, 1):
      x = XceptionBlock(features, strides, index > 1, self.dtype, name=f'block{index}')(x, train)
    for name, channels in (('conv3', 1536), ('conv4', 2048)):
      x = nn.relu(SeparableConvNorm(channels, self.dtype, name=name)(x, train))
    return classify(x, self.classes, dropout=self.dropout, train=train)

  def torch_name(self, module: str) -> str:
    """Timm's name of a module."""
    block, _, layer = module.partition('/separable')
    # A sequence of ReLU, separable convolution, BatchNorm; the first block starts without ReLU.
    place = 3 * (int(layer[0]) - 1) + (block != 'block1') if layer else 0
    depthwise = '.conv1' if module.endswith('depthwise') else ''
    return torch_names.torch_name(module, TIMM).format(depthwise=depthwise, place=place, place_of_norm=place + 1)


def xception(*, classes: int = 1000, dropout: float = 0.0, dtype: Any = jnp.float32) -> Xception:
  """Xception; see the class."""
  return Xception(classes, dropout, dtype)
