"""Conv-2, -4 and -6 for CIFAR of Frankle & Carbin 2019, arXiv:1803.03635, figure 2: small VGGs without BatchNorm.

  network    params       MACs at 32x32    published
  conv2      4,301,642     43,780,608      4.3 M
  conv4      2,425,930     98,306,560      2.4 M
  conv6      2,262,602    153,881,088      1.7 M

The layers that the paper states for Conv-6 give 2.26 M; it is not known what it counted. Deviations: none else.
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.blocks.plain import PlainStage
from lightjax.nn.pooling import max_pool

__all__ = ['conv2', 'conv4', 'conv6']

# Figure 2: channels of the stages, two 3x3 convolutions each; widths of the dense layers before the last.
CHANNELS = (64, 128, 256)
HIDDEN = (256, 256)

init = nn.initializers.glorot_normal()


class ConvCIFAR(nn.Module):
  """`stage1` ... of two convolutions and a pooling, `fc1`, `fc2`, `classifier`; Glorot's Gaussian initialization.

  Attributes:
    stages: how many, from 1 to 3.
    classes: number of logits.
    dtype: of the computation; the last layer is float32.
  """

  stages: int
  classes: int = 10
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    for index, channels in enumerate(CHANNELS[:self.stages], 1):
      x = PlainStage(channels, 2, kernel_init=init, dtype=self.dtype, name=f'stage{index}')(x, train)
      x = max_pool(x, 2, 2)
    x = x.reshape(x.shape[0], -1)
    for index, width in enumerate(HIDDEN, 1):
      x = nn.relu(nn.Dense(width, kernel_init=init, dtype=self.dtype, name=f'fc{index}')(x))
    return nn.Dense(self.classes, kernel_init=init, dtype=jnp.float32, name='classifier')(x)


def conv2(*, classes: int = 10, dtype: Any = jnp.float32) -> ConvCIFAR:
  """Two convolutions, three dense layers."""
  return ConvCIFAR(1, classes, dtype)


def conv4(*, classes: int = 10, dtype: Any = jnp.float32) -> ConvCIFAR:
  """Four convolutions, three dense layers."""
  return ConvCIFAR(2, classes, dtype)


def conv6(*, classes: int = 10, dtype: Any = jnp.float32) -> ConvCIFAR:
  """Six convolutions, three dense layers."""
  return ConvCIFAR(3, classes, dtype)
