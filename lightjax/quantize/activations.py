"""Quantization of activations: the inputs of chosen layers, rounded inside the forward pass by linen's interception."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lightjax.core import interception
from lightjax.core.encoded import Encoded
from lightjax.core.transform import Context, Interception, Own, Transform, transform
from lightjax.core.typing import Variables
from lightjax.quantize import quantizers, ranges

__all__ = ['activations', 'frozen_interceptor']


def activations(*, bits: int, decay: float = 0.99) -> Transform:
  """The input of each layer whose kernel is selected, on an unsigned grid over a debiased moving range.

  A module that is called more than once has a range for each call. Ranges move in training only.

  Args:
    bits: 2..8 an activation.
    decay: weight of the past in the moving average of the ranges, 0..1.
  Returns:
    A transform that owns the ranges as state: module path -> call -> `ranges.Range`.
  Raises (at init):
    ValueError: interception does not reach a selected layer (inside `nn.scan` or `nn.vmap` it has no place for its
      ranges), a layer takes its input by keyword, or the network is no linen module.
  Source: Jacob et al. 2018, arXiv:1712.05877, section 3.
  Deviations from the paper: no delayed start; the moving average is debiased instead.
  """
  quantizers.limit(bits)
  name = f'activations(uint{bits})'

  def init(variables: Variables, context: Context) -> Own:
    calls = interception.calls_of(variables, context, name)
    return Own(state={module: {f'call{i}': ranges.empty() for i in range(n)} for module, n in calls.items()})

  def intercept(own: Own, train: bool) -> Interception:
    def make(collection: str) -> Callable[..., Any]:
      def quantize(about: Any, call: str, x: Any) -> Any:
        seen = about.module.get_variable(collection, call)
        if seen is None:
          raise ValueError(
            f'{name}: {interception.module_path(about)!r} has no range for {call}; it was called less often at init.')
        if train:
          seen = ranges.observe(seen, x, decay=decay)
          about.module.put_variable(collection, call, seen)
        return quantizers.affine(x, *quantizers.affine_parameters(*ranges.limits(seen), bits=bits), bits=bits)

      return interception.on_inputs(frozenset(own.state), quantize)

    return Interception(make, interception.nest(own.state))

  def update(variables: Variables, own: Own, context: Context) -> Own:
    return own if context.observed is None else Own(state=interception.unnest(context.observed, own.state))

  def finalize(variables: Variables, own: Own) -> Encoded:
    frozen: dict[str, list[dict[str, Any]]] = {}
    for module, calls in own.state.items():
      frozen[module] = []
      for seen in calls.values():
        if not float(seen.weight) > 0:
          raise ValueError(f'{name}: the input range of {module!r} was never observed; train or calibrate it first.')
        scale, zero_point = quantizers.affine_parameters(*ranges.limits(seen), bits=bits)
        frozen[module].append({'scale': float(np.float32(scale)), 'zero_point': int(zero_point), 'bits': bits})
    return Encoded({}, frozen)

  return transform(name, init=init, intercept=intercept, update=update, finalize=finalize)


def frozen_interceptor(frozen: Mapping[str, Sequence[Mapping[str, Any]]]) -> Callable[..., Any]:
  """The interceptor of a stored network: the same rounding with the stored steps and zero points.

  Args:
    frozen: `Encoded.activations`: module path -> for each call its scale, zero point and bits.
  Returns:
    For `flax.linen.intercept_methods`, entered inside the jitted function, anew for each trace.
  """

  def quantize(about: Any, call: str, x: Any) -> Any:
    each = frozen[interception.module_path(about)][int(call.removeprefix('call'))]
    scale, zero_point = (jnp.float32(each[name]) for name in ('scale', 'zero_point'))
    return quantizers.affine(x, scale, zero_point, bits=each['bits'])

  return interception.on_inputs(frozenset(frozen), quantize)
