"""Quantization of activations: the inputs of chosen layers, rounded inside the forward pass by linen's interception."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lightjax import graph
from lightjax.core import interception
from lightjax.core.encoded import Encoded
from lightjax.core.transform import Context, Interception, Own, Transform, transform
from lightjax.core.typing import Array, PyTree, Variables
from lightjax.quantize import formats, inputs, scales
from lightjax.quantize.formats import Format

__all__ = ['activations', 'frozen_interceptor']


def activations(
  *,
  bits: int,
  format: Callable[[int], Format] = formats.affine,
  scale: Callable[..., Any] = scales.min_max,
  decay: float = 0.99,
  shared: bool = False,
) -> Transform:
  """The input of each layer whose kernel is selected, on a grid of codes.

  A module that is called more than once has a scale for each call. Ranges move in training only; trained scales start
  at the first training batch.

  Args:
    bits: 2..8 an activation.
    format: which codes there are, see `formats`.
    scale: where scales come from, see `scales`: a range, whose ends are averaged over batches, or a trained scale
      (`scales.lsq`, `scales.pact`).
    decay: weight of the past in the moving average of the ranges, 0..1; 0 for the last batch's range.
    shared: inputs that an addition or a concatenation joins have one scale (`graph.streams`): the union of the ranges;
      for trained scales the mean of what each of the inputs makes of it. It is common after each training step.
  Returns:
    A transform that owns module path -> call -> range (`ranges.Range`) or trained scale.
  Raises (at init):
    ValueError: interception does not reach a selected layer (inside `nn.scan` or `nn.vmap` it has no place for its
      ranges), a layer takes its input by keyword, or the network is no linen module.
  Source: Jacob et al. 2018, arXiv:1712.05877, section 3.
  Deviations from the paper: no delayed start; the moving average is debiased instead.
  """
  grid = format(bits)
  name = f'activations({grid.name})'
  rounding = inputs.trained(scale(grid)) if scales.is_learned(scale) else inputs.moving(scale, grid, decay=decay)

  def init(variables: Variables, context: Context) -> Own:
    """Trainables and state by module and call; with shared scales the state has each call's stream beside it."""
    calls = interception.calls_of(variables, context, name)
    streams = _streams(calls, variables, context, name) if shared else None
    return join({module: {f'call{i}': rounding.empty() for i in range(n)} for module, n in calls.items()}, streams)

  def split(own: Own) -> tuple[dict[str, Any], PyTree]:
    """Module -> call -> (trainables, state); and the streams."""
    state, streams = own.state if shared else (own.state, None)
    return {module: {call: (own.trainable[module][call], each) for call, each in calls.items()}
            for module, calls in state.items()}, streams

  def join(numbers: Mapping[str, Any], streams: PyTree) -> Own:
    trainable, state = _half(numbers, 0), _half(numbers, 1)
    return Own(trainable, (state, streams) if shared else state)

  def intercept(own: Own, train: bool) -> Interception:
    numbers, _ = split(own)

    def make(collection: str) -> Callable[..., Any]:
      def quantize(about: Any, call: str, x: Any) -> Any:
        held = about.module.get_variable(collection, call)
        if held is None:
          raise ValueError(
            f'{name}: {interception.module_path(about)!r} has no range for {call}; it was called less often at init.')
        trainable, state = held
        if train:
          trainable, state = rounding.observe(trainable, state, x)
          about.module.put_variable(collection, call, (trainable, state))
        levels, step = rounding.levels(trainable, state, x)
        return (levels * step).astype(x.dtype)

      return interception.on_inputs(frozenset(numbers), quantize)

    return Interception(make, interception.nest(numbers))

  def update(variables: Variables, own: Own, context: Context) -> Own:
    held, streams = split(own)
    seen = held if context.observed is None else interception.unnest(context.observed, held)
    after = _merge(_half(seen, 1), streams, rounding.shared[1])
    settled = {module: {call: rounding.settle(trainable, state, after[module][call])
                        for call, (trainable, state) in calls.items()} for module, calls in held.items()}
    settled = _merge(settled, streams, rounding.shared[0])
    return join({module: {call: (settled[module][call], after[module][call]) for call in calls}
                 for module, calls in held.items()}, streams)

  def finalize(variables: Variables, own: Own) -> Encoded:
    frozen: dict[str, list[dict[str, Any]]] = {}
    for module, calls in split(own)[0].items():
      frozen[module] = []
      for numbers in calls.values():
        trainable, state = numbers
        if not bool(rounding.is_seen(state)):
          raise ValueError(f'{name}: the input range of {module!r} was never observed; train or calibrate it first.')
        step, zero_point = rounding.parameters(trainable, state)
        stored = {'scale': float(np.float32(step)), 'zero_point': int(zero_point), 'bits': bits}
        frozen[module].append(stored if grid.kind == 'affine' else {**stored, 'format': grid.kind})
    return Encoded({}, frozen)

  return transform(name, init=init, intercept=intercept, update=update, finalize=finalize)


