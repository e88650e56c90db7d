"""LeNet-300-100 and LeNet-5, the two small networks of the pruning literature, and LeNet-5 as of 1998.

Source: LeCun, Bottou, Bengio, Haffner 1998, 'Gradient-based learning applied to document recognition'; the widths are
those of Caffe's examples, on which Han et al. 2015, arXiv:1506.02626 (tables 3 and 4) and 2016, arXiv:1510.00149
report.
"""
from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import Conv
from lightjax.nn.pooling import max_pool

__all__ = ['lenet5', 'lenet5_classic', 'lenet300']

Activation = Literal['identity', 'relu', 'tanh']
ACTIVATIONS = {'identity': lambda x: x, 'relu': nn.relu, 'tanh': jnp.tanh}

# Caffe's 'xavier' filler: uniform, variance 1 / fan_in.
xavier = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


class LeNet300(nn.Module):
  """Fully connected, ReLU between: `fc1`, `fc2`, `fc3`.

  At 28x28, 10 classes: 266,610 params, 266,200 MACs (published: 267 K; weights 235 K + 30 K + 1 K).

  Attributes:
    hidden: widths of the hidden layers.
    classes: number of logits.
    dtype: of the computation; the last layer is float32.
    dropout: rates of the input's and of the hidden units' dropout, 0..1.
  """

  hidden: tuple[int, ...] = (300, 100)
  classes: int = 10
  dtype: Any = jnp.float32
  dropout: tuple[float, float] = (0.0, 0.0)

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    at_input, at_hidden = self.dropout
    x = nn.Dropout(at_input, deterministic=not train)(x.reshape(x.shape[0], -1))
    for index, width in enumerate(self.hidden, 1):
      x = nn.relu(nn.Dense(width, kernel_init=xavier, dtype=self.dtype, name=f'fc{index}')(x))
      x = nn.Dropout(at_hidden, deterministic=not train)(x)
    return nn.Dense(self.classes, kernel_init=xavier, dtype=jnp.float32, name=f'fc{len(self.hidden) + 1}')(x)


class LeNet5(nn.Module):
  """Caffe's LeNet: 5x5 convolutions without padding, 2x2 max pooling after each, two dense layers.

  As in Caffe there is no nonlinearity after the convolutions but the pooling, and ReLU after `fc1`; `activation`
  puts one before each pooling, as many reimplementations do.
  At 28x28x1, 10 classes: 431,080 params, 2,293,000 MACs (published: 431 K; weights 0.5 K + 25 K + 400 K + 5 K).
  Deviations from LeCun et al. 1998: as Caffe, i.e. widths 20-50-500, no trained subsampling, full connections, ReLU.

  Attributes:
    widths: channels of `conv1` and `conv2`, width of `fc1`.
    classes: number of logits.
    activation: after each convolution: 'identity', 'relu' or 'tanh'.
    dtype: of the computation; the last layer is float32.
  """

  widths: tuple[int, int, int] = (20, 50, 500)
  classes: int = 10
  activation: Activation = 'identity'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    del train  # nothing here differs
    if self.activation not in ACTIVATIONS:
      raise ValueError(f'lenet5: activation {self.activation!r} is none of {tuple(ACTIVATIONS)}.')
    for index, width in enumerate(self.widths[:2], 1):
      x = Conv(width, (5, 5), padding='VALID', kernel_init=xavier, dtype=self.dtype, name=f'conv{index}')(x)
      x = max_pool(ACTIVATIONS[self.activation](x), 2, 2)
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(nn.Dense(self.widths[2], kernel_init=xavier, dtype=self.dtype, name='fc1')(x))
    return nn.Dense(self.classes, kernel_init=xavier, dtype=jnp.float32, name='fc2')(x)


class LeNet5Classic(nn.Module):
  """LeNet-5 with the widths of LeCun et al. 1998, figure 2: 6-16-120-84, 5x5 convolutions, 2x2 average pooling.

  At 28x28x1, which `conv1` pads to 32x32, 10 classes: 61,706 params, 416,520 MACs (published: 60 K).
  Deviations, as in most reimplementations: `conv2` sees all channels, poolings have no parameters, and the last layer
  is dense instead of radial basis functions; tanh is not scaled.

  Attributes:
    widths: channels of `conv1` and `conv2`, widths of `fc1` and `fc2`.
    classes: number of logits.
    activation: after each layer but the last: 'tanh', 'relu' or 'identity'.
    dtype: of the computation; the last layer is float32.
  """

  widths: tuple[int, int, int, int] = (6, 16, 120, 84)
  classes: int = 10
  activation: Activation = 'tanh'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    del train  # nothing here differs
    if self.activation not in ACTIVATIONS:
      raise ValueError(f'lenet5_classic: activation {self.activation!r} is none of {tuple(ACTIVATIONS)}.')
    activate = ACTIVATIONS[self.activation]
    for index, (width, padding) in enumerate(zip(self.widths[:2], (2, 0), strict=True), 1):
      x = Conv(width, (5, 5), padding=padding, kernel_init=xavier, dtype=self.dtype, name=f'conv{index}')(x)
      x = nn.avg_pool(activate(x), (2, 2), strides=(2, 2))
    x = x.reshape(x.shape[0], -1)
    for index, width in enumerate(self.widths[2:], 1):
      x = activate(nn.Dense(width, kernel_init=xavier, dtype=self.dtype, name=f'fc{index}')(x))
    return nn.Dense(self.classes, kernel_init=xavier, dtype=jnp.float32, name='fc3')(x)


def lenet300(
    *, hidden: tuple[int, ...] = (300, 100), classes: int = 10, dtype: Any = jnp.float32,
    dropout: tuple[float, float] = (0.0, 0.0),
) -> LeNet300:
  """LeNet-300-100; see `LeNet300`."""
  at_input, at_hidden = dropout
  return LeNet300(tuple(hidden), classes, dtype, (at_input, at_hidden))


def lenet5(
    *, widths: tuple[int, int, int] = (20, 50, 500), classes: int = 10, activation: Activation = 'identity',
    dtype: Any = jnp.float32,
) -> LeNet5:
  """Caffe's LeNet-5; see `LeNet5`."""
  conv1, conv2, fc1 = widths
  return LeNet5((conv1, conv2, fc1), classes, activation, dtype)


def lenet5_classic(
    *, widths: tuple[int, int, int, int] = (6, 16, 120, 84), classes: int = 10, activation: Activation = 'tanh',
    dtype: Any = jnp.float32,
) -> LeNet5Classic:
  """LeNet-5 of 1998; see `LeNet5Classic`."""
  conv1, conv2, fc1, fc2 = widths
  return LeNet5Classic((conv1, conv2, fc1, fc2), classes, activation, dtype)
