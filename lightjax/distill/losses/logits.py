"""Losses of logits: (student [b c], teacher [b c], hyperparameters) -> loss [b]."""
from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

__all__ = ['decoupled', 'dist', 'mutual', 'soft_and_hard', 'standardized', 'temperature', 'virtual_teacher']

Scalar = Float[Array, ''] | float


def temperature(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, temperature: Scalar
) -> Float[Array, ' b']:
  """Soft targets: T^2 KL(softmax(teacher / T) || softmax(student / T)), for each example.

  T^2 keeps the gradient's size as T changes, so that one loss weight serves all temperatures.

  Args:
    student: logits.
    teacher: logits of a network in evaluation mode on the same augmented view.
    temperature: T > 0; may be traced.
  Returns:
    Loss of each example, zero where both agree.
  Raises:
    ValueError: the two disagree on the number of classes.
  Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2 (the cross-entropy there, less the teacher's entropy,
    which has no gradient).
  """
  student, teacher = _both(student, teacher)
  return temperature**2 * _divergence(teacher / temperature, student / temperature)


def decoupled(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, labels: Int[Array, ' b'], temperature: Scalar,
  target: Scalar = 1.0, others: Scalar = 8.0,
) -> Float[Array, ' b']:
  """DKD: T^2 (target KL(b_teacher || b_student) + others KL(q_teacher || q_student)).

  b is (probability of the label, of all others), q the softmax over the others alone. Hinton's loss is `target` = 1 and
  `others` = the teacher's probability of all others.

  Args:
    student: logits.
    teacher: logits.
    labels: true classes.
    temperature: T > 0.
    target: weight of the label's part (alpha of the paper).
    others: weight of the other classes' part (beta).
  Returns:
    Loss of each example, zero where both agree.
  Raises:
    ValueError: the two disagree on the number of classes.
  Source: Zhao et al. 2022, arXiv:2203.08679, section 3.
  """
  student, teacher = (each / temperature for each in _both(student, teacher))
  mine = jax.nn.one_hot(labels, student.shape[-1], dtype=bool)

  def binary(logits: Array) -> Array:
    label = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    rest = jax.nn.logsumexp(jnp.where(mine, -jnp.inf, logits), axis=-1, keepdims=True)
    return jnp.concatenate([label, rest], axis=-1)

  # A finite number far below all others: the label's share of their softmax is exactly zero, and so is its gradient.
  rest = _divergence(*(jnp.where(mine, -1e9, each) for each in (teacher, student)))
  return temperature**2 * (target * _divergence(binary(teacher), binary(student)) + others * rest)


def dist(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, temperature: Scalar = 1.0, inter: Scalar = 1.0,
  intra: Scalar = 1.0,
) -> Float[Array, ' b']:
  """DIST: T^2 (inter (1 - r of an example's probabilities) + intra (1 - mean r of a class's, over the batch)).

  r is Pearson's correlation between student and teacher.

  Args:
    student: logits.
    teacher: logits.
    temperature: T > 0 of both softmaxes.
    inter: weight of the relation between classes, within an example.
    intra: weight of the relation between examples, within a class; the same number for each example.
  Returns:
    Loss of each example, zero where both agree.
  Raises:
    ValueError: the two disagree on the number of classes.
  Source: Huang et al. 2022, arXiv:2205.10536, section 4; T^2 as in the authors' code.
  """
  student, teacher = (jax.nn.softmax(each / temperature) for each in _both(student, teacher))
  within = 1 - _pearson(student, teacher, axis=1)
  across = 1 - _pearson(student, teacher, axis=0)
  return temperature**2 * (inter * within + intra * across.mean())


def mutual(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, labels: Int[Array, ' b'], temperature: Scalar = 1.0
) -> Float[Array, ' b']:
  """Deep mutual learning: T^2 KL(peer || student) + T^2 KL(student || peer) + cross-entropy of the peer.

  In each divergence the first gets no gradient; the student's own cross-entropy is the run's loss.

  Args:
    student: logits.
    teacher: logits of the peer, which is trained too; see `learners.peer`.
    labels: true classes.
    temperature: T > 0; 1 in the paper.
  Returns:
    Loss of each example.
  Raises:
    ValueError: the two disagree on the number of classes.
  Source: Zhang et al. 2018, arXiv:1706.00384, eq. 6 and 7.
  """
  peer = teacher.astype(jnp.float32)
  hard = -jnp.take_along_axis(jax.nn.log_softmax(peer), labels[:, None], axis=-1)[:, 0]
  return hard + soft_and_hard(student, peer, labels=labels, temperature=temperature, soft=1.0) + soft_and_hard(
    peer, student, labels=labels, temperature=temperature, soft=1.0)


