"""Losses of features: what modules of the two networks give for the same images, [b c] or [b h w c]."""
from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ['attention', 'fsp', 'hints', 'nst', 'review', 'variational']

# The teacher's are another shape to the annotations, so that an error of one's own prints both sides.
Features = Float[Array, 'b *s']
Others = Float[Array, 'b *t']
Map = Float[Array, 'b h w c']
OtherMap = Float[Array, 'b i j d']


def hints(student: Features, teacher: Others) -> Float[Array, ' b']:
  """FitNet's hints: the mean squared difference of the units.

  Args:
    student: features, projected to the teacher's shape.
    teacher: features.
  Returns:
    Loss of each example, zero where both agree.
  Raises:
    ValueError: the shapes differ.
  Source: Romero et al. 2015, arXiv:1412.6550, eq. 3.
  Deviations from the paper: the mean, where the paper has half the sum; a weight then serves features of any size.
  """
  student, teacher = _both('hints', student, teacher)
  return _per_example(jnp.square(student - teacher))


def attention(student: Map, teacher: OtherMap, *, power: int = 2) -> Float[Array, ' b']:
  """Attention transfer: the mean squared difference of the attention maps, each of unit length.

  The map is mean |features|^power over the channels, so that the networks may differ in width.

  Args:
    student: features.
    teacher: features of the same height and width.
    power: p of the map.
  Returns:
    Loss of each example (the mean over positions), zero where both agree.
  Raises:
    ValueError: height or width differ, or features without positions.
  Source: Zagoruyko and Komodakis 2017, arXiv:1612.03928, section 3.1.
  Deviations from the paper: the squared difference, averaged over positions, as in the authors' code; eq. 2 has the
    norm.
  """
  student, teacher = _maps('attention', student, teacher)

  def attend(features: Array) -> Array:
    return _unit((jnp.abs(features) ** power).mean(-1).reshape(features.shape[0], -1))

  return jnp.square(attend(student) - attend(teacher)).mean(-1)


def nst(student: Map, teacher: OtherMap) -> Float[Array, ' b']:
  """Neuron selectivity transfer: the squared maximum mean discrepancy between the channels, kernel (x y)^2.

  Each channel is a sample, its map of activations scaled to unit length; the networks may differ in width.

  Args:
    student: features.
    teacher: features of the same height and width.
  Returns:
    Loss of each example, zero where both agree.
  Raises:
    ValueError: height or width differ, or features without positions.
  Source: Huang and Wang 2017, arXiv:1707.01219, section 4.
  """
  student, teacher = (
    _unit(each.reshape(each.shape[0], -1, each.shape[-1]).swapaxes(1, 2)) for each in _maps('nst', student, teacher))

  def kernel(one: Array, other: Array) -> Array:
    return jnp.square(jnp.einsum('bcp,bdp->bcd', one, other)).mean((1, 2))

  return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def fsp(student: Sequence[Array], teacher: Sequence[Array]) -> Float[Array, ' b']:
  """Flow of the solution procedure: the mean squared difference of G = F1^T F2 / positions.

  Args:
    student: features of two layers; the larger is max-pooled to the size of the smaller.
    teacher: features of two layers with the same channels.
  Returns:
    Loss of each example (the mean over the entries of G), zero where both agree.
  Raises:
    ValueError: not two layers, sizes that do not divide, or other channels.
  Source: Yim et al. 2017, CVPR, 'A gift from knowledge distillation', eq. 1 and 2.
  """

  def flow(features: Sequence[Array]) -> Array:
    if len(features) != 2:
      raise ValueError(f'fsp: a flow is between two layers, and {len(features)} were given.')
    first, second = (each.astype(jnp.float32) for each in features)
    size = (min(first.shape[1], second.shape[1]), min(first.shape[2], second.shape[2]))
    first, second = (_pool(each, size, jnp.max, 'fsp') for each in (first, second))
    return jnp.einsum('bhwc,bhwd->bcd', first, second) / (size[0] * size[1])

  return _per_example(jnp.square(jnp.subtract(*_both('fsp', flow(student), flow(teacher)))))


