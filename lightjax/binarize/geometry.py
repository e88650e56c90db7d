"""What a linen layer does to its input, read from its fields, and XNOR-Net's scale of the input, which follows it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core.typing import Array

__all__ = ['Window', 'input_scale', 'window_of']


class Window(NamedTuple):
  """How a plain convolution of images moves.

  Attributes:
    size: of the kernel, pixels, (vertical, horizontal).
    strides: likewise.
    padding: 'SAME', 'VALID', or ((before, after), (before, after)) in pixels.
  """
  size: tuple[int, int]
  strides: tuple[int, int]
  padding: str | Sequence[tuple[int, int]]


def window_of(layer: Any, x: Array, path: str) -> Window | None:
  """The window of a convolution, None of a dense layer.

  Args:
    layer: a linen module.
    x: its input.
    path: of the module, for messages.
  Returns:
    The window.
  Raises:
    ValueError: a convolution that is not plain: of other than images, with groups, a dilation, a mask or wrapping.
  """
  if not hasattr(layer, 'kernel_size'):
    return None
  strides, *dilations = (
    tuple(np.broadcast_to(getattr(layer, name) or 1, 2).tolist())
    for name in ('strides', 'input_dilation', 'kernel_dilation'))
  padding = (layer.padding,) * 2 if isinstance(layer.padding, int) else layer.padding
  if not isinstance(padding, str):
    padding = tuple((each, each) if isinstance(each, int) else tuple(each) for each in padding)
  is_plain = (
    x.ndim == 4 and layer.feature_group_count == 1 and layer.mask is None and dilations == [(1, 1)] * 2
    and (not isinstance(padding, str) or padding in ('SAME', 'VALID')))
  if not is_plain:
    raise ValueError(f'{path}: only plain convolutions of images are binary all the way: no groups, dilation, mask or '
                     'wrapping.')
  height, width = layer.kernel_size
  return Window((height, width), strides, padding)


def input_scale(x: Array, window: Window | None) -> Array:
  """XNOR-Net's K: the mean |x| over the channels, and over the pixels that each place of the output sees.

  Args:
    x: input of a layer, before its sign is taken.
    window: of a convolution, whose padding counts as zeros; None for a dense layer.
  Returns:
    One number a place of the output, [b ho wo 1] or [b 1]. Its own program to the compiler, so that the simulated
    network and the packed one round it alike.
  Source: Rastegari et al. 2016, arXiv:1603.05279, section 3.2.
  """
  mean = jnp.mean(jnp.abs(lax.optimization_barrier(x)), axis=-1, keepdims=True)
  if window is not None:
    pads = (window.padding if not isinstance(window.padding, str)
            else lax.padtype_to_pads(x.shape[1:3], window.size, window.strides, window.padding))
    total = lax.reduce_window(
      mean, np.zeros((), x.dtype), lax.add, (1, *window.size, 1), (1, *window.strides, 1), ((0, 0), *pads, (0, 0)))
    mean = total * (1 / np.prod(window.size)).astype(x.dtype)
  return lax.optimization_barrier(mean)
