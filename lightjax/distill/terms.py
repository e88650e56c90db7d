"""Terms of a distilled step: a loss of what is tapped, its learner and its weight; and the transform that owns them."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lightjax.core import rngs
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Variables
from lightjax.distill import taps
from lightjax.distill.learners import Learner, Seen

__all__ = ['SELF', 'TEACHER', 'Term', 'names', 'owner', 'total']

TEACHER, SELF = 'teacher', 'self'


class Term(NamedTuple):
  """One term of a distilled run's loss: weight * mean over the batch of loss(student, teacher, **hyper).

  Attributes:
    name: for messages and keys.
    loss: (student, teacher, **hyper) -> [b], see `losses`. Its arrays are tuples where `several`; `labels` is passed
      where it takes it.
    hyper: hyperparameters of the loss.
    weight: of the mean over the batch.
    learner: between taps and loss.
    student: names of taps, of `taps.select`.
    teacher: likewise, of the teacher, or where `of` says so of the student itself.
    of: TEACHER, or SELF: the student's own later layers teach, without gradient.
    several: whether the loss compares sequences of taps.
  """
  name: str
  loss: Callable[..., Array]
  hyper: Mapping[str, Any]
  weight: float
  learner: Learner
  student: tuple[str, ...]
  teacher: tuple[str, ...]
  of: str = TEACHER
  several: bool = False

  def value(self, own: Own, seen: Seen) -> tuple[Array, Any]:
    """Its loss of a batch.

    Args:
      own: what its learner owns.
      seen: taps, labels and key.
    Returns:
      (loss [b], the learner's state after the step).
    Raises:
      ValueError: shapes that the loss refuses, with the taps of both sides.
    """
    seen = seen._replace(teacher=jax.lax.stop_gradient(seen.teacher))
    given, keywords, state = self.learner.apply(own, seen)
    if 'labels' in inspect.signature(self.loss).parameters:
      keywords['labels'] = seen.labels
    student, teacher = (given.student, given.teacher) if self.several else (given.student[0], given.teacher[0])
    try:
      return self.loss(student, teacher, **keywords, **self.hyper), state
    except ValueError as error:
      raise ValueError(
        f'{self.name}: {error} (student taps {self.student}, {self.of} taps {self.teacher})') from error


def owner(terms: Sequence[Term], shapes: Callable[[Term], tuple[Sequence[Any], Sequence[Any]]]) -> Transform:
  """The transform that owns what the terms' learners train and keep: the last stage of a distilled run's chain.

  It changes nothing that the network computes, stores nothing and counts nothing.

  Args:
    terms: of the run.
    shapes: term -> shapes of its taps, the student's and the teacher's.
  Returns:
    A transform that owns term name -> what the learner owns.
  """

  def init(variables: Variables, context: Context) -> Own:
    key = context.need('key', 'distillation')
    owned = {term.name: term.learner.init(rngs.fold(key, term.name), *shapes(term)) for term in terms}
    return Own({name: own.trainable for name, own in owned.items()}, {name: own.state for name, own in owned.items()})

  return transform('distillation', init=init)._replace(describe=lambda variables, context: ())


def total(
  terms: Sequence[Term], own: Own, key: Array, *, student: Callable[[Sequence[str]], tuple[Array, ...]],
  teacher: Callable[[Sequence[str]], tuple[Array, ...]], labels: Array, images: Array,
  index: Array | None,
) -> tuple[Array, dict[str, Any]]:
  """The sum of the terms on a batch.

  Args:
    terms: of the run.
    own: what `owner` owns.
    key: of the step.
    student: names of taps -> features.
    teacher: likewise.
    labels: [b].
    images: inputs of the network.
    index: [b], of the examples, or None.
  Returns:
    (sum of weight * mean over the batch, the learners' states after the step).
  """
  value, states = jnp.zeros(()), {}
  for term in terms:
    features = (student if term.of == SELF else teacher)(term.teacher)
    seen = Seen(student(term.student), features, labels, images, index, rngs.fold(key, term.name))
    each, states[term.name] = term.value(Own(own.trainable.get(term.name, {}), own.state.get(term.name, {})), seen)
    value += term.weight * each.mean()
  return value, states


def names(terms: Sequence[Term], of: str) -> tuple[str, ...]:
  """The taps that the terms need, each once.

  Args:
    terms: of the run.
    of: SELF for the student's, TEACHER for the teacher's.
  Returns:
    Names other than the network's output.
  """
  wanted = [name for term in terms for name in (
    (*(term.student if of == SELF else ()), *(term.teacher if term.of == of else ())))]
  return tuple(dict.fromkeys(name for name in wanted if name != taps.OUTPUT))
