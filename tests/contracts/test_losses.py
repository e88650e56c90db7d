"""What holds for every distillation loss of `__all__`."""
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.distill import losses

# Values of the hyperparameters that have no default.
HYPER = {'temperature': {'temperature': 4.0}}
STUDENT, TEACHER = (3 * jax.random.normal(jax.random.key(i), (6, 5)) for i in range(2))


@pytest.fixture(params=losses.__all__)
def loss(request):
  function = getattr(losses, request.param)
  hyper = HYPER.get(request.param, {})
  open_ones = {each.name for each in inspect.signature(function).parameters.values()
               if each.kind is each.KEYWORD_ONLY and each.default is each.empty}
  assert open_ones == set(hyper), f'give {request.param} values for {open_ones} in HYPER'
  return lambda student, teacher: function(student, teacher, **hyper)


def test_a_loss_is_one_finite_float32_an_example(loss):
  for dtype in (jnp.float32, jnp.bfloat16):
    value = loss(STUDENT.astype(dtype), TEACHER.astype(dtype))
    assert value.shape == (6,) and value.dtype == jnp.float32 and np.isfinite(value).all()


def test_examples_do_not_know_of_each_other(loss):
  np.testing.assert_allclose(loss(STUDENT, TEACHER)[2:3], loss(STUDENT[2:3], TEACHER[2:3]), rtol=1e-5)


def test_the_order_of_the_classes_does_not_matter(loss):
  order = jnp.array([3, 0, 4, 1, 2])
  np.testing.assert_allclose(loss(STUDENT[:, order], TEACHER[:, order]), loss(STUDENT, TEACHER), rtol=1e-4)


def test_a_student_that_agrees_is_at_the_minimum(loss):
  agreed = loss(TEACHER, TEACHER)
  np.testing.assert_allclose(jax.grad(lambda student: loss(student, TEACHER).sum())(TEACHER), 0, atol=1e-5)
  assert (loss(STUDENT, TEACHER) >= agreed).all()


def test_the_student_gets_a_gradient_and_the_teacher_none(loss):
  student, teacher = jax.grad(lambda *logits: loss(*logits).sum(), argnums=(0, 1))(STUDENT, TEACHER)
  assert np.isfinite(student).all() and student.any()
  np.testing.assert_array_equal(teacher, np.zeros((6, 5)))
