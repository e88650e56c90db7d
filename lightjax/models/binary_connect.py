"""The two networks of BinaryConnect and BNN: a perceptron for MNIST, and VGG-small for CIFAR-10 and SVHN.

Courbariaux, Bengio, David 2015, arXiv:1511.00363, section 3, and Courbariaux et al. 2016, arXiv:1602.02830, section 2:

  network                     params        MACs             published
  binary_mlp, 1024 wide        2,919,454      2,910,208      -
  binary_mlp, 2048 wide       10,033,182     10,014,720      -
  binary_mlp, 4096 wide       36,843,550     36,806,656      -
  vgg_small                   14,033,566    616,966,144      14.0 M

BatchNorm follows every layer, the last one too: its outputs are what the squared hinge loss takes (`losses`). All
kernels are made binary by a transform, first and last layer as well (`skip=('not_kernel',)`); for binary activations
`activation='hard_tanh'`, whose sign the next layer takes; the sign of a ReLU's output is always +1.
"""
from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import BatchNorm, Conv
from lightjax.nn.pooling import max_pool

__all__ = ['binary_mlp', 'vgg_small']

Activation = Literal['relu', 'hard_tanh']
ACTIVATIONS = {'relu': nn.relu, 'hard_tanh': nn.hard_tanh}

# Latent weights start and stay within [-1, 1].
glorot = nn.initializers.glorot_uniform()

# Channels of two 3x3 convolutions each, with 2x2 pooling after the second; width of the two dense layers.
CHANNELS = (128, 256, 512)
HIDDEN = 1024


class BinaryMLP(nn.Module):
  """`fc1` to `fc4`, each with a norm: dense, BatchNorm, activation, dropout; dense and BatchNorm.

  Attributes:
    width: of the three hidden layers.
    classes: number of outputs.
    activation: 'relu' (BinaryConnect) or 'hard_tanh' (for binary activations).
    dropout: rate after each hidden layer, in training; needs the rng 'dropout'.
    input_dropout: rate of the pixels, likewise.
    dtype: of the computation; the last layer is float32.
  """

  width: int = 1024
  classes: int = 10
  activation: Activation = 'relu'
  dropout: float = 0.0
  input_dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Outputs of a batch of images."""
    x = _dropped(x.reshape(x.shape[0], -1), self.input_dropout, train)
    x = _hidden_layers(x, (self.width,) * 3, self.activation, self.dropout, self.dtype, train)
    return _outputs(x, self.classes, train)


class VGGSmall(nn.Module):
  """`conv1` to `conv6`, `fc1` and `fc2`, `fc3`, each with a norm; 2x2 pooling before every second convolution's norm.

  Attributes:
    classes: number of outputs.
    width: multiplies all channels.
    activation: 'relu' (BinaryConnect) or 'hard_tanh' (for binary activations).
    dtype: of the computation; the last layer is float32.
  """

  classes: int = 10
  width: float = 1
  activation: Activation = 'relu'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Outputs of a batch of images."""
    for index in range(2 * len(CHANNELS)):
      channels = round(CHANNELS[index // 2] * self.width)
      x = Conv(channels, (3, 3), padding=1, kernel_init=glorot, dtype=self.dtype, name=f'conv{index + 1}')(x)
      if index % 2:
        x = max_pool(x, 2, 2)
      x = _normalized(x, f'conv{index + 1}_norm', self.activation, self.dtype, train)
    x = x.reshape(x.shape[0], -1)
    x = _hidden_layers(x, (round(HIDDEN * self.width),) * 2, self.activation, 0.0, self.dtype, train)
    return _outputs(x, self.classes, train, name='fc3')


def binary_mlp(
    *, classes: int = 10, width: int = 1024, activation: Activation = 'relu', dropout: float = 0.0,
    input_dropout: float = 0.0, dtype: Any = jnp.float32,
) -> BinaryMLP:
  """Three hidden layers."""
  return BinaryMLP(width, classes, activation, dropout, input_dropout, dtype)


def vgg_small(
    *, classes: int = 10, width: float = 1, activation: Activation = 'relu', dtype: Any = jnp.float32,
) -> VGGSmall:
  """2x128C3 - MP2 - 2x256C3 - MP2 - 2x512C3 - MP2 - 2x1024FC - 10."""
  return VGGSmall(classes, width, activation, dtype)


def _hidden_layers(
    x: Array, widths: tuple[int, ...], activation: Activation, dropout: float, dtype: Any, train: bool,
) -> Array:
  for index, width in enumerate(widths, 1):
    x = nn.Dense(width, kernel_init=glorot, dtype=dtype, name=f'fc{index}')(x)
    x = _dropped(_normalized(x, f'fc{index}_norm', activation, dtype, train), dropout, train)
  return x


def _outputs(x: Array, classes: int, train: bool, *, name: str = 'fc4') -> Array:
  x = nn.Dense(classes, kernel_init=glorot, dtype=jnp.float32, name=name)(x)
  return BatchNorm(use_running_average=not train, name=f'{name}_norm')(x)


def _normalized(x: Array, name: str, activation: Activation, dtype: Any, train: bool) -> Array:
  if activation not in ACTIVATIONS:
    raise ValueError(f'activation {activation!r} is none of {tuple(ACTIVATIONS)}.')
  return ACTIVATIONS[activation](BatchNorm(use_running_average=not train, dtype=dtype, name=name)(x))


def _dropped(x: Array, rate: float, train: bool) -> Array:
  return nn.Dropout(rate, deterministic=not train)(x) if rate else x