def soft_and_hard(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, labels: Int[Array, ' b'], temperature: Scalar,
  soft: Scalar
) -> Float[Array, ' b']:
  """Both targets: (1 - soft) cross-entropy with the labels + soft T^2 KL(teacher || student); for classifiers within.

  Args:
    student: logits.
    teacher: logits.
    labels: true classes.
    temperature: T > 0 of the soft part.
    soft: share of the soft part, 0..1.
  Returns:
    Loss of each example.
  Raises:
    ValueError: the two disagree on the number of classes.
  Source: Zhang et al. 2019, arXiv:1905.08094, eq. 7, without its third part.
  """
  divergence = _divergence(*(each / temperature for each in reversed(_both(student, teacher))))
  hard = -jnp.take_along_axis(jax.nn.log_softmax(student.astype(jnp.float32)), labels[:, None], axis=-1)[:, 0]
  return (1 - soft) * hard + soft * temperature**2 * divergence


def standardized(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, temperature: Scalar = 2.0
) -> Float[Array, ' b']:
  """Hinton's loss of logits standardized for each example: T^2 KL of softmax((z - mean z) / (std z T)).

  Args:
    student: logits.
    teacher: logits.
    temperature: T > 0, the base temperature.
  Returns:
    Loss of each example, zero where both agree, and where one is the other times a positive number plus another.
  Raises:
    ValueError: the two disagree on the number of classes.
  Source: Sun et al. 2024, arXiv:2403.01427, algorithm 1.
  """

  def standardize(logits: Array) -> Array:
    centred = logits - logits.mean(-1, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-12)

  student, teacher = (standardize(each) / temperature for each in _both(student, teacher))
  return temperature**2 * _divergence(teacher, student)


def virtual_teacher(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, labels: Int[Array, ' b'], temperature: Scalar = 20.0,
  confidence: Scalar = 0.99,
) -> Float[Array, ' b']:
  """Tf-KD by regularization: KL(softmax(p / T) || softmax(student / T)), p a teacher made by hand.

  p has `confidence` at the label and the rest spread evenly. There is no T^2 in it, as in the paper.

  Args:
    student: logits.
    teacher: logits; only their shape is looked at.
    labels: true classes.
    temperature: T > 0.
    confidence: of the teacher made by hand, 0..1.
  Returns:
    Loss of each example, zero where student / T equals p / T up to a constant.
  Raises:
    ValueError: the two disagree on the number of classes.
  Source: Yuan et al. 2020, arXiv:1909.11723, section 4.2.
  """
  student, _ = _both(student, teacher)
  classes = student.shape[-1]
  right = jax.nn.one_hot(labels, classes, dtype=bool)
  made = jnp.where(right, confidence, (1 - confidence) / (classes - 1))
  return _divergence(made / temperature, student / temperature)


def _both(student: Array, teacher: Array) -> tuple[Array, Array]:
  """Both in float32, the teacher without gradient."""
  if student.shape != teacher.shape:
    raise ValueError(f'student logits {student.shape} and teacher logits {teacher.shape} differ in shape.')
  return student.astype(jnp.float32), lax.stop_gradient(teacher).astype(jnp.float32)


def _divergence(teacher: Array, student: Array) -> Array:
  """KL(softmax(teacher) || softmax(student)) over the last axis."""
  soft_teacher, soft_student = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
  return jnp.sum(jnp.exp(soft_teacher) * (soft_teacher - soft_student), axis=-1)


def _pearson(one: Array, other: Array, *, axis: int) -> Array:
  """Pearson's correlation along an axis; 0 where one of the two is constant."""
  one, other = (each - each.mean(axis, keepdims=True) for each in (one, other))
  squares = jnp.square(one).sum(axis) * jnp.square(other).sum(axis)
  return (one * other).sum(axis) * lax.rsqrt(jnp.maximum(squares, 1e-24))
