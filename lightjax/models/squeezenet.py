"""SqueezeNet of Iandola et al. 2016, arXiv:1602.07360, table 1, equal to torchvision's.

  version    params       MACs at 224    published
  1.0        1,248,424    818,924,576    1.25 M params
  1.1        1,235,496    349,151,936    2.4 times less computation than 1.0 (the authors' repository)

Deviations from the paper: none in shape; torchvision's 1.0 has no padding in the stem, and pools of both versions round
up. The last convolution is followed by ReLU, as in the paper, so that no logit is negative.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.blocks.fire import Fire
from lightjax.nn.layers import Conv
from lightjax.nn.pooling import max_pool

__all__ = ['squeezenet1_0', 'squeezenet1_1']


class Version(NamedTuple):
  """What the versions differ in.

  Attributes:
    stem: channels, window and stride of the first convolution, which is followed by a pooling.
    pools: fire modules that a pooling follows.
  """
  stem: tuple[int, int, int]
  pools: tuple[int, ...]


VERSIONS = {'1.0': Version((96, 7, 2), (4, 8)), '1.1': Version((64, 3, 2), (3, 5))}

# Table 1, fire2 to fire9: s_1x1, e_1x1, e_3x3.
FIRES = {
  2: (16, 64, 64), 3: (16, 64, 64), 4: (32, 128, 128), 5: (32, 128, 128), 6: (48, 192, 192), 7: (48, 192, 192),
  8: (64, 256, 256), 9: (64, 256, 256),
}

TORCHVISION = (
  ('conv1', 'features.0'),
  (r'fire\d/(\w+)_conv', r'features.{place}.\1'),
  ('conv10', 'classifier.1'),
)


class SqueezeNet(nn.Module):
  """`conv1`, `fire2` to `fire9`, `conv10`, the classifier; counts in the module's docstring.

  Attributes:
    version: '1.0' or '1.1', see `VERSIONS`.
    classes: number of logits.
    dropout: rate before the last convolution, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """

  version: str = '1.0'
  classes: int = 1000
  dropout: float = 0.5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.version not in VERSIONS:
      raise ValueError(f'squeezenet: version {self.version!r} is none of {tuple(VERSIONS)}.')
    (features, window, strides), pools = VERSIONS[self.version]
    x = nn.relu(Conv(
        features, (window, window), strides=strides, padding='VALID', kernel_init=nn.initializers.he_uniform(),
        dtype=self.dtype, name='conv1')(x))
    x = max_pool(x, 3, 2, ceil=True)
    for index, fire in FIRES.items():
      x = Fire(*fire, self.dtype, name=f'fire{index}')(x)
      if index in pools:
        x = max_pool(x, 3, 2, ceil=True)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    x = nn.relu(Conv(
        self.classes, (1, 1), kernel_init=nn.initializers.normal(0.01), dtype=jnp.float32, name='conv10')(x))
    return x.mean((1, 2))

  def torch_name(self, module: str) -> str:
    """Torchvision's name of a module."""
    name = torch_names.torch_name(module, TORCHVISION)
    if '{place}' not in name:
      return name
    # In `features`, three modules come before fire2, and a pooling is one more.
    fire = int(module.removeprefix('fire').partition('/')[0])
    return name.format(place=fire + 1 + sum(pool < fire for pool in VERSIONS[self.version].pools))


def squeezenet1_0(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> SqueezeNet:
  """Version 1.0, the paper's."""
  return SqueezeNet('1.0', classes, dropout, dtype)


def squeezenet1_1(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> SqueezeNet:
  """Version 1.1 of the authors' repository."""
  return SqueezeNet('1.1', classes, dropout, dtype)