def frozen_interceptor(frozen: Mapping[str, Sequence[Mapping[str, Any]]]) -> Callable[..., Any]:
  """The interceptor of a stored network: the same rounding with the stored steps and zero points.

  Args:
    frozen: `Encoded.activations`: module path -> for each call its scale, zero point, bits, and format if not affine.
  Returns:
    For `flax.linen.intercept_methods`, entered inside the jitted function, anew for each trace.
  """

  def quantize(about: Any, call: str, x: Any) -> Any:
    each = frozen[interception.module_path(about)][int(call.removeprefix('call'))]
    grid = getattr(formats, each.get('format', 'affine'))(each['bits'])
    scale, zero_point = (jnp.float32(each[name]) for name in ('scale', 'zero_point'))
    return (grid.levels(x, scale, zero_point, None) * scale).astype(x.dtype)

  return interception.on_inputs(frozenset(frozen), quantize)


def _half(numbers: Mapping[str, Any], index: int) -> dict[str, Any]:
  return {module: {call: each[index] for call, each in calls.items()} for module, calls in numbers.items()}


def _streams(calls: Mapping[str, int], variables: Variables, context: Context, name: str) -> PyTree:
  """Module -> call -> number of the stream that it reads, int32."""
  reads: dict[str, list[int]] = {}
  for read in graph.streams(context.need('apply', name), variables, *context.need('batch', name)):
    reads.setdefault(read.kernel.rpartition('/')[0], []).append(read.stream)
  for module, count in calls.items():
    uses = len(reads.get(module, []))
    if uses != count:
      raise ValueError(f'{name}: {module!r} is called {count} times, but its kernel is used {uses} times; leave it '
                       'alone by a rule, or set shared=False.')
  return {module: {f'call{i}': jnp.int32(reads[module][i]) for i in range(n)} for module, n in calls.items()}


# (numbers of all calls [1, n], which of them share a scale [n, n]) -> [n].
_REDUCTIONS: dict[str, Callable[[Array, Array], Array]] = {
  'min': lambda each, same: jnp.min(jnp.where(same, each, jnp.inf), axis=1),
  'max': lambda each, same: jnp.max(jnp.where(same, each, -jnp.inf), axis=1),
  'mean': lambda each, same: jnp.sum(jnp.where(same, each, 0), axis=1) / jnp.sum(same, axis=1),
}


def _merge(by_call: dict[str, Any], streams: PyTree, names: PyTree) -> dict[str, Any]:
  """The same numbers for all calls of a stream, each reduced as it is named; without streams what is given."""
  if streams is None:
    return by_call
  places = [(module, call) for module, calls in by_call.items() for call in calls]
  ids = jnp.stack([streams[module][call] for module, call in places])
  stacked = jax.tree.map(lambda *each: jnp.stack(each), *(by_call[module][call] for module, call in places))
  merged = jax.tree.map(lambda name, each: _REDUCTIONS[name](each[None], ids[:, None] == ids[None]), names, stacked)
  result: dict[str, Any] = {module: {} for module in by_call}
  for i, (module, call) in enumerate(places):
    result[module][call] = jax.tree.map(lambda each, i=i: each[i], merged)
  return result
