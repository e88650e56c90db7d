"""Distillation losses, one signature: (student logits [b c], teacher logits [b c], hyperparameters) -> loss [b].

All of them compute in float32, are zero (or at their stated minimum) where student and teacher agree, and are averaged
over the batch by the caller, never over classes. The teacher gets no gradient.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ['temperature']


def temperature(
  student: Float[Array, 'b c'], teacher: Float[Array, 'b c'], *, temperature: Float[Array, ''] | float
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
  if student.shape != teacher.shape:
    raise ValueError(f'student logits {student.shape} and teacher logits {teacher.shape} differ in shape.')
  soft_student = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
  soft_teacher = jax.nn.log_softmax(lax.stop_gradient(teacher).astype(jnp.float32) / temperature)
  return temperature**2 * jnp.sum(jnp.exp(soft_teacher) * (soft_teacher - soft_student), axis=-1)
