import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
