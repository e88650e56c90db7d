"""One convolution for the whole library: same numbers everywhere, the quickest form that the backend is known to have.

The choice is made in `implementation` and nowhere else. `conv_general_dilated` has the signature of the `lax`
function and can be injected where a library asks for one (`flax.linen.Conv(...,
conv_general_dilated=convolution.conv_general_dilated)`).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lightjax.core import modes
from lightjax.nn import dense, depthwise

Padding = str | int | Sequence[tuple[int, int]]
Implementation = Literal['lax', 'dense', 'depthwise', 'split']

# Splitting compiles one convolution a group; beyond this many, compilation costs more than the gradient saves.
MOST_GROUPS_TO_SPLIT = 32
# Below, as for the three channels of an image, gathering shifts costs more than lax's slow kernel gradient.
LEAST_CHANNELS = 8


def implementation(
    x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], *, strides: tuple[int, int] = (1, 1), groups: int,
    dilated: bool,
) -> Implementation:
  """The form a 2-d NHWC convolution takes on this backend and in this mode.

  Args:
    x_shape: [b, h, w, c], padding included.
    kernel_shape: [kh, kw, c / groups, output channels].
    strides: vertical and horizontal, pixels.
    groups: feature groups.
    dilated: whether the input or the kernel is dilated.
  Returns:
    'lax' everywhere but on the CPU in 'fast' mode. There a 1x1 convolution, and any on large images, is 'dense' (lax's
    kernel gradient is 4 to 9 times slower, or 1.5 to 2), a depthwise one 'depthwise' and another grouped one 'split':
    one convolution a group, concatenated (25 to 130 times).
  """
  if dilated or not modes.takes_own_forms():
    return 'lax'
  if groups == 1:
    rows, columns = (
        (size - window) // stride + 1
        for size, window, stride in zip(x_shape[1:3], kernel_shape[:2], strides, strict=True))
    is_large = rows * columns >= dense.LEAST_PIXELS and x_shape[-1] >= LEAST_CHANNELS
    return 'dense' if is_large or kernel_shape[:2] == (1, 1) else 'lax'
  if groups == x_shape[-1] == kernel_shape[-1]:
    return 'depthwise'
  return 'split' if groups <= MOST_GROUPS_TO_SPLIT else 'lax'


def conv(
    x: Float[Array, 'b h w c'],
    kernel: Float[Array, 'kh kw i o'],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = 'SAME',
    groups: int = 1,
    precision: Any = None,
) -> Float[Array, 'b ho wo o']:
  """2-d convolution, NHWC with HWIO kernels.

  Args:
    x: input.
    kernel: i = c / groups input channels a group.
    strides: pixels, one number or (vertical, horizontal).
    padding: 'SAME' (as lax: at stride 2 on even sizes one more zero after than before), 'VALID', one number for all
      four sides, or ((before, after), (before, after)).
    groups: feature groups; c for a depthwise convolution.
    precision: of `lax`, see there.
  Returns:
    Output in x's dtype.
  """
  strides = (strides, strides) if isinstance(strides, int) else tuple(strides)
  padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding
  return conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=_NHWC_HWIO, feature_group_count=groups, precision=precision)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Array:
  """`lax.conv_general_dilated`, in the form that `implementation` chooses; arguments and values are lax's."""
  numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
  strides = tuple(window_strides)
  dilated = any(each != 1 for each in (*(lhs_dilation or ()), *(rhs_dilation or ())))
  plain = batch_group_count == 1 and preferred_element_type is None and jnp.issubdtype(lhs.dtype, jnp.floating)
  if plain and lhs.ndim == 4 and numbers == _NHWC_HWIO and not dilated:
    pads = _explicit(padding, lhs.shape[1:3], rhs.shape[:2], strides)
    return _plain(lhs, rhs, (strides[0], strides[1]), pads, feature_group_count, precision)
  return lax.conv_general_dilated(
      lhs, rhs, strides, padding, lhs_dilation, rhs_dilation, numbers, feature_group_count, batch_group_count,
      precision, preferred_element_type)


def _plain(
    x: Array, kernel: Array, strides: tuple[int, int], padding: dense.Padding, groups: int, precision: Any,
) -> Array:
  """An undilated NHWC convolution in the chosen form; each group of a split one is chosen for by itself."""
  b, h, w, c = x.shape
  padded = (b, h + sum(padding[0]), w + sum(padding[1]), c)
  choice = implementation(padded, kernel.shape, strides=strides, groups=groups, dilated=False)
  if choice == 'dense':
    return dense.dense(x, kernel, strides, padding, precision)
  if choice == 'depthwise':
    return depthwise.depthwise(x, kernel, strides, padding)
  if choice == 'split':
    parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    return jnp.concatenate([_plain(each, taps, strides, padding, 1, precision) for each, taps in parts], axis=-1)
  return lax.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=_NHWC_HWIO, feature_group_count=groups, precision=precision)


_NHWC_HWIO = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ('NHWC', 'HWIO', 'NHWC'))


def _explicit(
    padding: str | Sequence[tuple[int, int]], sizes: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...],
) -> dense.Padding:
  pairs = lax.padtype_to_pads(sizes, window, strides, padding) if isinstance(padding, str) else padding
  (top, bottom), (left, right) = pairs
  return (int(top), int(bottom)), (int(left), int(right))
