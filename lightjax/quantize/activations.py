"""Quantization of activations: the inputs of chosen layers, rounded inside the forward pass by linen's interception."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

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
    modules = {path.rpartition('/')[0]: path for path in context.select(variables)}
    calls: dict[str, int] = {}

    def count(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
      path = _path(about)
      # Inside nn.scan and nn.vmap a layer is called, but no collection gets there that they were not told of.
      if path in modules and about.method_name == '__call__' and about.module.has_variable('probe', 'reached'):
        if not args:
          raise ValueError(f'{name}: the layer of {modules[path]!r} takes its input by keyword; give it by position.')
        calls[path] = calls.get(path, 0) + 1
      return following(*args, **kwargs)

    context.need('modules', name)(count, {'probe': _nest({module: {'reached': np.zeros(())} for module in modules})})
    for module, path in modules.items():
      if module not in calls:
        raise ValueError(
          f'{name}: interception does not reach the layer of {path!r} (inside nn.scan or nn.vmap, or not called in the '
          f'forward pass); leave it alone with where((({path!r}, None), ...)).'
        )
    return Own(state={module: {f'call{i}': ranges.empty() for i in range(n)} for module, n in calls.items()})

  def intercept(own: Own, train: bool) -> Interception:
    def make(collection: str) -> Callable[..., Any]:
      def quantize(about: Any, call: str, x: Any) -> Any:
        seen = about.module.get_variable(collection, call)
        if seen is None:
          raise ValueError(f'{name}: {_path(about)!r} has no range for {call}; it was called less often at init.')
        if train:
          seen = ranges.observe(seen, x, decay=decay)
          about.module.put_variable(collection, call, seen)
        return quantizers.affine(x, *quantizers.affine_parameters(*ranges.limits(seen), bits=bits), bits=bits)

      return _input_interceptor(frozenset(own.state), quantize)

    return Interception(make, _nest(own.state))

  def update(variables: Variables, own: Own, context: Context) -> Own:
    return own if context.observed is None else Own(state=_unnest(context.observed, own.state))

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
    each = frozen[_path(about)][int(call.removeprefix('call'))]
    scale, zero_point = (jnp.float32(each[name]) for name in ('scale', 'zero_point'))
    return quantizers.affine(x, scale, zero_point, bits=each['bits'])

  return _input_interceptor(frozenset(frozen), quantize)


def _input_interceptor(modules: frozenset[str], quantize: Callable[[Any, str, Any], Any]) -> Callable[..., Any]:
  """An interceptor that replaces the first argument of each call of the named modules."""
  calls: dict[str, int] = {}

  def interceptor(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
    path = _path(about)
    if path not in modules or about.method_name != '__call__':
      return following(*args, **kwargs)
    index = calls.get(path, 0)
    calls[path] = index + 1
    return following(quantize(about, f'call{index}', args[0]), *args[1:], **kwargs)

  return interceptor


def _path(about: Any) -> str:
  return '/'.join(about.module.path)


def _nest(state: Mapping[str, Any]) -> dict[str, Any]:
  """'stage1/conv' -> {'stage1': {'conv': ...}}: the shape of a linen collection."""
  nested: dict[str, Any] = {}
  for module, calls in state.items():
    level = nested
    for part in _parts(module):
      level = level.setdefault(part, {})
    level.update(calls)
  return nested


def _unnest(nested: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
  flat = {}
  for module, calls in like.items():
    level: Any = nested
    for part in _parts(module):
      level = level[part]
    flat[module] = {call: level[call] for call in calls}
  return flat


def _parts(module: str) -> list[str]:
  """The names on the way to a module; none for the network itself."""
  return module.split('/') if module else []
