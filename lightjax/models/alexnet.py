"""AlexNet: torchvision's, and the grouped one of 2012 that the pruning literature compresses.

  network          params        MACs                     published
  alexnet          61,100,840    714,188,480 at 224       61.1 M (torchvision)
  alexnet_caffe    60,965,224    724,406,816 at 227       61 M (Han et al. 2015, arXiv:1506.02626)

`alexnet` is that of Krizhevsky 2014, arXiv:1404.5997, without groups and normalization. `alexnet_caffe` is that of
Krizhevsky, Sutskever, Hinton 2012 as in Caffe's `bvlc_alexnet`: two groups in three convolutions, local response
normalization before the first two poolings. Deviations: `alexnet` averages other sizes to 6x6 before the dense layers.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models import torch_names
from lightjax.nn.layers import Conv
from lightjax.nn.pooling import adaptive_average_pool, max_pool

__all__ = ['alexnet', 'alexnet_caffe']


class Row(NamedTuple):
  """A convolution: channels, window, stride, padding, groups; whether a normalization and a pooling follow."""
  features: int
  window: int
  strides: int
  padding: int
  groups: int
  normalized: bool
  pooled: bool


TORCHVISION = (
  Row(64, 11, 4, 2, 1, False, True), Row(192, 5, 1, 2, 1, False, True), Row(384, 3, 1, 1, 1, False, False),
  Row(256, 3, 1, 1, 1, False, False), Row(256, 3, 1, 1, 1, False, True),
)
CAFFE = (
  Row(96, 11, 4, 0, 1, True, True), Row(256, 5, 1, 2, 2, True, True), Row(384, 3, 1, 1, 1, False, False),
  Row(384, 3, 1, 1, 2, False, False), Row(256, 3, 1, 1, 2, False, True),
)
# Height and width of what is flattened; width of the two dense layers before the last.
SIZE, HIDDEN = 6, 4096

NAMES: dict[tuple[Row, ...], torch_names.Rules] = {
  TORCHVISION: (
    ('conv1', 'features.0'), ('conv2', 'features.3'), ('conv3', 'features.6'), ('conv4', 'features.8'),
    ('conv5', 'features.10'), ('fc1', 'classifier.1'), ('fc2', 'classifier.4'), ('classifier', 'classifier.6')),
  CAFFE: ((r'(conv\d)', r'\1'), ('fc1', 'fc6'), ('fc2', 'fc7'), ('classifier', 'fc8')),
}


class AlexNet(nn.Module):
  """`conv1` to `conv5`, `fc1`, `fc2`, `classifier`.

  Attributes:
    rows: `TORCHVISION` or `CAFFE`.
    classes: number of logits.
    dropout: rate before each of the hidden dense layers in torchvision's, after it in Caffe's, in training; needs the
      rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """

  rows: tuple[Row, ...]
  classes: int = 1000
  dropout: float = 0.5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    def drop(x: Array, wanted: bool) -> Array:
      return nn.Dropout(self.dropout, deterministic=not train)(x) if wanted else x

    for index, row in enumerate(self.rows, 1):
      x = nn.relu(Conv(
          row.features, (row.window, row.window), strides=row.strides, padding=row.padding,
          feature_group_count=row.groups, dtype=self.dtype, name=f'conv{index}')(x))
      x = local_response_normalization(x) if row.normalized else x
      x = max_pool(x, 3, 2) if row.pooled else x
    x = adaptive_average_pool(x, SIZE)
    x = x.reshape(x.shape[0], -1)
    before = self.rows == TORCHVISION
    for name in ('fc1', 'fc2'):
      x = nn.relu(nn.Dense(HIDDEN, dtype=self.dtype, name=name)(drop(x, before)))
      x = drop(x, not before)
    return nn.Dense(self.classes, dtype=jnp.float32, name='classifier')(x)

  def torch_name(self, module: str) -> str:
    """Torchvision's name of a module, or Caffe's of the grouped network."""
    return torch_names.torch_name(module, NAMES[self.rows])

  def torch_flattened(self) -> dict[str, tuple[int, int, int]]:
    """Height, width and channels of what `fc1` flattens."""
    return {'fc1': (SIZE, SIZE, self.rows[-1].features)}


def local_response_normalization(
    x: Float[Array, '*b c'], *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0,
) -> Float[Array, '*b c']:
  """Divides each channel by a power of the energy of its neighbours.

    y_i = x_i / (k + alpha / size * sum of x_j^2 over the `size` channels around i)^beta

  Args:
    x: features, channels last.
    size: channels in the sum, odd; fewer at the ends.
    alpha: weight of the sum.
    beta: the power.
    k: what the energy is added to.
  Returns:
    Output in x's dtype.
  Source: Krizhevsky et al. 2012, section 3.3, whose alpha is not divided by `size`; defaults and division as in Caffe.
  """
  half = size // 2
  squares = jnp.square(x.astype(jnp.float32))
  window, strides = (1,) * (x.ndim - 1) + (size,), (1,) * x.ndim
  energy = jax.lax.reduce_window(squares, 0.0, jax.lax.add, window, strides, [(0, 0)] * (x.ndim - 1) + [(half, half)])
  return (x * (k + alpha / size * energy) ** -beta).astype(x.dtype)


def alexnet(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> AlexNet:
  """Torchvision's, at 224."""
  return AlexNet(TORCHVISION, classes, dropout, dtype)


def alexnet_caffe(*, classes: int = 1000, dropout: float = 0.5, dtype: Any = jnp.float32) -> AlexNet:
  """Caffe's, at 227."""
  return AlexNet(CAFFE, classes, dropout, dtype)
