"""Binary activations: the inputs of chosen layers become +1 and -1, or 1 and 0, by linen's interception."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lightjax.binarize import estimators, geometry
from lightjax.binarize.progress import Progress
from lightjax.core import interception
from lightjax.core.encoded import Encoded
from lightjax.core.transform import Context, Interception, Own, Transform, transform
from lightjax.core.typing import Array, Variables

__all__ = ['activations', 'binary_modules', 'frozen_interceptor', 'is_unit']

Frozen = Mapping[str, Sequence[Mapping[str, Any]]]

# What is known of a stored network's binary inputs: +1 and -1 from 0 on, or 1 and 0 from 1/2 on.
VALUES: dict[str, Callable[[Array], Array]] = {'sign': estimators.identity, 'unit': estimators.unit}
# Points at which an estimator shows which of them it is, both thresholds and their neighbours among them.
POINTS = np.array([-2, -1, -0.5, -1e-3, 0, 1e-3, 0.499, 0.5, 0.501, 1, 2], np.float32)


def activations(estimator: Callable[..., Array], *, steps: int | None = None, scaled: bool = False) -> Transform:
  """The input of each layer whose kernel is selected, as its sign, or as 1 and 0 by `estimators.unit`.

  What comes before a layer of signs must be able to be negative: the sign of what a ReLU gives is always +1. A
  convolution pads its binary input with zeros, of signs a third value; `binarize.packed` computes just that.

  Args:
    estimator: of `binarize.estimators`, or a function of the same form (input, or input and progress).
    steps: of the training, for an estimator that asks for its progress.
    scaled: multiply a layer's output, but for its bias, by XNOR-Net's K, the mean size of the inputs that each place
      sees (`geometry.input_scale`); gradients go through it as well. The sizes are those that the layer is given, so
      that clips in the network before it count.
  Returns:
    A transform without trainables.
  Raises:
    ValueError: the estimator's values are neither signs nor `unit`'s; at init: interception does not reach a selected
      layer, see `core.interception.calls_of`; in the forward pass: `scaled` and a convolution that is not plain.
  Source: Courbariaux et al. 2016, arXiv:1602.02830, algorithm 1; the estimator's; K: Rastegari et al. 2016,
    arXiv:1603.05279, section 3.2.
  """
  name = f'activations({getattr(estimator, "__name__", "sign")})'
  progress = Progress.asked_by(estimator, steps, name)
  is_asked = 'progress' in inspect.signature(estimator).parameters
  description: dict[str, Any] = {'bits': 1}
  if (levels := _levels(estimator, is_asked, name)) != 'sign':
    description['levels'] = levels
  if scaled:
    description['scaled'] = True

  def init(variables: Variables, context: Context) -> Own:
    """The state is the progress, by module and call: each call that was seen here is intercepted."""
    calls = interception.calls_of(variables, context, name)
    return Own(state={module: {f'call{i}': progress.at(0) for i in range(n)} for module, n in calls.items()})

  def intercept(own: Own, train: bool) -> Interception:
    def make(collection: str) -> Callable[..., Any]:
      def binarize(about: Any, call: str, x: Any) -> Any:
        now = about.module.get_variable(collection, call)
        if now is None:
          raise ValueError(
            f'{name}: {interception.module_path(about)!r} was called less often at init than here, {call} is new.')
        return estimator(x, now) if is_asked else estimator(x)

      return interception.on_inputs(frozenset(own.state), binarize, *((_scaled,) if scaled else ()))

    return Interception(make, interception.nest(own.state))

  def update(variables: Variables, own: Own, context: Context) -> Own:
    return Own(state={
      module: {call: progress.at(context.step) for call in calls} for module, calls in own.state.items()})

  def finalize(variables: Variables, own: Own) -> Encoded:
    return Encoded({}, {module: [dict(description) for _ in calls] for module, calls in own.state.items()})

  return transform(name, init=init, intercept=intercept, update=update, finalize=finalize)


def frozen_interceptor(frozen: Frozen) -> Callable[..., Any]:
  """The interceptor of a stored network: the binary input of each layer that has one, and its scale.

  Args:
    frozen: `Encoded.activations`: module path -> for each call what is known of its input; layers whose inputs have
      more than one bit are left to others.
  Returns:
    For `flax.linen.intercept_methods`, entered inside the jitted function, anew for each trace.
  """

  def binarize(about: Any, call: str, x: Any) -> Any:
    return VALUES['unit' if is_unit(frozen[interception.module_path(about)]) else 'sign'](x)

  def after(about: Any, x: Any, y: Any) -> Any:
    return _scaled(about, x, y) if frozen[interception.module_path(about)][0].get('scaled') else y

  return interception.on_inputs(binary_modules(frozen), binarize, after)


def binary_modules(frozen: Frozen) -> frozenset[str]:
  """The modules whose inputs are stored as binary; `frozen` is `Encoded.activations`."""
  return frozenset(module for module, calls in frozen.items() if all(call['bits'] == 1 for call in calls))


def is_unit(calls: Sequence[Mapping[str, Any]]) -> bool:
  """Whether a module's binary inputs, of which this is stored, are 1 and 0."""
  return calls[0].get('levels', 'sign') == 'unit'


def _levels(estimator: Callable[..., Array], is_asked: bool, name: str) -> str:
  """Which of `VALUES` an estimator's values are: what is stored of it."""
  found = np.asarray(estimator(jnp.asarray(POINTS), jnp.float32(0)) if is_asked else estimator(jnp.asarray(POINTS)))
  for levels, value in VALUES.items():
    if np.array_equal(found, value(jnp.asarray(POINTS))):
      return levels
  raise ValueError(
    f'{name}: the values at {POINTS.tolist()} are {found.tolist()}, neither +1 where x >= 0 and -1 elsewhere nor 1 '
    'where x >= 1/2 and 0 elsewhere; shift or clip the input in the network.')


def _scaled(about: Any, x: Array, y: Array) -> Array:
  """A layer's output times the scale of its input; its bias is not scaled."""
  layer = about.module
  scale = geometry.input_scale(x, geometry.window_of(layer, x, interception.module_path(about)))
  if not getattr(layer, 'use_bias', False):
    return y * scale
  bias = layer.get_variable('params', 'bias').astype(y.dtype)
  return (y - bias) * scale + bias
