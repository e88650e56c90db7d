"""What an input of a layer is rounded by: a moving range, or trained numbers that start at the first batch.

`activations` keeps one of these for each call of a layer, and hands over what the call's collection holds.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lightjax.core.typing import Array, PyTree
from lightjax.quantize import ranges
from lightjax.quantize.formats import Format
from lightjax.quantize.learned import Learned, Numbers


class Inputs(NamedTuple):
  """How inputs are rounded.

  Attributes:
    empty: () -> (trainables, state) of a call that has seen nothing.
    observe: (trainables, state, x) -> the same after a training batch, before it is rounded.
    levels: (trainables, state, x) -> (levels, scale) whose product the layer sees.
    settle: (trainables after the optimizer's step, state before it, state after it) -> trainables.
    parameters: (trainables, state) -> (scale, zero point).
    is_seen: state -> whether it has seen a batch.
    shared: how calls that share a scale agree on one: trees like trainables and state of 'min', 'max' and 'mean'.
  """
  empty: Callable[[], tuple[PyTree, PyTree]]
  observe: Callable[[PyTree, PyTree, Array], tuple[PyTree, PyTree]]
  levels: Callable[[PyTree, PyTree, Array], tuple[Array, Array]]
  settle: Callable[[PyTree, PyTree, PyTree], PyTree]
  parameters: Callable[[PyTree, PyTree], tuple[Array, Array]]
  is_seen: Callable[[PyTree], Array]
  shared: tuple[PyTree, PyTree]


def moving(limits: Callable[..., Any], format: Format, *, decay: float) -> Inputs:
  """A debiased moving average of each batch's range."""

  def of_batch(x: Array) -> tuple[Array, Array]:
    low, high = limits(x.reshape(1, -1), format)
    return low[0], high[0]

  def parameters(trained: PyTree, seen: ranges.Range) -> tuple[Array, Array]:
    return format.parameters(*ranges.limits(seen))

  def levels(trained: PyTree, seen: ranges.Range, x: Array) -> tuple[Array, Array]:
    scale, zero_point = parameters(trained, seen)
    return format.levels(x, scale, zero_point, None), scale

  union: Any = ('min', 'max', 'max')
  return Inputs(
    empty=lambda: ((), ranges.empty()),
    observe=lambda trained, seen, x: ((), ranges.observe(seen, x, decay=decay, limits=of_batch)),
    levels=levels, settle=lambda trained, before, after: (), parameters=parameters,
    is_seen=lambda seen: seen.weight > 0, shared=((), ranges.Range(*union)))


class Started(NamedTuple):
  """What is not trained of a trained quantizer.

  Attributes:
    first: the trainables as they were at the start.
    others: its other numbers.
    is_started: 1 after the first batch, float32.
  """
  first: Numbers
  others: Numbers
  is_started: Array


def trained(learned: Learned) -> Inputs:
  """Trained numbers, set by the first training batch."""

  def start(x: Array) -> tuple[Numbers, Numbers]:
    values = lax.stop_gradient(x).astype(jnp.float32).reshape(1, -1)
    return jax.tree.map(lambda each: each[0].astype(jnp.float32), learned.start(values))

  def empty() -> tuple[Numbers, Started]:
    # Ones, so that nothing divides by zero before the first batch; arrays of their own, since a step donates them.
    shapes, others = jax.eval_shape(start, jax.ShapeDtypeStruct((1, 1), jnp.float32))
    numbers, first, others = jax.tree.map(lambda _: jnp.ones((), jnp.float32), (shapes, shapes, others))
    return numbers, Started(first, others, jnp.zeros((), jnp.float32))

  def observe(numbers: Numbers, state: Started, x: Array) -> tuple[Numbers, Started]:
    is_started = state.is_started > 0
    first, others = start(x)
    choose = functools.partial(jax.tree.map, lambda old, new: jnp.where(is_started, old, new))
    return choose(numbers, first), Started(
      choose(state.first, first), choose(state.others, others), jnp.ones_like(state.is_started))

  def levels(numbers: Numbers, state: Started, x: Array) -> tuple[Array, Array]:
    return learned.levels(x, numbers, state.others, x.size / x.shape[0])

  def settle(numbers: Numbers, before: Started, after: Started) -> Numbers:
    chosen = jax.tree.map(lambda new, first: jnp.where(before.is_started > 0, new, first), numbers, after.first)
    return learned.project(chosen)

  shapes = jax.eval_shape(empty)
  return Inputs(
    empty=empty, observe=observe, levels=levels, settle=settle,
    parameters=lambda numbers, state: learned.parameters(numbers, state.others),
    is_seen=lambda state: state.is_started > 0,
    shared=(jax.tree.map(lambda _: 'mean', shapes[0]), jax.tree.map(lambda _: 'max', shapes[1])))
