"""Taps on networks of one's own, with shared modules and inside scans; learners alone."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core.transform import Own
from lightjax.distill import learners, taps
from lightjax.distill.learners import Seen

X = jax.random.normal(jax.random.key(0), (2, 4))


class Net(nn.Module):
  """A shared module, an inner one, and many blocks."""

  @nn.compact
  def __call__(self, x):
    shared = nn.Dense(4, name='shared')
    x = shared(jnp.tanh(shared(x)))
    for index in (1, 2, 10):
      x = nn.Dense(4, name=f'block{index}')(x)
    return nn.Dense(3, name='head')(x)


class Scanned(nn.Module):
  """A module that linen's capture does not reach."""

  @nn.compact
  def __call__(self, x):
    def body(layer, x, _):
      return layer(x), None

    return nn.scan(body, variable_broadcast='params', split_rngs={'params': False}, length=3)(
      nn.Dense(4, name='inside'), x, None)[0]


def captured(model, names=None):
  variables = model.init(jax.random.key(1), X)
  wanted = (lambda module, method: method == '__call__') if names is None else taps.capture(names)
  output, mutated = model.apply(variables, X, capture_intermediates=wanted, mutable=['intermediates'])
  return variables['params'], output, mutated['intermediates']


def test_a_tap_is_what_the_module_gives_and_a_later_call_has_its_number():
  names = ('shared', 'shared#1', 'block2', '')
  params, output, intermediates = captured(Net(), names)
  first, second, block, logits = taps.read(intermediates, output, names)

  def dense(name, x):
    return x @ params[name]['kernel'] + params[name]['bias']
  np.testing.assert_allclose(first, dense('shared', X), rtol=1e-5)
  np.testing.assert_allclose(second, dense('shared', np.tanh(first)), rtol=1e-5)
  np.testing.assert_allclose(block, dense('block2', dense('block1', second)), rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(logits, output)
  assert set(taps.found(intermediates)) == {'shared', 'block2'}  # nothing else is kept


def test_a_rule_means_all_that_match_in_natural_order():
  _, _, intermediates = captured(Net())
  assert taps.select(r'block\d+', intermediates, field='tap') == ('block1', 'block2', 'block10')
  assert taps.select('shared.*', intermediates, field='tap') == ('shared', 'shared#1')
  assert taps.select('', intermediates, field='tap') == ('',)


def test_a_rule_that_matches_nothing_names_the_nearest():
  _, _, intermediates = captured(Net())
  with pytest.raises(ValueError, match=r"tap='blok1' matches no module.*nearest: 'block1"):
    taps.select('blok1', intermediates, field='tap')


def test_a_module_inside_a_scan_is_an_error_and_not_skipped():
  _, _, intermediates = captured(Scanned())
  with pytest.raises(ValueError, match="tap='inside' matches no module"):
    taps.select('inside', intermediates, field='tap')


def test_a_call_that_is_not_made_is_an_error():
  _, output, intermediates = captured(Net(), ('block1',))
  with pytest.raises(ValueError, match="'block1' was called 1 times"):
    taps.read(intermediates, output, ('block1#1',))


def seen(student, teacher, index=None):
  return Seen(student, teacher, jnp.zeros(2, jnp.int32), X, index, jax.random.key(3))


def test_a_projector_maps_each_level_to_the_teachers_channels():
  student, teacher = (jnp.ones((2, 4, 4, 3)), jnp.ones((2, 2, 2, 5))), (jnp.ones((2, 4, 4, 6)), jnp.ones((2, 2, 2, 7)))
  shapes = [[each.shape for each in side] for side in (student, teacher)]
  for learner in (learners.linear(), learners.fusion(channels=8)):
    given, keywords, _ = learner.apply(learner.init(jax.random.key(0), *shapes), seen(student, teacher))
    assert [each.shape for each in given.student] == shapes[1] and keywords == {}
  with pytest.raises(ValueError, match='as many of each'):
    learners.linear().init(jax.random.key(0), shapes[0], shapes[1][:1])


def test_variances_begin_where_they_are_told():
  own = learners.variances(initial=3.0).init(jax.random.key(0), [(1, 4)], [(1, 6)])
  np.testing.assert_allclose(jax.nn.softplus(own.trainable['variance']), np.full(6, 3.0), rtol=1e-5)


def test_the_memory_moves_the_examples_of_the_batch_only():
  learner = learners.memory(size=9, dim=5, negatives=4, momentum=0.25)
  own = learner.init(jax.random.key(0), [(1, 4)], [(1, 2, 2, 3)])
  index = jnp.array([7, 2])
  given, keywords, state = learner.apply(own, seen((X,), (jnp.ones((2, 2, 2, 3)),), index))
  old, new = own.state['student'], state['student']
  mixed = 0.25 * old[index] + 0.75 * given.student[0]
  np.testing.assert_allclose(new[index], mixed / np.linalg.norm(mixed, axis=1, keepdims=True), rtol=1e-5)
  rest = np.setdiff1d(np.arange(9), index)
  np.testing.assert_array_equal(new[rest], old[rest])
  assert keywords['student_negatives'].shape == (2, 4, 5) and keywords['size'] == 9.0
  with pytest.raises(ValueError, match=r'data\.path'):
    learner.apply(own, seen((X,), (jnp.ones((2, 2, 2, 3)),)))


def test_what_a_classifier_sees_is_the_mean_over_positions():
  learner = learners.classifier()
  own = Own([{'kernel': jnp.eye(3), 'bias': jnp.zeros(3)}], {})
  features = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
  given, _, _ = learner.apply(own, seen((features,), (jnp.ones((2, 3)),)))
  np.testing.assert_allclose(given.student[0], features.mean((1, 2)), rtol=1e-5, atol=1e-6)
