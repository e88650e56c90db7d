"""Methods for very few bits that are combinations of the pieces: DoReFa and WRPN."""
from __future__ import annotations

import jax.numpy as jnp

from lightjax.core import trees
from lightjax.core.transform import Context, Own, Transform, chain, transform
from lightjax.core.typing import Array, Variables
from lightjax.quantize import formats, granularities, scales
from lightjax.quantize.activations import activations
from lightjax.quantize.transforms import weights

__all__ = ['dorefa_weights', 'squash', 'unit_activations', 'wrpn_weights']


def squash() -> Transform:
  """Weights in -1..1: tanh(w) / max|tanh(w)|, over the whole tensor; zeros stay zero.

  Returns:
    A transform without trainables.
  Source: Zhou et al. 2016, arXiv:1606.06160, section 2.3.
  """

  def init(variables: Variables, context: Context) -> Own:
    return Own(state={path: jnp.zeros((), bool) for path in context.select(variables)})

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    leaves = trees.flatten(variables)
    return trees.replace(variables, {path: _squashed(leaves[path]) for path in own.state})

  return transform('squash', init=init, view=view)


def dorefa_weights(*, bits: int) -> Transform:
  """DoReFa's weights: 2 quantize_k(tanh(w) / (2 max|tanh(w)|) + 1 / 2) - 1, 2^bits levels, of which none is zero.

  Args:
    bits: 2..8 (one bit is `binarize`).
  Returns:
    A chain of `squash` and weights in half steps on -1..1, for layers that a BatchNorm follows: the size of the weights
    is lost.
  Source: Zhou et al. 2016, arXiv:1606.06160, section 2.3.
  """
  return chain(squash(), weights(
    bits=bits, format=formats.half_step, scale=scales.fixed(-1.0, 1.0), granularity=granularities.tensor))


def unit_activations(*, bits: int) -> Transform:
  """DoReFa's and WRPN's activations: quantize_k(clip(x, 0, 1)), gradient 1 in 0..1.

  Args:
    bits: 2..8.
  Returns:
    A transform of inputs that lie in 0..1 for the most part; what is beyond is clipped.
  Source: Zhou et al. 2016, arXiv:1606.06160, section 2.4; Mishra et al. 2017, arXiv:1709.01134.
  """
  return activations(bits=bits, scale=scales.fixed(0.0, 1.0))


def wrpn_weights(*, bits: int) -> Transform:
  """WRPN's weights: round(clip(w, -1, 1) (2^(bits - 1) - 1)) / (2^(bits - 1) - 1).

  Args:
    bits: 2..8.
  Returns:
    The transform; WRPN's other half is a wider network.
  Source: Mishra et al. 2017, arXiv:1709.01134.
  """
  return weights(bits=bits, scale=scales.fixed(-1.0, 1.0), granularity=granularities.tensor)


def _squashed(weight: Array) -> Array:
  bent = jnp.tanh(weight)
  largest = jnp.max(jnp.abs(bent))
  return bent / jnp.where(largest > 0, largest, 1)
