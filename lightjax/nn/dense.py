"""Dense convolution whose kernel gradient is one matrix product of shifted inputs and shifted gradients.

  dk[u, v] = sum_{b, i, j} x[b, s i + u, s j + v] g[b, i, j]^T      (x padded, stride s)

`lax`'s kernel gradient is 3 to 6 times slower than its forward pass on CPU where images are large. Gathering all
kh * kw shifts of x first (im2col) makes one product of it, but copies x as many times. Here x is shifted along columns
only (kw copies side by side) and g along rows only (kh copies), and one product of the two gives every pair (u, v).
A stride s splits the rows into s phases, each with the taps u that meet it.

Forward pass and gradient of x are `lax`'s. Both directions are ordinary operations, so gradients of gradients work;
first-order forward mode does not, as for any `custom_vjp`: use `convolution_mode('lax')` there.
"""
from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

# Images of at least as many output pixels are large here: see `convolution.implementation`.
LEAST_PIXELS = 256


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def dense(
    x: Float[Array, 'b h w c'], kernel: Float[Array, 'kh kw c o'], strides: Pair, padding: Padding, precision: Any,
) -> Float[Array, 'b ho wo o']:
  """Convolution of all channels with all channels.

  Args:
    x: input, NHWC.
    kernel: HWIO, of x's dtype.
    strides: vertical and horizontal stride, pixels.
    padding: zeros (before, after) height and width, pixels.
    precision: of `lax.conv_general_dilated`.
  Returns:
    What `lax.conv_general_dilated` returns.
  """
  return _convolve(x, kernel, strides, padding, precision)


def _convolve(x: Array, kernel: Array, strides: Pair, padding: Padding, precision: Any) -> Array:
  return lax.conv_general_dilated(
      x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=precision)


def _forward(
    x: Array, kernel: Array, strides: Pair, padding: Padding, precision: Any,
) -> tuple[Array, tuple[Array, Array]]:
  return _convolve(x, kernel, strides, padding, precision), (x, kernel)


def _backward(
    strides: Pair, padding: Padding, precision: Any, saved: tuple[Array, Array], gradient: Array,
) -> tuple[Array, Array]:
  x, kernel = saved
  gradient = lax.optimization_barrier(gradient)  # what made it is computed once, not again for each shift
  _, pull_back = jax.vjp(lambda x: _convolve(x, kernel, strides, padding, precision), x)
  return pull_back(gradient)[0], _kernel_gradient(x, kernel, strides, padding, precision, gradient)


dense.defvjp(_forward, _backward)


def _kernel_gradient(
    x: Array, kernel: Array, strides: Pair, padding: Padding, precision: Any, gradient: Array,
) -> Array:
  height, width, channels, features = kernel.shape
  _, rows, columns, _ = gradient.shape
  # Channels first, so that pixels are the last axis of the product's first operand; the barrier keeps XLA from
  # gathering the shifts below straight from x, which is far slower than transposing it first.
  x = lax.optimization_barrier(x.transpose(0, 3, 1, 2))
  padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), (*padding[0], 0), (*padding[1], 0)))
  taps: dict[int, Array] = {}
  for phase in range(min(strides[0], height)):
    met = range(phase, height, strides[0])
    more = len(met) - 1
    seen = padded[:, :, phase:phase + (rows + more - 1) * strides[0] + 1:strides[0]]
    shifted = jnp.concatenate(
        [seen[..., v:v + (columns - 1) * strides[1] + 1:strides[1]] for v in range(width)], axis=1)
    around = jnp.pad(gradient, ((0, 0), (more, more), (0, 0), (0, 0)))
    lagged = jnp.concatenate([around[:, more - lag:more - lag + rows + more] for lag in range(len(met))], axis=-1)
    product = _pixel_product(shifted, lagged, precision).reshape(width, channels, len(met), features)
    taps |= {u: product[:, :, lag] for lag, u in enumerate(met)}
  return jnp.stack([taps[u] for u in range(height)]).astype(kernel.dtype)


def _pixel_product(x: Array, y: Array, precision: Any) -> Array:
  """sum over examples and pixels of x y^T: [b, c, h, w] and [b, h, w, d] to [c, d]."""
  # One product an example is quicker than one over all, as long as there is enough in each.
  batched = ((2, 3), (1, 2)), ((0,), (0,))
  together = ((0, 2, 3), (0, 1, 2)), ((), ())
  is_large = x.shape[2] * x.shape[3] >= LEAST_PIXELS
  product = lax.dot_general(
      x, y, batched if is_large else together, precision=precision,
      preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
  return product.sum(0) if is_large else product
