"""Squeeze-and-excitation of Hu et al. 2018, arXiv:1709.01507."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.layers import Conv, make_divisible


class SqueezeExcite(nn.Module):
  """Scales each channel by a gate computed from the global average (figure 1): 1x1 convolutions `reduce`, `expand`.

    y = x * gate(expand(activation(reduce(mean(x)))))

  Networks differ in what the reduction is a fraction of (MobileNetV3 and MobileOne: the channels of x; EfficientNet and
  MnasNet: those that entered the block), in its rounding and in the gate.

  Attributes:
    ratio: squeezed channels, as a fraction of `base`.
    base: channels that `ratio` refers to; None for those of x.
    divisor: the squeezed channels are rounded to a multiple of it, as `make_divisible` does.
    activation: between the two convolutions.
    gate: the last function, with values in [0, 1].
    dtype: of the computation; the average is taken in float32.
  """

  ratio: float = 0.25
  base: int | None = None
  divisor: int = 1
  activation: Callable[[Array], Array] = nn.relu
  gate: Callable[[Array], Array] = nn.sigmoid
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    """The block on one batch."""
    channels = x.shape[-1]
    squeezed = make_divisible((channels if self.base is None else self.base) * self.ratio, self.divisor)
    y = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
    y = self.activation(Conv(squeezed, (1, 1), dtype=self.dtype, name='reduce')(y))
    return x * self.gate(Conv(channels, (1, 1), dtype=self.dtype, name='expand')(y))
