"""Losses of relations between the examples of a batch; the networks' features may differ in size.

What a pair or a triple adds is counted at its first example, so that the mean over the batch is the paper's loss.
"""
from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ['angle', 'contrastive', 'correlation', 'distance', 'pkt', 'similarity']

Features = Float[Array, 'b *s']
Others = Float[Array, 'b *t']


def similarity(student: Features, teacher: Others) -> Float[Array, ' b']:
  """Similarity-preserving: squared differences of G = F F^T, rows of unit length; the mean is |dG|^2 / b^2.

  Args:
    student: features.
    teacher: features.
  Returns:
    Loss of each example, zero where both agree.
  Source: Tung and Mori 2019, arXiv:1907.09682, eq. 1 to 4.
  """
  student, teacher = (_unit(each @ each.T) for each in _both(student, teacher))
  return jnp.square(student - teacher).mean(-1)


def distance(student: Features, teacher: Others) -> Float[Array, ' b']:
  """RKD by distances: Huber's loss of |f_i - f_j| / mu, mu the mean distance of the batch's different pairs.

  Args:
    student: features.
    teacher: features.
  Returns:
    Loss of each example, the mean over all examples of the batch; zero where both agree.
  Source: Park et al. 2019, arXiv:1904.05068, eq. 5 to 7; the mean over pairs as in the authors' code.
  """

  def distances(features: Array) -> Array:
    squared = jnp.square(features[:, None] - features[None]).sum(-1)
    apart = squared > 0  # the root has no gradient at 0
    found = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)
    return found * (jnp.maximum(apart.sum(), 1) / jnp.maximum(found.sum(), 1e-12))

  student, teacher = _both(student, teacher)
  return _huber(distances(student) - distances(teacher)).mean(-1)


def angle(student: Features, teacher: Others) -> Float[Array, ' b']:
  """RKD by angles: Huber's loss of the cosine of the angle at f_j between f_i and f_k.

  Args:
    student: features.
    teacher: features.
  Returns:
    Loss of each example j, the mean over all pairs of the batch; zero where both agree.
  Source: Park et al. 2019, arXiv:1904.05068, eq. 8 and 9; the mean over triples as in the authors' code.
  """

  def cosines(features: Array) -> Array:
    directions = _unit(features[None] - features[:, None])
    return jnp.einsum('jid,jkd->jik', directions, directions)

  student, teacher = _both(student, teacher)
  return _huber(cosines(student) - cosines(teacher)).mean((1, 2))


def pkt(student: Features, teacher: Others) -> Float[Array, ' b']:
  """Probabilistic knowledge transfer: KL of p(j | i), proportional to (cos(f_i, f_j) + 1) / 2.

  Args:
    student: features.
    teacher: features.
  Returns:
    Loss of each example, the sum over the batch; zero where both agree.
  Source: Passalis and Tefas 2018, arXiv:1803.10837, section 3.
  Deviations from the paper: j = i is in the sums, as in the authors' code.
  """

  def conditional(features: Array) -> Array:
    features = _unit(features)
    kernel = (features @ features.T + 1) / 2
    return jnp.maximum(kernel / kernel.sum(-1, keepdims=True), 1e-7)

  student, teacher = (conditional(each) for each in _both(student, teacher))
  return (teacher * (jnp.log(teacher) - jnp.log(student))).sum(-1)


def correlation(student: Features, teacher: Others, *, gamma: float = 0.4, order: int = 2) -> Float[Array, ' b']:
  """Correlation congruence: squared differences of K = sum_p exp(-2 g) (2 g)^p / p! (f_i f_j)^p; |dK|^2 / b^2.

  K is the Gaussian kernel exp(-g |f_i - f_j|^2) of features at unit length, its series cut after `order`.

  Args:
    student: features.
    teacher: features.
    gamma: g > 0.
    order: the last power, 1 or more.
  Returns:
    Loss of each example, the mean over the batch; zero where both agree.
  Source: Peng et al. 2019, arXiv:1904.01802, section 3.3.
  """

  def kernel(features: Array) -> Array:
    features = _unit(features)
    product, found = features @ features.T, jnp.zeros((), jnp.float32)
    for power in range(order + 1):
      found += math.exp(-2 * gamma) * (2 * gamma) ** power / math.factorial(power) * product**power
    return found

  student, teacher = (kernel(each) for each in _both(student, teacher))
  return jnp.square(student - teacher).mean(-1)


def contrastive(
  student: Float[Array, 'b d'], teacher: Float[Array, 'b d'], *, student_negatives: Float[Array, 'b k d'],
  teacher_negatives: Float[Array, 'b k d'], size: float, temperature: float = 0.07,
) -> Float[Array, ' b']:
  """CRD: -log h(pair) - sum log(1 - h(negative)), h = e^(x y / T) / (e^(x y / T) + k / size), both ways.

  Args:
    student: embeddings of unit length.
    teacher: embeddings of unit length; they get a gradient where the embedding is trained.
    student_negatives: the student's embeddings of k other examples, for the teacher's.
    teacher_negatives: the teacher's, for the student's.
    size: examples of the training set, M of the paper.
    temperature: T.
  Returns:
    Loss of each example; its minimum is not zero.
  Source: Tian et al. 2020, arXiv:1910.10699, eq. 18 and 19.
  Deviations from the paper's code: h is not divided by an estimated constant Z.
  """
  student, teacher = student.astype(jnp.float32), teacher.astype(jnp.float32)
  chance = math.log(student_negatives.shape[1] / size)

  def critic(anchor: Array, positive: Array, negatives: Array) -> Array:
    right = (anchor * positive).sum(-1) / temperature
    wrong = jnp.einsum('bd,bkd->bk', anchor, lax.stop_gradient(negatives)) / temperature
    log_right = right - jnp.logaddexp(right, chance)
    return -log_right - (chance - jnp.logaddexp(wrong, chance)).sum(-1)

  return critic(student, teacher, teacher_negatives) + critic(teacher, student, student_negatives)


def _both(student: Array, teacher: Array) -> tuple[Array, Array]:
  """Both in float32 [b d], the teacher without gradient."""
  student, teacher = student.astype(jnp.float32), lax.stop_gradient(teacher).astype(jnp.float32)
  return student.reshape(student.shape[0], -1), teacher.reshape(teacher.shape[0], -1)


def _unit(vectors: Array) -> Array:
  """Vectors along the last axis at length 1; zero ones stay zero, with a gradient of zero."""
  squares = jnp.square(vectors).sum(-1, keepdims=True)
  return vectors * lax.rsqrt(jnp.maximum(squares, 1e-24))


def _huber(difference: Array) -> Array:
  """x^2 / 2 up to |x| = 1, |x| - 1 / 2 beyond."""
  absolute = jnp.abs(difference)
  return jnp.where(absolute <= 1, 0.5 * jnp.square(difference), absolute - 0.5)
