"""Everything that a run carries from one step to the next, in one pytree; what a checkpoint holds."""
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from lightjax.core.transform import Own
from lightjax.core.typing import Array, PyTree, Variables

__all__ = ['TrainState', 'create']


class TrainState(struct.PyTreeNode):
  """The state of training.

  Attributes:
    step: optimizer steps completed, int32; the data position too, since the order of examples is a function of it.
    params: the network's parameters, float32.
    collections: its other collections (`batch_stats`).
    own: what the compression owns: trainables (LSQ steps), masks, ranges.
    opt_state: optax state over {'params': params, 'transform': own.trainable}.
    average: exponential moving average of the params, or None.
    totals: sums since the epoch began: examples, loss, correct.
    failed: step and index of the gradient leaf of the first non-finite step, (-1, -1) while all is well; the state is
      the one before that step, and no later step changes it.
  """
  step: Array
  params: PyTree
  collections: PyTree
  own: Own
  opt_state: PyTree
  average: PyTree
  totals: dict[str, Array]
  failed: tuple[Array, Array]

  def variables(self) -> Variables:
    """What the network is evaluated with: the averaged params where there is an average."""
    return {**self.collections, 'params': self.params if self.average is None else self.average}


def create(variables: Variables, own: Own, optimizer: optax.GradientTransformation, *, averaged: bool) -> TrainState:
  """The state before the first step."""
  params = variables['params']
  collections = {name: value for name, value in variables.items() if name != 'params'}
  return TrainState(
    step=jnp.zeros((), jnp.int32), params=params, collections=collections, own=own,
    opt_state=optimizer.init({'params': params, 'transform': own.trainable}),
    # A copy: the step donates its buffers, and none may be given away twice.
    average=jax.tree.map(jnp.copy, params) if averaged else None,
    totals=empty_totals(), failed=(jnp.int32(-1), jnp.int32(-1)),
  )


def empty_totals() -> dict[str, Any]:
  """Sums at the beginning of an epoch."""
  return {name: jnp.zeros((), jnp.float32) for name in ('examples', 'loss', 'correct')}
