import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.core.typing import Layout
from lightjax.prune import patterns

# Few distinct values, so that ties are everywhere.
TIED = st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0]), min_size=12, max_size=12)
traced = jax.jit(patterns.unstructured)


def brute_force(scores, pruned):
  """Stable sort of the flat scores; the first `pruned` go."""
  keep = np.ones(len(scores), bool)
  keep[np.argsort(scores, kind='stable')[:pruned]] = False
  return keep


@given(scores=TIED, pruned=st.integers(0, 12), dtype=st.sampled_from(['float32', 'bfloat16', 'float16']))
def test_trap_10_exactly_so_many_are_pruned_and_ties_are_broken_by_index(scores, pruned, dtype):
  array = jnp.array(scores, dtype)
  expected = brute_force(np.array(scores), pruned)
  np.testing.assert_array_equal(traced({'w': array.reshape(3, 4)}, jnp.int32(pruned))['w'].ravel(), expected)
  np.testing.assert_array_equal(patterns.unstructured({'w': array}, pruned)['w'], expected)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_trap_10_on_random_scores_of_few_bits(dtype):
  scores = jax.random.normal(jax.random.key(0), (50, 40)).astype(dtype)
  for pruned in (0, 1, 999, 1800, 1999, 2000):
    kept = traced({'w': scores}, jnp.int32(pruned))['w']
    assert (~kept).sum() == pruned
    if 0 < pruned < 2000:
      assert scores[~kept].max() <= scores[kept].min()


@pytest.mark.parametrize('pruned', [0, 1, 5, 6])
def test_trap_10_constant_scores_go_by_index(pruned):
  kept = traced({'w': jnp.full((2, 3), 7.0)}, jnp.int32(pruned))['w']
  np.testing.assert_array_equal(kept.ravel(), np.arange(6) >= pruned)


@given(scores=TIED, pruned=st.integers(0, 12))
def test_a_group_is_ranked_together(scores, pruned):
  first, second = jnp.array(scores[:4]).reshape(2, 2), jnp.array(scores[4:])
  masks = traced({'b': first, 'a': second}, jnp.int32(pruned))
  # Under jit a mapping's keys are sorted, and with them the index that breaks ties.
  joined = np.concatenate([masks['a'], masks['b'].ravel()])
  np.testing.assert_array_equal(joined, brute_force(np.array(scores[4:] + scores[:4]), pruned))


def test_masks_by_hand():
  masks = patterns.unstructured({'v': jnp.array([[3.0], [1.0]]), 'w': jnp.array([2.0, 1.0, 0.5])}, 2)
  np.testing.assert_array_equal(masks['v'], [[True], [False]])
  np.testing.assert_array_equal(masks['w'], [True, True, False])
  assert masks['v'].dtype == bool


# Tiles

CONV = Layout('conv', (3,), 0, (2,))
SCORES = jax.random.normal(jax.random.key(1), (3, 3, 4, 8))
PATTERNS = {
  'n_of_m': (patterns.n_of_m(2, 4), 1, 288 // 2), 'n_of_m along the outputs': (patterns.n_of_m(1, 8, axis=-1), 1, 252),
  'block': (patterns.block(2, 4), 8, 36), 'kernel': (patterns.kernel, 9, 32), 'channel': (patterns.channel, 36, 8),
  'unstructured': (patterns.unstructured, 1, 288)}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'constant'])
@pytest.mark.parametrize('name', PATTERNS)
def test_trap_10_every_pattern_prunes_exactly_so_many_tiles(name, dtype):
  pattern, size, most = PATTERNS[name]
  scores = jnp.ones_like(SCORES) if dtype == 'constant' else SCORES.astype(dtype)
  compute = jax.jit(lambda scores, pruned: pattern({'w': scores}, pruned, {'w': CONV})['w'])
  assert pattern.most(pattern.grid('w', scores.shape, CONV)) == most
  for pruned in (0, 1, most // 2, most):
    mask = compute(scores, jnp.int32(pruned))
    assert mask.dtype == bool and (~mask).sum() == size * pruned
  assert compute._cache_size() == 1


@pytest.mark.parametrize('axis', [0, 1, 2, -1])
def test_of_each_m_at_least_n_stay_and_the_highest_do(axis):
  scores = jax.random.normal(jax.random.key(0), (4, 8, 4, 12))
  mask = np.asarray(patterns.n_of_m(1, 4, axis=axis)({'w': scores}, scores.size // 4 * 3)['w'])
  rows = np.moveaxis(np.asarray(scores), axis, -1).reshape(-1, 4)
  kept = np.moveaxis(mask, axis, -1).reshape(-1, 4)
  np.testing.assert_array_equal(kept, rows == rows.max(1, keepdims=True))
  half = np.asarray(patterns.n_of_m(1, 4, axis=axis)({'w': scores}, scores.size // 2)['w'])
  assert np.moveaxis(half, axis, -1).reshape(-1, 4).sum(1).min() >= 1
  assert not (mask & ~half).any()  # a denser mask holds the sparser one


def test_blocks_kernels_and_channels_by_hand():
  scores = jnp.arange(16.0).reshape(4, 4)
  mask = patterns.block(2, 2)({'w': scores}, 1)['w']
  np.testing.assert_array_equal(mask, np.kron([[0, 1], [1, 1]], np.ones((2, 2))))
  mask = patterns.kernel({'w': SCORES}, 5, {'w': CONV})['w']
  means = np.asarray(SCORES).mean((0, 1))
  np.testing.assert_array_equal(mask, np.broadcast_to(means > np.sort(means.ravel())[4], SCORES.shape))
  dense = Layout('dense', (0,), 0, (1,))  # stored as [out in]
  mask = patterns.channel({'w': scores}, 2, {'w': dense})['w']
  np.testing.assert_array_equal(mask, np.repeat([[False], [False], [True], [True]], 4, 1))


@pytest.mark.parametrize('pattern, shape, layout, message', [
  (patterns.n_of_m(2, 4), (3, 6, 5), CONV, r"axis -2 of 'w' \(shape \(3, 6, 5\)\) has size 6, which 4 does not divide"),
  (patterns.n_of_m(2, 4, axis=3), (4, 4), CONV, r"'w' of shape \(4, 4\) has no axis 3"),
  (patterns.block(2, 3), (4, 4), CONV, r"axis 1 of 'w' has size 4, which 3 does not divide"),
  (patterns.block(2, 3), (4,), None, r"'w' of shape \(4,\) has fewer than two axes"),
  (patterns.kernel, (4,), None, r"'w' of shape \(4,\) is no kernel"),
  (patterns.channel, (4,), None, r"'w' of shape \(4,\) is no kernel"),
])
def test_what_a_pattern_does_not_divide_is_an_error_that_names_it(pattern, shape, layout, message):
  with pytest.raises(ValueError, match=message):
    pattern.grid('w', shape, layout)


@pytest.mark.parametrize('make', [lambda: patterns.n_of_m(4, 4), lambda: patterns.n_of_m(0, 2),
                                  lambda: patterns.block(0, 1)])
def test_sizes_that_make_no_sense_are_refused(make):
  with pytest.raises(ValueError, match=r'n_of_m\(|block\('):
    make()