def variational(student: Features, teacher: Others, *, variance: Float[Array, ' c']) -> Float[Array, ' b']:
  """Variational information: mean (log s^2 + (teacher - student)^2 / s^2) / 2, s^2 = softplus(variance) + 1e-5.

  Args:
    student: predicted means, of the teacher's shape.
    teacher: features.
    variance: trained, one for each channel of the teacher, before the softplus.
  Returns:
    Loss of each example (the mean over the units); its minimum is mean log(s^2) / 2, where both agree.
  Raises:
    ValueError: the shapes differ.
  Source: Ahn et al. 2019, arXiv:1904.05835, eq. 5 and 6; the mean over units as in RepDistiller.
  """
  student, teacher = _both('variational', student, teacher)
  squared = jax.nn.softplus(variance.astype(jnp.float32)) + 1e-5
  return 0.5 * _per_example(jnp.square(teacher - student) / squared + jnp.log(squared))


def review(student: Sequence[Array], teacher: Sequence[Array]) -> Float[Array, ' b']:
  """ReviewKD's hierarchical context loss: mean squared differences at full size and pooled to 4, 2 and 1.

  Each level's is the weighted mean with weights 1, 1/2, 1/4, 1/8 of those sizes that are smaller than the map; levels
  are added.

  Args:
    student: features of the levels, fused and projected to the teacher's shapes.
    teacher: features of the levels.
  Returns:
    Loss of each example, zero where both agree.
  Raises:
    ValueError: other levels, or shapes that differ.
  Source: Chen et al. 2021, arXiv:2104.09044, section 3.3; the weights are those of the authors' code.
  Deviations: a size that does not divide the map is left out.
  """
  if len(student) != len(teacher):
    raise ValueError(f'review: {len(student)} levels of the student and {len(teacher)} of the teacher.')
  total = jnp.zeros(student[0].shape[0])
  for level in zip(student, teacher, strict=True):
    one, other = _both('review', *level)
    loss, weight, weights = _per_example(jnp.square(one - other)), 1.0, 1.0
    height, width = one.shape[1:3]
    for size in (4, 2, 1):
      if size >= height or height % size or width % size:
        continue
      weight /= 2
      weights += weight
      pooled = (_pool(each, (size, size), jnp.mean, 'review') for each in (one, other))
      loss += weight * _per_example(jnp.square(jnp.subtract(*pooled)))
    total += loss / weights
  return total


def _both(name: str, student: Array, teacher: Array) -> tuple[Array, Array]:
  """Both in float32, the teacher without gradient."""
  if student.shape != teacher.shape:
    raise ValueError(
      f'{name}: student features {student.shape} and teacher features {teacher.shape} differ in shape; tap other '
      "modules, or project the student's (a learner of distill.learners).")
  return student.astype(jnp.float32), lax.stop_gradient(teacher).astype(jnp.float32)


def _maps(name: str, student: Array, teacher: Array) -> tuple[Array, Array]:
  """As `_both`, but the channels may differ."""
  if student.ndim != 4 or student.shape[:3] != teacher.shape[:3]:
    raise ValueError(
      f'{name}: student features {student.shape} and teacher features {teacher.shape} must be maps [b h w c] of one '
      'height and width; tap other modules.')
  return student.astype(jnp.float32), lax.stop_gradient(teacher).astype(jnp.float32)


def _per_example(values: Array) -> Array:
  return values.reshape(values.shape[0], -1).mean(-1)


def _unit(vectors: Array) -> Array:
  """Vectors along the last axis at length 1; zero ones stay zero, with a gradient of zero."""
  squares = jnp.square(vectors).sum(-1, keepdims=True)
  return vectors * lax.rsqrt(jnp.maximum(squares, 1e-24))


def _pool(features: Array, size: tuple[int, int], reduce: object, name: str) -> Array:
  batch, height, width, channels = features.shape
  if height % size[0] or width % size[1]:
    raise ValueError(f'{name}: a map of {height}x{width} does not divide into {size[0]}x{size[1]}.')
  split = features.reshape(batch, size[0], height // size[0], size[1], width // size[1], channels)
  return reduce(split, axis=(2, 4))  # type: ignore[operator]
