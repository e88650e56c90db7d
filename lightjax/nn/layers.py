"""The few layers that the networks share.

All take `dtype`, the precision of the computation; parameters and BatchNorm statistics are float32 whatever it is.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn import batch_norm, convolution

# He et al. 2015, arXiv:1502.01852, section 2.2: preserves the variance of the backward signal.
he_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Conv(nn.Conv):
  """`flax.linen.Conv`, same arguments, parameters and values, on the library's convolution (quick depthwise on CPU)."""

  conv_general_dilated: Any = convolution.conv_general_dilated


class BatchNorm(nn.BatchNorm):
  """`flax.linen.BatchNorm` with PyTorch's defaults, which the reference implementations use.

  `momentum` is the fraction of the running statistic that is *kept*: PyTorch's 0.1 is 0.9 here. Deviation from PyTorch:
  the running variance averages the biased variance of the batch. In training on CPU the same numbers come from
  `batch_norm.normalize`, whose sums are quicker there.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
      self, x: Float[Array, '*b c'], use_running_average: bool | None = None, *, mask: Array | None = None,
      is_frozen: Array | None = None,
  ) -> Float[Array, '*b c']:
    """Normalized by the batch's statistics, which move the running ones, or by the running ones.

    Args:
      x: activations.
      use_running_average: as in `flax.linen.BatchNorm`.
      mask: likewise.
      is_frozen: bool scalar; where it is true the running statistics take the place of the batch's and stand still. For
        training steps of which `takes_own_form` is true.
    """
    is_running = nn.merge_param('use_running_average', self.use_running_average, use_running_average)
    if is_running or mask is not None or not self.takes_own_form(x):
      if is_frozen is not None:
        raise ValueError('BatchNorm: is_frozen is for training in its own form, without mask; see takes_own_form.')
      return super().__call__(x, use_running_average, mask=mask)
    channels = x.shape[-1]
    mean = self.variable('batch_stats', 'mean', lambda: jnp.zeros(channels, jnp.float32))
    var = self.variable('batch_stats', 'var', lambda: jnp.ones(channels, jnp.float32))
    scale = self.param('scale', self.scale_init, (channels,), self.param_dtype)
    bias = self.param('bias', self.bias_init, (channels,), self.param_dtype)
    running = None if is_frozen is None else batch_norm.Running(is_frozen, mean.value, var.value)
    y, seen_mean, seen_var = batch_norm.normalize(x, scale, bias, self.epsilon, running)
    if not self.is_initializing():
      for statistic, seen in ((mean, seen_mean), (var, seen_var)):
        moved = self.momentum * statistic.value + (1 - self.momentum) * seen
        statistic.value = moved if is_frozen is None else jnp.where(is_frozen, statistic.value, moved)
    return y if self.dtype is None else y.astype(self.dtype)

  @nn.nowrap
  def takes_own_form(self, x: Float[Array, '*b c']) -> bool:
    """Whether a training step on x is `batch_norm.normalize`: every option but the numbers is at its default."""
    return (batch_norm.is_quicker(x) and self.axis == -1 and self.use_scale and self.use_bias
            and self.axis_name is None and self.use_fast_variance and self.param_dtype == jnp.float32)


class ConvNorm(nn.Module):
  """Convolution without bias, BatchNorm, activation: parameters `conv/kernel`, `norm/scale`, `norm/bias`.

  Attributes:
    features: output channels.
    window: kernel size, pixels, one number or (vertical, horizontal).
    strides: pixels, both directions.
    groups: feature groups.
    activation: after the norm; None for a linear output.
    padding: 'torch' pads `window // 2` zeros before and after each direction; otherwise as in `flax.linen.Conv`.
    kernel_init: of the kernel.
    epsilon: of the norm, added to the variance.
    momentum: of the norm, the fraction of the running statistics that is kept.
    dtype: of the computation.
  """

  features: int
  window: int | tuple[int, int] = 3
  strides: int = 1
  groups: int = 1
  activation: Callable[[Array], Array] | None = nn.relu
  padding: str | int | Sequence[tuple[int, int]] = 'torch'
  kernel_init: nn.initializers.Initializer = he_fan_out
  epsilon: float = 1e-5
  momentum: float = 0.9
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """Convolution, BatchNorm, activation."""
    window = (self.window, self.window) if isinstance(self.window, int) else self.window
    padding = [(size // 2, size // 2) for size in window] if self.padding == 'torch' else self.padding
    x = Conv(
        self.features, window, strides=self.strides, padding=padding, use_bias=False,
        feature_group_count=self.groups, kernel_init=self.kernel_init, dtype=self.dtype, name='conv')(x)
    x = BatchNorm(
        use_running_average=not train, epsilon=self.epsilon, momentum=self.momentum, dtype=self.dtype, name='norm')(x)
    return x if self.activation is None else self.activation(x)


def make_divisible(channels: float, divisor: int = 8) -> int:
  """The multiple of `divisor` nearest to `channels`, not under `divisor` and not more than 10 % below `channels`.

  Args:
    channels: wanted number of channels, any positive number.
    divisor: what the number must be a multiple of.
  Returns:
    Channels.
  Example:
    >>> make_divisible(32 * 0.35), make_divisible(24 * 0.5)
    (16, 16)

  Source: the reference code of Sandler et al. 2018, arXiv:1801.04381.
  """
  rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
  return rounded if rounded >= 0.9 * channels else rounded + divisor
