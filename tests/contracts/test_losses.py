"""What holds for every distillation loss of `__all__`."""
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.distill import losses

LABELS = jnp.array([0, 1, 2, 3, 4, 0])


def normal(seed, *shape):
  return 3 * jax.random.normal(jax.random.key(seed), (6, *shape))


def pair(seed):
  return (normal(seed, 4, 4, 5), normal(seed + 10, 2, 2, 3))


# What a loss compares, and values of the keywords that have no default.
LOGITS, MAPS, PAIRS = [(normal(0, 5), normal(1, 5)), (normal(2, 4, 4, 5), normal(3, 4, 4, 5)), (pair(4), pair(5))]
UNIT = [each / jnp.linalg.norm(each, axis=-1, keepdims=True) for each in LOGITS]
BANKS = [each[None].repeat(6, 0) for each in UNIT]
INPUTS = {'attention': MAPS, 'nst': MAPS, 'hints': MAPS, 'variational': MAPS, 'fsp': PAIRS, 'review': PAIRS,
          'contrastive': UNIT}
HYPER = {
  'temperature': {'temperature': 4.0}, 'decoupled': {'temperature': 4.0, 'labels': LABELS},
  'virtual_teacher': {'labels': LABELS}, 'mutual': {'labels': LABELS},
  'soft_and_hard': {'labels': LABELS, 'temperature': 4.0, 'soft': 0.5},
  'variational': {'variance': jnp.linspace(-1, 3, 5)},
  'contrastive': {'student_negatives': BANKS[0], 'teacher_negatives': BANKS[1], 'size': 60.0, 'temperature': 0.5},
}
COUPLED = {'dist', 'similarity', 'distance', 'angle', 'pkt', 'correlation'}  # these compare the batch's examples
MINIMUM = {'variational'}  # where both agree; not zero
ELSEWHERE = {'virtual_teacher', 'contrastive', 'mutual', 'soft_and_hard'}  # their minimum is not where both agree


@pytest.fixture(params=losses.__all__)
def case(request):
  """(name, loss, student, teacher)."""
  name = request.param
  function, hyper = getattr(losses, name), HYPER.get(name, {})
  open_ones = {each.name for each in inspect.signature(function).parameters.values()
               if each.kind is each.KEYWORD_ONLY and each.default is each.empty}
  assert open_ones <= set(hyper), f'give {name} values for {open_ones} in HYPER'
  student, teacher = INPUTS.get(name, LOGITS)

  def loss(student, teacher, rows=slice(None)):
    rowed = {key: value[rows] if jnp.ndim(value) and key != 'variance' else value for key, value in hyper.items()}
    return function(student, teacher, **rowed)

  return name, loss, student, teacher


def rows(tree, chosen):
  return jax.tree.map(lambda each: each[chosen], tree)


def test_a_loss_is_one_finite_float32_an_example(case):
  _, loss, student, teacher = case
  for given in ((student, teacher), jax.tree.map(lambda each: each.astype(jnp.bfloat16), (student, teacher))):
    value = loss(*given)
    assert value.shape == (6,) and value.dtype == jnp.float32 and np.isfinite(value).all()


def test_examples_do_not_know_of_each_other_unless_the_loss_compares_them(case):
  name, loss, student, teacher = case
  chosen = slice(2, 3)
  alone = loss(rows(student, chosen), rows(teacher, chosen), chosen)
  assert np.allclose(loss(student, teacher)[2:3], alone, rtol=1e-5) == (name not in COUPLED)


def test_the_order_of_the_examples_does_not_matter(case):
  _, loss, student, teacher = case
  order = jnp.array([3, 0, 5, 4, 1, 2])
  shuffled = loss(rows(student, order), rows(teacher, order), order)
  np.testing.assert_allclose(shuffled, loss(student, teacher)[order], rtol=1e-3, atol=1e-6)


def test_a_student_that_agrees_is_at_the_minimum(case):
  name, loss, student, teacher = case
  if name in ELSEWHERE:
    pytest.skip('its minimum is elsewhere')
  agreed = loss(teacher, teacher)
  gradient = jax.grad(lambda student: loss(student, teacher).sum())(teacher)
  for leaf in jax.tree.leaves(gradient):
    np.testing.assert_allclose(leaf, 0, atol=1e-5)
  assert loss(student, teacher).mean() > agreed.mean()
  if name not in MINIMUM:
    np.testing.assert_allclose(agreed, 0, atol=1e-5)


def test_the_student_gets_a_gradient_and_the_teacher_none(case):
  name, loss, student, teacher = case
  given = jax.grad(lambda *both: loss(*both).sum(), argnums=(0, 1))(student, teacher)
  assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(given[0]))
  if name not in ('contrastive', 'mutual'):  # there the other side is trained too
    assert not any(leaf.any() for leaf in jax.tree.leaves(given[1]))
