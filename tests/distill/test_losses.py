import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightjax.distill import losses

LOGITS = hnp.arrays(np.float32, (4, 5), elements=st.floats(-20, 20, width=32)).map(jnp.asarray)
TEMPERATURES = st.floats(0.5, 20)
loss = jax.jit(losses.temperature)


def restated(student, teacher, temperature):
  """T^2 sum_k p_k (log p_k - log q_k) in float64, softmax by its definition."""
  p, q = (np.exp(np.asarray(each, np.float64) / temperature) for each in (teacher, student))
  p, q = (each / each.sum(-1, keepdims=True) for each in (p, q))
  return temperature**2 * (p * np.log(p / q)).sum(-1)


@given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES)
def test_trap_20_the_loss_is_temperature_squared_times_the_divergence_of_each_example(student, teacher, temperature):
  seen = loss(student, teacher, temperature=temperature)
  assert seen.shape == (4,)
  np.testing.assert_allclose(seen, restated(student, teacher, temperature), rtol=1e-4, atol=1e-4 * temperature**2)


@given(logits=LOGITS, temperature=TEMPERATURES)
def test_trap_21_the_loss_and_its_gradient_are_zero_where_student_and_teacher_agree(logits, temperature):
  np.testing.assert_array_equal(loss(logits, logits, temperature=temperature), np.zeros(4))
  gradient = student_gradient(logits, logits, temperature)
  np.testing.assert_allclose(gradient, 0, atol=1e-6 * temperature)


@jax.jit
def student_gradient(student, teacher, temperature):
  return jax.grad(lambda student: losses.temperature(student, teacher, temperature=temperature).sum())(student)


@given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES)
def test_trap_21_the_gradient_is_the_textbooks_and_the_scale_is_not_dropped(student, teacher, temperature):
  """T (q - p): the T^2 of the loss times the 1 / T of the softened softmax."""
  p, q = (jax.nn.softmax(each / temperature) for each in (teacher, student))
  np.testing.assert_allclose(
    student_gradient(student, teacher, temperature), temperature * (q - p), rtol=1e-4, atol=1e-5 * temperature)


@given(student=LOGITS, teacher=LOGITS, temperature=TEMPERATURES)
def test_trap_21_scaling_logits_and_temperature_scales_the_loss_by_the_square(student, teacher, temperature):
  scaled = loss(3 * student, 3 * teacher, temperature=3 * temperature)
  expected = 9 * loss(student, teacher, temperature=temperature)
  np.testing.assert_allclose(scaled, expected, rtol=1e-3, atol=1e-4 * temperature**2)


def test_trap_20_at_high_temperature_the_gradient_matches_centred_logits():
  """Hinton et al., eq. 4: (z - v) / (N T^2) of the cross-entropy for zero-mean logits; here times T^2."""
  student, teacher = (jax.random.normal(jax.random.key(i), (4, 5)) for i in range(2))
  student, teacher = (each - each.mean(-1, keepdims=True) for each in (student, teacher))
  np.testing.assert_allclose(student_gradient(student, teacher, 300.0), (student - teacher) / 5, atol=5e-3)


@given(student=LOGITS, teacher=LOGITS)
def test_trap_20_the_mean_is_over_the_batch_and_does_not_know_its_size(student, teacher):
  once = loss(student, teacher, temperature=4.0)
  twice = loss(jnp.tile(student, (2, 1)), jnp.tile(teacher, (2, 1)), temperature=4.0)
  np.testing.assert_allclose(twice.mean(), once.mean(), rtol=1e-6)
  np.testing.assert_array_equal(twice[:4], once)


def test_trap_20_the_teacher_gets_no_gradient():
  student, teacher = jnp.arange(6.0).reshape(2, 3), jnp.ones((2, 3))
  gradient = jax.grad(lambda teacher: losses.temperature(student, teacher, temperature=2).sum())(teacher)
  np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


def test_trap_20_half_precision_logits_are_compared_in_float32():
  student, teacher = (jax.random.normal(jax.random.key(i), (4, 5)).astype(jnp.bfloat16) for i in range(2))
  seen = loss(student, teacher, temperature=4.0)
  assert seen.dtype == jnp.float32
  np.testing.assert_allclose(
    seen, restated(student.astype(jnp.float32), teacher.astype(jnp.float32), 4.0), rtol=1e-4, atol=1e-5)


def test_an_extreme_teacher_gives_finite_values_and_gradients():
  student, teacher = jnp.array([[1e4, -1e4, 0.0]]), jnp.array([[-1e4, 1e4, 0.0]])
  assert np.isfinite(loss(student, teacher, temperature=1.0)).all()
  assert np.isfinite(student_gradient(student, teacher, 1.0)).all()


def test_another_number_of_classes_is_refused():
  unchecked = inspect.unwrap(losses.temperature)  # the checked annotations would refuse it first
  with pytest.raises(ValueError, match=r'student logits \(2, 3\) and teacher logits \(2, 4\) differ in shape'):
    unchecked(jnp.ones((2, 3)), jnp.ones((2, 4)), temperature=1.0)
