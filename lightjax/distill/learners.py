"""What a distillation term trains or keeps beside the student: projectors, variances, embeddings, a memory.

A learner stands between the taps and a loss. What it owns is trained and checkpointed with the run, is no part of the
stored network and does not count as its size.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lightjax.core import rngs
from lightjax.core.transform import Own
from lightjax.core.typing import Array, Variables

__all__ = ['classifier', 'fusion', 'linear', 'memory', 'none', 'peer', 'variances']

Shapes = Sequence[tuple[int, ...]]


class Seen(NamedTuple):
  """What a term sees of a batch.

  Attributes:
    student: features of its taps, one an array.
    teacher: likewise, without gradient.
    labels: [b].
    images: inputs of the network.
    examples: [b], their positions in the training set; None where they are streamed.
    key: of the step and the term.
  """
  student: tuple[Array, ...]
  teacher: tuple[Array, ...]
  labels: Array
  images: Array
  examples: Array | None
  key: Array


class Learner(NamedTuple):
  """Pure functions of what it owns.

  Attributes:
    init: (key, shapes of the student's features, of the teacher's) -> Own; batch sizes in the shapes say nothing.
    apply: (own, seen) -> (seen as the loss gets it, more keywords for the loss, own.state after the step).
  """
  init: Callable[[Array, Shapes, Shapes], Own]
  apply: Callable[[Own, Seen], tuple[Seen, dict[str, Any], Any]]


def none() -> Learner:
  """The features as they are."""
  return Learner(lambda key, student, teacher: Own({}, {}), lambda own, seen: (seen, {}, own.state))


def linear() -> Learner:
  """An affine map of the student's channels to the teacher's (a 1x1 convolution), for each tap.

  Source: the regressor of FitNets, Romero et al. 2015, arXiv:1412.6550, section 2.2.
  Deviations from the paper: 1x1 for their k x k convolution without padding, so that maps must be of one size.
  """

  def init(key: Array, student: Shapes, teacher: Shapes) -> Own:
    _same_levels(student, teacher)
    return Own([_dense(rngs.fold(key, i), one[-1], other[-1])
                for i, (one, other) in enumerate(zip(student, teacher, strict=True))], {})

  def apply(own: Own, seen: Seen) -> tuple[Seen, dict[str, Any], Any]:
    mapped = tuple(_affine(each, one) for each, one in zip(own.trainable, seen.student, strict=True))
    return seen._replace(student=mapped), {}, own.state

  return Learner(init, apply)


def variances(*, initial: float = 5.0) -> Learner:
  """`linear`, and a trained variance for each of the teacher's channels, for `losses.variational`.

  Args:
    initial: the variance before training, above 0.
  Returns:
    A learner for one tap on each side; it adds the keyword `variance`.
  Source: Ahn et al. 2019, arXiv:1904.05835, section 2.2; the initial value is RepDistiller's.
  """
  mapping = linear()

  def init(key: Array, student: Shapes, teacher: Shapes) -> Own:
    _one('variances', student, teacher)
    start = math.log(math.expm1(initial))
    projected = mapping.init(key, student, teacher).trainable
    return Own({'linear': projected, 'variance': jnp.full(teacher[0][-1], start, jnp.float32)}, {})

  def apply(own: Own, seen: Seen) -> tuple[Seen, dict[str, Any], Any]:
    projected, _, _ = mapping.apply(Own(own.trainable['linear'], {}), seen)
    return projected, {'variance': own.trainable['variance']}, own.state

  return Learner(init, apply)


def classifier() -> Learner:
  """A classifier on the student's features: their mean over positions, and an affine map to the teacher's channels.

  With the student's own output as teacher it is self-distillation through depth.

  Source: Zhang et al. 2019, arXiv:1905.08094, section 3.
  Deviations from the paper: no bottleneck convolutions before the classifiers.
  """
  mapping = linear()

  def apply(own: Own, seen: Seen) -> tuple[Seen, dict[str, Any], Any]:
    pooled = tuple(each.reshape(each.shape[0], -1, each.shape[-1]).mean(1) for each in seen.student)
    return mapping.apply(own, seen._replace(student=pooled))

  return Learner(mapping.init, apply)


def fusion(*, channels: int = 64) -> Learner:
  """ReviewKD's residual of attention-based fusions, from the deepest level to the first.

  Each level is mapped to `channels`, fused with the deeper levels' fusion (scaled up to its size) by two attention
  maps, and mapped to the teacher's channels.

  Args:
    channels: of the fused features.
  Returns:
    A learner of the same number of levels on both sides, maps [b h w c] of equal size at each level.
  Source: Chen et al. 2021, arXiv:2104.09044, section 3.2.
  Deviations from the authors' code: no BatchNorm, and a 1x1 instead of a 3x3 convolution to the teacher's channels.
  """

  def init(key: Array, student: Shapes, teacher: Shapes) -> Own:
    _same_levels(student, teacher)
    return Own([{
      'in': _dense(rngs.fold(key, f'in{i}'), one[-1], channels),
      'out': _dense(rngs.fold(key, f'out{i}'), channels, other[-1]),
      # Nothing is deeper than the last level.
      **({'attention': _dense(rngs.fold(key, f'attention{i}'), 2 * channels, 2)} if i + 1 < len(student) else {}),
    } for i, (one, other) in enumerate(zip(student, teacher, strict=True))], {})

  def apply(own: Own, seen: Seen) -> tuple[Seen, dict[str, Any], Any]:
    levels: list[Array] = []
    deeper: Array | None = None
    for trained, features in reversed(list(zip(own.trainable, seen.student, strict=True))):
      fused = _affine(trained['in'], features)
      if deeper is not None:
        raised = jax.image.resize(deeper, fused.shape, 'nearest')
        maps = jax.nn.sigmoid(_affine(trained['attention'], jnp.concatenate([fused, raised], -1)))
        fused = fused * maps[..., :1] + raised * maps[..., 1:]
      deeper = fused
      levels.insert(0, _affine(trained['out'], fused))
    return seen._replace(student=tuple(levels)), {}, own.state

  return Learner(init, apply)


def memory(*, size: int, dim: int = 128, negatives: int = 1024, momentum: float = 0.5) -> Learner:
  """CRD's embeddings of both networks' features and its memory of them, for `losses.contrastive`.

  Negatives are drawn from the memory of all training examples; an example's entry moves to momentum * old + (1 -
  momentum) * new, at unit length. The example itself may be among them, once in `size`.

  Args:
    size: examples of the training set.
    dim: of the embeddings.
    negatives: k.
    momentum: weight of the old entry, 0..1.
  Returns:
    A learner for one tap on each side; it adds `student_negatives`, `teacher_negatives` and `size`.
  Source: Tian et al. 2020, arXiv:1910.10699, section 3.4 and the appendix.
  """

  def unit(vectors: Array) -> Array:
    return vectors * lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(-1, keepdims=True), 1e-24))

  def width(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:])

  def init(key: Array, student: Shapes, teacher: Shapes) -> Own:
    _one('memory', student, teacher)
    sides = {'student': width(student[0]), 'teacher': width(teacher[0])}
    return Own(
      {side: _dense(rngs.fold(key, side), count, dim) for side, count in sides.items()},
      {side: unit(jax.random.normal(rngs.fold(key, f'{side} memory'), (size, dim))) for side in sides})

  def apply(own: Own, seen: Seen) -> tuple[Seen, dict[str, Any], Any]:
    index = seen.examples
    if index is None:
      raise ValueError("memory: it needs to know which examples a batch holds; set data.path='memory'.")
    embedded = {side: unit(_affine(own.trainable[side], features.reshape(features.shape[0], -1)))
                for side, features in (('student', seen.student[0]), ('teacher', seen.teacher[0]))}
    drawn = jax.random.randint(seen.key, (index.shape[0], negatives), 0, size)
    keywords = {f'{side}_negatives': bank[drawn] for side, bank in own.state.items()} | {'size': float(size)}
    state = {side: bank.at[index].set(unit(momentum * bank[index] + (1 - momentum) * lax.stop_gradient(embedded[side])))
             for side, bank in own.state.items()}
    return seen._replace(student=(embedded['student'],), teacher=(embedded['teacher'],)), keywords, state

  return Learner(init, apply)


def peer(
  *, initialize: Callable[[Array], Variables], forward: Callable[[Variables, Array, Array], tuple[Array, Variables]]
) -> Learner:
  """A second student, trained in the same step and state; its logits stand in the teacher's place, with a gradient.

  Args:
    initialize: key -> its variables.
    forward: (variables, images, key) -> (logits, its collections other than the params, moved).
  Returns:
    A learner for `losses.mutual`.
  Source: Zhang et al. 2018, arXiv:1706.00384.
  Deviations from the paper: both students move in one step, from the same logits.
  """

  def init(key: Array, student: Shapes, teacher: Shapes) -> Own:
    variables = dict(initialize(key))
    return Own(variables.pop('params'), variables)

  def apply(own: Own, seen: Seen) -> tuple[Seen, dict[str, Any], Any]:
    logits, collections = forward({**own.state, 'params': own.trainable}, seen.images, seen.key)
    return seen._replace(teacher=(logits,)), {}, {**own.state, **collections}

  return Learner(init, apply)


def _dense(key: Array, inputs: int, outputs: int) -> dict[str, Array]:
  kernel = jax.nn.initializers.he_normal()(key, (inputs, outputs), jnp.float32)
  return {'kernel': kernel, 'bias': jnp.zeros(outputs, jnp.float32)}


def _affine(trained: dict[str, Array], features: Array) -> Array:
  return features.astype(jnp.float32) @ trained['kernel'] + trained['bias']


def _same_levels(student: Shapes, teacher: Shapes) -> None:
  if len(student) != len(teacher):
    raise ValueError(f'the student is tapped at {len(student)} modules {list(student)}, the teacher at {len(teacher)} '
                     f'{list(teacher)}; a projector needs as many of each.')


def _one(name: str, student: Shapes, teacher: Shapes) -> None:
  if len(student) != 1 or len(teacher) != 1:
    raise ValueError(f'{name}: it takes one tap of each network, not {len(student)} and {len(teacher)}.')
