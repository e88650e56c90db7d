"""Quantization of weights as a view."""
from __future__ import annotations

import jax.numpy as jnp

from lightjax.core import trees
from lightjax.core.encoded import Encoded, Integers
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Path, Variables
from lightjax.quantize import quantizers

__all__ = ['weights']


def weights(*, bits: int, per_channel: bool = True) -> Transform:
  """Weights on a symmetric integer grid, with abs-max steps taken from the weights as they are.

  Args:
    bits: 2..8 a weight.
    per_channel: a step for each output channel (of the axis that the network's graph names), or one for the tensor.
  Returns:
    A transform without trainables. It keeps zeros, so that it may follow pruning.
  Source: Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342, section 3.1.
  """
  quantizers.limit(bits)  # refuses a bad number where it was written
  name = f'weights(int{bits})'

  def init(variables: Variables, context: Context) -> Own:
    """The state is the shape of each parameter's steps: zeros that only say which axes are channels."""
    shapes = {}
    for path, leaf in context.select(variables).items():
      kept = context.layouts[path].output_axes if per_channel and path in context.layouts else ()
      shapes[path] = jnp.zeros([size if axis in kept else 1 for axis, size in enumerate(leaf.shape)], bool)
    return Own(state=shapes)

  def steps(leaf: Array, shape: Array) -> Array:
    shared = [axis for axis, size in enumerate(shape.shape) if size == 1]
    return quantizers.scale_absmax(leaf, bits=bits, reduced_axes=shared)

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    leaves = trees.flatten(variables)
    return trees.replace(variables, {
      path: quantizers.symmetric(leaves[path], steps(leaves[path], shape), bits=bits)
      for path, shape in own.state.items()
    })

  def finalize(variables: Variables, own: Own) -> Encoded:
    leaves = trees.flatten(variables)
    integers: dict[Path, Integers] = {}
    for path, shape in own.state.items():
      scale = steps(leaves[path], shape)
      integers[path] = Integers(quantizers.codes(leaves[path], scale, bits=bits).astype(jnp.int8), scale, bits)
    return Encoded(integers, {})

  return transform(name, init=init, view=view, finalize=finalize)
