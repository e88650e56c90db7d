"""The training step (gradients at the view, pulled back; optimizer; masks; averages) and the evaluation step."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lightjax.core import rngs
from lightjax.core.transform import Own
from lightjax.core.typing import Array, PyTree, Variables
from lightjax.distill import taps
from lightjax.distill import terms as teaching
from lightjax.distill.terms import Term
from lightjax.train import losses
from lightjax.train.compression import Compressed
from lightjax.train.state import TrainState

__all__ = ['Distillation', 'evaluation_step', 'training_step']


class Distillation(NamedTuple):
  """Teaching: loss = labels * loss of the labels + the sum of the terms, all of them means over the batch.

  Attributes:
    apply: (teacher, images, index [b] or None, names) -> features by name ('' for the logits) of the frozen teacher in
      evaluation mode, on the very images that the student sees; `teacher` is a pytree, an argument of the step and no
      constant of it, so that runs with other teachers share the compiled step.
    terms: what is compared, see `distill.terms`.
    labels: weight of the labels' loss.
    owned: the last stage of the transform is the terms' `owner`; without it they own nothing.
  """
  apply: Callable[[PyTree, Array, Array | None, Sequence[str]], Mapping[str, Array]]
  terms: tuple[Term, ...]
  labels: float
  owned: bool = False


def training_step(
  compressed: Compressed,
  optimizer: optax.GradientTransformation,
  *,
  prepare: Callable[[Array, Array], Array],
  loss: Callable[[Array, Array, float], Array] = losses.cross_entropy,
  label_smoothing: float = 0.0,
  average: float = 0.0,
  distillation: Distillation | None = None,
  penalty: Callable[[Variables], Array] | None = None,
) -> Callable[..., TrainState]:
  """One step of training as a pure function, to be jitted with the state donated.

  Args:
    compressed: the network under its transform.
    optimizer: over {'params', 'transform'}.
    prepare: (key, images as stored [b h w c]) -> float images: normalization and augmentation.
    loss: (outputs [b c], labels [b], label smoothing) -> loss [b]; of `losses`.
    label_smoothing: mass taken from the true class, 0..1.
    average: decay of the params' moving average, 0..1; used if the state has one.
    distillation: teaching by a frozen network or by the network itself, or None.
    penalty: variables as the forward pass sees them -> a term of the loss, such as those of `prune.regularizers`.
  Returns:
    (state, key of the run, images [b h w c], labels [b], teacher or None, index of the examples [b] or None) -> state.
    A step whose loss or gradient is not finite leaves the state as it was and is noted in `state.failed`.
  """

  tapped = () if distillation is None else teaching.names(distillation.terms, teaching.SELF)

  def step(
    state: TrainState, key: Array, images: Array, labels: Array, teacher: PyTree = None, index: Array | None = None
  ) -> TrainState:
    key = rngs.fold(key, 'step', state.step)
    inputs = prepare(rngs.fold(key, 'prepare'), images)
    taught: Mapping[str, Array] = {}
    if distillation is not None:
      wanted = teaching.names(distillation.terms, teaching.TEACHER)
      taught = lax.stop_gradient(distillation.apply(teacher, inputs, index, wanted))
    view_key = rngs.fold(key, 'view')

    def view(params: PyTree, trainable: PyTree) -> Variables:
      own = state.own._replace(trainable=trainable)
      return compressed.transform.view({**state.collections, 'params': params}, own, view_key)['params']

    def objective(viewed: PyTree, trainable: PyTree) -> tuple[Array, tuple[Array, PyTree, PyTree, Own]]:
      own = state.own._replace(trainable=trainable)
      capture: dict[str, Any] = {'capture_intermediates': taps.capture(tapped)} if tapped else {}
      (logits, mutated), observed = compressed.apply_view(
        {**state.collections, 'params': viewed}, own, inputs, observe=True, train=True,
        mutable=[*state.collections, *(['intermediates'] if tapped else [])],
        rngs={'dropout': rngs.fold(key, 'dropout')}, **capture)
      mutated = dict(mutated)
      features = mutated.pop('intermediates', {})
      value = loss(logits, labels, label_smoothing).mean()
      if distillation is not None:
        owned = Own(own.trainable[-1], own.state[-1]) if distillation.owned else Own({}, {})
        lessons, kept = teaching.total(
          distillation.terms, owned, rngs.fold(key, 'distill'), labels=labels, images=inputs, index=index,
          student=lambda names: taps.read(features, logits, names),
          teacher=lambda names: tuple(taught[name] for name in names))
        value = distillation.labels * value + lessons
        if distillation.owned:
          own = own._replace(state=(*own.state[:-1], kept))
      if penalty is not None:
        value += penalty({**state.collections, 'params': viewed})
      return value, (logits, mutated, observed, own)

    viewed, pull_back = jax.vjp(view, state.params, state.own.trainable)
    differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    (value, (logits, mutated, observed, after)), (at_view, direct) = differentiate(viewed, state.own.trainable)
    gradients, through_view = pull_back(at_view)
    gradients = {'params': gradients, 'transform': jax.tree.map(jnp.add, through_view, direct)}

    trained = {'params': state.params, 'transform': state.own.trainable}
    updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    collections = {**state.collections, **mutated}

    def loss_of(variables: Variables) -> Array:
      # In training mode, as the gradients are: at initialization the running statistics say nothing.
      logits, _ = compressed.forward(
        variables, inputs, train=True, mutable=list(collections), rngs={'dropout': rngs.fold(key, 'dropout')})
      return loss(logits, labels, label_smoothing).mean()

    # The optimizer's slots are masked over both trees, the averaged params over their own.
    variables, own, _ = compressed.update(
      {**collections, 'params': trained['params']}, after._replace(trainable=trained['transform']),
      step=state.step + 1, key=rngs.fold(key, 'update'), observed=observed, gradients=at_view, loss=loss_of,
      batch=(inputs,))
    params = variables['params']
    opt_state = compressed.mask_optimizer(optimizer, opt_state, params, own)
    averaged = state.average
    if averaged is not None:
      averaged = jax.tree.map(lambda old, new: average * old + (1 - average) * new, averaged, params)
      averaged = compressed.transform.project({**collections, 'params': averaged}, own)['params']

    # By a sort, which puts the first that is not finite in front: XLA takes a conjunction into the update of every
    # parameter, each time of all parameters, and the time to compile a step grows with the square of their number.
    finite = jnp.stack([jnp.isfinite(value), *(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(at_view))])
    ordered, leaves = lax.sort((finite.astype(jnp.int32), jnp.arange(finite.size)), num_keys=1)
    totals = {
      'examples': state.totals['examples'] + labels.shape[0],
      'loss': state.totals['loss'] + value * labels.shape[0],
      'correct': state.totals['correct'] + (logits.argmax(-1) == labels).sum(),
    }
    # A failed run stands still, so that the layer can be found from the very state and batch that failed.
    sound = (ordered[0] == 1) & (state.failed[0] < 0)
    first_failure = ~sound & (state.failed[0] < 0)
    failure = (state.step, leaves[0].astype(jnp.int32))
    moved = TrainState(state.step + 1, params, collections, own, opt_state, averaged, totals, state.failed)
    kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), moved, state)
    return kept.replace(failed=jax.tree.map(lambda new, old: jnp.where(first_failure, new, old), failure, state.failed))

  return step


def evaluation_step(
  compressed: Compressed, *, prepare: Callable[[Array], Array],
  loss: Callable[[Array, Array, float], Array] = losses.cross_entropy,
) -> Callable[[Variables, Own, Array, Array, Array], dict[str, Array]]:
  """Sums of a batch in evaluation mode.

  Args:
    compressed: the network under its transform.
    prepare: images as stored -> float images, without augmentation.
    loss: as for `training_step`; labels are not smoothed.
  Returns:
    (variables, own, images, labels, valid [b] bool) -> {'examples', 'loss', 'correct'}; padded examples do not count.
  """

  def step(variables: Variables, own: Own, images: Array, labels: Array, valid: Array) -> dict[str, Array]:
    logits = compressed.apply(variables, own, prepare(images))
    each = loss(logits, labels, 0.0)
    return {
      'examples': valid.sum().astype(jnp.float32),
      'loss': jnp.where(valid, each, 0).sum(),
      'correct': (valid & (logits.argmax(-1) == labels)).sum().astype(jnp.float32),
    }

  return step
