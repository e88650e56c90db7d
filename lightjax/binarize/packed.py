"""Binary layers on packed bits: 32 weights a word, exclusive or and a count of bits in place of multiply-adds.

  sum_i x_i w_i = n - 2 popcount(x xor w),   x and w of +1 and -1, stored as bits 1 and 0

Ternary weights are two planes of bits, signs and which of them count: m - 2 popcount((x xor w) and nonzero), with m the
number of those that are not zero. Inputs of 1 and 0 are (x + 1) / 2 of signs x, so that half of the weights' sum is
added.

The last word of a row is filled with zero bits on both sides, which count nothing. The zeros that a convolution pads
with are no signs: they are packed as if they were -1, and what these pixels add is taken back, by position. Of inputs
of 1 and 0 they are the 0.

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

from lightjax.binarize import geometry
from lightjax.binarize.activations import binary_modules, is_unit
from lightjax.core.encoded import Encoded, Integers
from lightjax.core.interception import module_path
from lightjax.core.typing import Array

__all__ = ['PackedKernel', 'conv', 'count_differences', 'dense', 'interceptor', 'pack', 'pack_kernel']

WORD = 32
# Words that one pass over the counts takes: more passes cost memory traffic.
WORDS_A_PASS = 4


class PackedKernel(NamedTuple):
  """A binary or ternary kernel.

  Attributes:
    words: uint32 [w o] of a dense layer, [kh kw w o] of a convolution; w words hold the input channels' signs.
    scale: float32 [o].
    sums: int32 [kh kw o], the sum of the codes of each tap of a convolution; [o] of a dense layer.
    terms: int32 [o], how many codes are not zero.
    nonzero: like `words`, a bit where a ternary kernel's code is not zero; None of a binary one, which has no zeros.
  """
  words: Array
  scale: Array
  sums: Array
  terms: Array
  nonzero: Array | None = None


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
  """The kernel of a binary or ternary layer, as its transform stores it.

  Args:
    integers: codes [c o] or [kh kw c o], of 1, -1 and 0; a scale by output channel or one for all.
  Returns:
    The kernel for `dense` or `conv`.
  Raises:
    ValueError: codes of another rank or other values, or a scale that differs within an output channel.
  """
  codes, scale = np.asarray(integers.codes), np.asarray(integers.scale, np.float32)
  if codes.ndim not in (2, 4):
    raise ValueError(f'pack_kernel: codes of shape {codes.shape}; a dense layer has [c o], a convolution [kh kw c o].')
  if not (np.abs(codes) <= 1).all() or integers.zero_point is not None:
    raise ValueError('pack_kernel: a weight is 1, -1 or 0; kernels of more levels are not packed.')
  if any(size != 1 for size in scale.shape[:-1]):
    raise ValueError(f'pack_kernel: a scale of shape {scale.shape} differs within an output channel.')

  def words_of(bits: np.ndarray) -> Array:
    return jnp.moveaxis(pack(jnp.moveaxis(jnp.where(bits, 1.0, -1.0), -2, -1)), -1, -2)

  is_ternary = not codes.all()
  return PackedKernel(
    words_of(codes > 0), jnp.broadcast_to(scale.reshape(-1), codes.shape[-1:]), jnp.asarray(codes, jnp.int32).sum(-2),
    jnp.asarray((codes != 0).sum(tuple(range(codes.ndim - 1))), jnp.int32),
    words_of(codes != 0) if is_ternary else None)


def count_differences(
  x: UInt32[Array, 'm w'], kernel: UInt32[Array, 'w o'], counted: UInt32[Array, 'w o'] | None = None,
) -> Int[Array, 'm o']:
  """How many bits of each row differ from each column.

  Args:
    x: packed rows.
    kernel: packed columns.
    counted: which bits of a column count; None: all.
  Returns:
    int32 counts.
  """
  missing = -kernel.shape[0] % WORDS_A_PASS  # words of zeros on both sides, which differ in no bit
  fill = ((0, missing), (0, 0))
  rows, columns = jnp.pad(x.T, fill), jnp.pad(kernel, fill)
  masks = None if counted is None else jnp.pad(counted, fill)

  # Word by word in a loop: written as one reduction over the words it takes 5 to 10 times as long on CPU.
  def add(i: Any, counts: Array) -> Array:
    for k in range(WORDS_A_PASS):
      word = i * WORDS_A_PASS + k
      differing = rows[word][:, None] ^ columns[word][None, :]
      counts = counts + lax.population_count(differing if masks is None else differing & masks[word][None, :])
    return counts

  counts = jnp.zeros((x.shape[0], kernel.shape[1]), jnp.uint32)
  return lax.fori_loop(0, rows.shape[0] // WORDS_A_PASS, add, counts).astype(jnp.int32)


def dense(x: Float[Array, '*b n'], kernel: PackedKernel, *, unit: bool = False) -> Float[Array, '*b o']:
  """A dense layer of binary or ternary weights on the signs of its input: (sign(x) @ codes) * scale.

  Args:
    x: any numbers; only x >= 0 counts, or x >= 1/2.
    kernel: of `pack_kernel`.
    unit: inputs are 1 and 0 in place of signs, see `estimators.unit`.
  Returns:
    float32, without bias.
  """
  rows = _bits(x, unit).reshape(-1, kernel.words.shape[0])
  sums = kernel.terms - 2 * count_differences(rows, kernel.words, kernel.nonzero)
  sums = (sums + kernel.sums) // 2 if unit else sums
  return (sums.astype(jnp.float32) * kernel.scale).reshape(*x.shape[:-1], kernel.words.shape[-1])


def conv(
  x: Float[Array, 'b h w c'], kernel: PackedKernel, *, strides: tuple[int, int] = (1, 1),
  padding: str | Sequence[tuple[int, int]] = 'SAME', unit: bool = False,
) -> Float[Array, 'b ho wo o']:
  """A convolution of binary or ternary weights over the signs of its input, NHWC; padded pixels are zero and no sign.

  Args:
    x: any numbers; only x >= 0 counts, or x >= 1/2.
    kernel: of `pack_kernel`.
    strides: pixels, (vertical, horizontal).
    padding: 'SAME', 'VALID', or ((before, after), (before, after)) in pixels.
    unit: inputs are 1 and 0 in place of signs, see `estimators.unit`.
  Returns:
    float32, without bias.
  """
  window, features = kernel.words.shape[:2], kernel.words.shape[-1]
  pads = lax.padtype_to_pads(x.shape[1:3], window, strides, padding) if isinstance(padding, str) else padding
  padded = jnp.pad(_bits(x, unit), ((0, 0), *((int(before), int(after)) for before, after in pads), (0, 0)))
  rows, columns = (
    (size - extent) // stride + 1 for size, extent, stride in zip(padded.shape[1:3], window, strides, strict=True))

  def tap(image: Any, i: int, j: int) -> Any:
    """The pixels of the last two axes but one that a tap of the kernel meets."""
    return image[..., i:i + (rows - 1) * strides[0] + 1:strides[0], j:j + (columns - 1) * strides[1] + 1:strides[1], :]

  taps = list(itertools.product(*map(range, window)))
  patches = jnp.concatenate([tap(padded, i, j) for i, j in taps], axis=-1)
  nonzero = None if kernel.nonzero is None else kernel.nonzero.reshape(-1, features)
  counts = count_differences(
    patches.reshape(-1, patches.shape[-1]), kernel.words.reshape(-1, features), nonzero)
  sums = (kernel.terms - 2 * counts).reshape(x.shape[0], rows, columns, features)
  if unit:
    sums = (sums + kernel.sums.sum((0, 1))) // 2
  elif padded.shape[1:3] != x.shape[1:3]:
    is_padded = np.pad(np.zeros((*x.shape[1:3], 1), np.int32), (*pads, (0, 0)), constant_values=1)
    # Shapes are known here: where each tap meets padding is a constant.
    outside = np.concatenate([tap(is_padded, i, j) for i, j in taps], axis=-1)
    sums = sums + jnp.einsum('hwt,to->hwo', outside, kernel.sums.reshape(-1, features))
  return sums.astype(jnp.float32) * kernel.scale


def interceptor(encoded: Encoded) -> Callable[..., Any]:
  """Runs each layer with a binary or ternary kernel and a binary input on packed bits; the others compute as they did.

  Args:
    encoded: what was stored; kernels are packed once, here, outside the jitted function.
  Returns:
    For `flax.linen.intercept_methods`, inside that of `frozen_interceptor`, which takes care of layers whose input
    alone is binary, and of scales of inputs.
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
    if path.rpartition('/')[0] in inputs and _is_packable(integers)}

  def intercept(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
    path = module_path(about)
    if path not in kernels or about.method_name != '__call__':
      return following(*args, **kwargs)
    y = _layer(about.module, args[0], kernels[path], path, is_unit(encoded.activations[path]))
    return y + about.module.get_variable('params', 'bias') if about.module.use_bias else y

  return intercept


def _bits(x: Array, unit: bool) -> Array:
  return pack(x - 0.5 if unit else x)


def _is_packable(integers: Integers) -> bool:
  """Whether codes are -1, 0 and 1 without a zero point."""
  return integers.bits <= 2 and integers.zero_point is None and bool((np.abs(np.asarray(integers.codes)) <= 1).all())


def _layer(layer: Any, x: Array, kernel: PackedKernel, path: str, unit: bool) -> Array:
  """A linen layer's product, by its fields."""
  if jnp.result_type(layer.dtype or x.dtype) != jnp.float32:
    raise ValueError(f'{path}: packed layers compute in float32, and this one in {jnp.result_type(layer.dtype)}.')
  window = geometry.window_of(layer, x, path)
  if window is None:
    return dense(x, kernel, unit=unit)
  return conv(x, kernel, strides=window.strides, padding=window.padding, unit=unit)
