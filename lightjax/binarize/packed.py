"""Binary layers on packed bits: 32 weights a word, exclusive or and a count of bits in place of multiply-adds.

  sum_i x_i w_i = n - 2 popcount(x xor w),   x and w of +1 and -1, stored as bits 1 and 0

The last word of a row is filled with zero bits on both sides, which count nothing. The zeros that a convolution pads
with are no signs: they are packed as if they were -1, and what these pixels add is taken back, by position.

Results are those of the simulated layer to the last bit, since its sums are exact too: see `binarizers.exact_scale`.
"""
from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int, UInt32

from lightjax.binarize.activations import binary_modules
from lightjax.core.encoded import Encoded, Integers
from lightjax.core.interception import module_path
from lightjax.core.typing import Array

__all__ = ['PackedKernel', 'conv', 'count_differences', 'dense', 'interceptor', 'pack', 'pack_kernel']

WORD = 32
# Words that one pass over the counts takes: more passes cost memory traffic.
WORDS_A_PASS = 4


class PackedKernel(NamedTuple):
  """A binary kernel.

  Attributes:
    words: uint32 [w o] of a dense layer, [kh kw w o] of a convolution; w words hold the input channels.
    scale: float32 [o].
    sums: int32 [kh kw o], the sum of the signs of each tap of a convolution; [o] of a dense layer.
  """
  words: Array
  scale: Array
  sums: Array


