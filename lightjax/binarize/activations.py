"""Binary activations: the inputs of chosen layers become +1 and -1 by linen's interception."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightjax.binarize import estimators
from lightjax.binarize.progress import Progress
from lightjax.core import interception
from lightjax.core.encoded import Encoded
from lightjax.core.transform import Context, Interception, Own, Transform, transform
from lightjax.core.typing import Array, Variables

__all__ = ['activations', 'binary_modules', 'frozen_interceptor']

# What is stored for each call of a layer with a binary input.
SIGN = {'bits': 1}


def activations(estimator: Callable[..., Array], *, steps: int | None = None) -> Transform:
  """The input of each layer whose kernel is selected, as its sign.

  What comes before such a layer must be able to be negative: the sign of what a ReLU gives is always +1. A convolution
  pads its binary input with zeros, a third value; `binarize.packed` computes just that.

  Args:
    estimator: of `binarize.estimators`, or a function of the same form (input, or input and progress).
    steps: of the training, for an estimator that asks for its progress.
  Returns:
    A transform without trainables.
  Raises (at init):
    ValueError: interception does not reach a selected layer, see `core.interception.calls_of`.
  Source: Courbariaux et al. 2016, arXiv:1602.02830, algorithm 1; the estimator's.
  """
  name = f'activations({getattr(estimator, "__name__", "sign")})'
  progress = Progress.asked_by(estimator, steps, name)
  is_asked = 'progress' in inspect.signature(estimator).parameters

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

      return interception.on_inputs(frozenset(own.state), binarize)

    return Interception(make, interception.nest(own.state))

  def update(variables: Variables, own: Own, context: Context) -> Own:
    return Own(state={
      module: {call: progress.at(context.step) for call in calls} for module, calls in own.state.items()})

  def finalize(variables: Variables, own: Own) -> Encoded:
    return Encoded({}, {module: [dict(SIGN) for _ in calls] for module, calls in own.state.items()})

  return transform(name, init=init, intercept=intercept, update=update, finalize=finalize)


def frozen_interceptor(frozen: Mapping[str, Sequence[Mapping[str, Any]]]) -> Callable[..., Any]:
  """The interceptor of a stored network: the sign of the input of each layer that has a binary one.

  Args:
    frozen: `Encoded.activations`: module path -> for each call what is known of its input; layers whose inputs have
      more than one bit are left to others.
  Returns:
    For `flax.linen.intercept_methods`, entered inside the jitted function, anew for each trace.
  """
  return interception.on_inputs(binary_modules(frozen), lambda about, call, x: estimators.hard_tanh(x))


def binary_modules(frozen: Mapping[str, Sequence[Mapping[str, Any]]]) -> frozenset[str]:
  """The modules whose inputs are stored as binary; `frozen` is `Encoded.activations`."""
  return frozenset(module for module, calls in frozen.items() if all(call == SIGN for call in calls))