def pack(x: Float[Array, '*b n']) -> UInt32[Array, '*b w']:
  """Signs as bits: bit j of word i is 1 where x[32 i + j] >= 0; the last word is filled with zeros.

  Args:
    x: any numbers.
  Returns:
    ceil(n / 32) words.
  Example:
    >>> pack(jnp.array([1.0, -1.0, 0.0])).tolist()
    [5]
  """
  *batch, n = x.shape
  words = -(-n // WORD)
  bits = jnp.pad((x >= 0).astype(jnp.uint32), [(0, 0)] * len(batch) + [(0, words * WORD - n)])
  shifted = bits.reshape(*batch, words, WORD) << jnp.arange(WORD, dtype=jnp.uint32)
  return shifted.sum(-1, dtype=jnp.uint32)


def pack_kernel(integers: Integers) -> PackedKernel:
  """The kernel of a binary layer, as its transform stores it.

  Args:
    integers: codes [c o] or [kh kw c o], all of them 1 or -1; a scale by output channel or one for all.
  Returns:
    The kernel for `dense` or `conv`.
  Raises:
    ValueError: codes of another rank or other values, or a scale that differs within an output channel.
  """
  codes, scale = np.asarray(integers.codes), np.asarray(integers.scale, np.float32)
  if codes.ndim not in (2, 4):
    raise ValueError(f'pack_kernel: codes of shape {codes.shape}; a dense layer has [c o], a convolution [kh kw c o].')
  if not (np.abs(codes) == 1).all():
    raise ValueError('pack_kernel: a binary weight is 1 or -1; kernels with zeros or more levels are not packed.')
  if any(size != 1 for size in scale.shape[:-1]):
    raise ValueError(f'pack_kernel: a scale of shape {scale.shape} differs within an output channel.')
  words = pack(jnp.moveaxis(jnp.asarray(codes, jnp.float32), -2, -1))
  return PackedKernel(
    jnp.moveaxis(words, -1, -2), jnp.broadcast_to(scale.reshape(-1), codes.shape[-1:]),
    jnp.asarray(codes, jnp.int32).sum(-2))


def count_differences(x: UInt32[Array, 'm w'], kernel: UInt32[Array, 'w o']) -> Int[Array, 'm o']:
  """How many bits of each row differ from each column.

  Args:
    x: packed rows.
    kernel: packed columns.
  Returns:
    int32 counts.
  """
  missing = -kernel.shape[0] % WORDS_A_PASS  # words of zeros on both sides, which differ in no bit
  rows, columns = (jnp.pad(each, ((0, missing), (0, 0))) for each in (x.T, kernel))

  # Word by word in a loop: written as one reduction over the words it takes 5 to 10 times as long on CPU.
  def add(i: Any, counts: Array) -> Array:
    for k in range(WORDS_A_PASS):
      word = i * WORDS_A_PASS + k
      counts = counts + lax.population_count(rows[word][:, None] ^ columns[word][None, :])
    return counts

  counts = jnp.zeros((x.shape[0], kernel.shape[1]), jnp.uint32)
  return lax.fori_loop(0, rows.shape[0] // WORDS_A_PASS, add, counts).astype(jnp.int32)


def dense(x: Float[Array, '*b n'], kernel: PackedKernel) -> Float[Array, '*b o']:
  """A dense layer of binary weights on the signs of its input: (sign(x) @ codes) * scale.

  Args:
    x: any numbers; only x >= 0 counts.
    kernel: of `pack_kernel`.
  Returns:
    float32, without bias.
  """
  n, features = x.shape[-1], kernel.words.shape[-1]
  rows = pack(x).reshape(-1, kernel.words.shape[0])
  sums = n - 2 * count_differences(rows, kernel.words)
  return (sums.astype(jnp.float32) * kernel.scale).reshape(*x.shape[:-1], features)


def conv(
  x: Float[Array, 'b h w c'], kernel: PackedKernel, *, strides: tuple[int, int] = (1, 1),
  padding: str | Sequence[tuple[int, int]] = 'SAME',
) -> Float[Array, 'b ho wo o']:
  """A convolution of binary weights over the signs of its input, NHWC; padded pixels are zero and no sign.

  Args:
    x: any numbers; only x >= 0 counts.
    kernel: of `pack_kernel`.
    strides: pixels, (vertical, horizontal).
    padding: 'SAME', 'VALID', or ((before, after), (before, after)) in pixels.
  Returns:
    float32, without bias.
  """
  window, features = kernel.words.shape[:2], kernel.words.shape[-1]
  pads = lax.padtype_to_pads(x.shape[1:3], window, strides, padding) if isinstance(padding, str) else padding
  padded = jnp.pad(pack(x), ((0, 0), *((int(before), int(after)) for before, after in pads), (0, 0)))
  rows, columns = (
    (size - extent) // stride + 1 for size, extent, stride in zip(padded.shape[1:3], window, strides, strict=True))

  def tap(image: Any, i: int, j: int) -> Any:
    """The pixels of the last two axes but one that a tap of the kernel meets."""
    return image[..., i:i + (rows - 1) * strides[0] + 1:strides[0], j:j + (columns - 1) * strides[1] + 1:strides[1], :]

  taps = list(itertools.product(*map(range, window)))
  patches = jnp.concatenate([tap(padded, i, j) for i, j in taps], axis=-1)
  counts = count_differences(patches.reshape(-1, patches.shape[-1]), kernel.words.reshape(-1, features))
  sums = (len(taps) * x.shape[-1] - 2 * counts).reshape(x.shape[0], rows, columns, features)
  if padded.shape[1:3] != x.shape[1:3]:
    is_padded = np.pad(np.zeros((*x.shape[1:3], 1), np.int32), (*pads, (0, 0)), constant_values=1)
    # Shapes are known here: where each tap meets padding is a constant.
    outside = np.concatenate([tap(is_padded, i, j) for i, j in taps], axis=-1)
    sums = sums + jnp.einsum('hwt,to->hwo', outside, kernel.sums.reshape(-1, features))
  return sums.astype(jnp.float32) * kernel.scale


def interceptor(encoded: Encoded) -> Callable[..., Any]:
  """Runs each layer with a binary kernel and a binary input on packed bits; the others compute as they did.

  Args:
    encoded: what was stored; kernels are packed once, here, outside the jitted function.
  Returns:
    For `flax.linen.intercept_methods`, inside that of `frozen_interceptor` for layers whose input alone is binary.
  Raises (at the call):
    ValueError: a layer that is no plain 2-d convolution or dense layer in float32.
  Example:
    on_bits = interceptor(encoded)

    @jax.jit
    def forward(variables, x):
      with nn.intercept_methods(frozen_interceptor(encoded.activations)), nn.intercept_methods(on_bits):
        return model.apply(variables, x)
  """
  inputs = binary_modules(encoded.activations)
  kernels: Mapping[str, PackedKernel] = {
    path.rpartition('/')[0]: pack_kernel(integers) for path, integers in encoded.parameters.items()
    if integers.bits == 1 and path.rpartition('/')[0] in inputs}

  def intercept(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
    path = module_path(about)
    if path not in kernels or about.method_name != '__call__':
      return following(*args, **kwargs)
    y = _layer(about.module, args[0], kernels[path], path)
    return y + about.module.get_variable('params', 'bias') if about.module.use_bias else y

  return intercept


def _layer(layer: Any, x: Array, kernel: PackedKernel, path: str) -> Array:
  """A linen layer's product, by its fields."""
  if jnp.result_type(layer.dtype or x.dtype) != jnp.float32:
    raise ValueError(f'{path}: packed layers compute in float32, and this one in {jnp.result_type(layer.dtype)}.')
  if kernel.words.ndim == 2:
    return dense(x, kernel)
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
    raise ValueError(f'{path}: only plain convolutions of images are packed: no groups, dilation, mask or wrapping.')
  return conv(x, kernel, strides=strides, padding=padding)
