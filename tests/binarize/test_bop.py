"""Bop against its algorithm in NumPy."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lightjax.binarize import bop
from lightjax.train import optimizers


def test_weights_flip_as_in_the_papers_algorithm():
  rng = np.random.default_rng(0)
  w = {'kernel': rng.choice([-0.5, 0.25], (6, 4)).astype(np.float32)}
  optimizer = bop(0.3, threshold=0.1)
  state, params = optimizer.init(w), w
  average, mine = np.zeros((6, 4)), w['kernel'].copy()
  flips = 0
  for _ in range(20):
    gradient = rng.normal(scale=0.5, size=(6, 4)).astype(np.float32)
    updates, state = jax.jit(optimizer.update)({'kernel': gradient}, state, params)
    params = optax.apply_updates(params, updates)
    average = 0.7 * average + 0.3 * gradient
    flip = (np.abs(average) > 0.1) & (np.sign(average) == np.sign(mine))
    mine = np.where(flip, -mine, mine)
    flips += flip.sum()
    np.testing.assert_array_equal(params['kernel'], mine)
  assert flips > 10 and state.step == 20


def test_zero_counts_as_plus_and_becomes_minus():
  optimizer = bop(1.0, threshold=0.0)
  for gradient, expected in ((1.0, -1.0), (-1.0, 0.0)):
    updates, _ = optimizer.update(jnp.array([gradient]), optimizer.init(jnp.zeros(1)), jnp.zeros(1))
    assert updates == expected


def test_the_adaptivity_may_be_a_schedule():
  optimizer = bop(lambda step: jnp.where(step == 0, 1.0, 0.0), threshold=0.5)
  state = optimizer.init(jnp.ones(1))
  _, state = optimizer.update(jnp.array([2.0]), state, jnp.ones(1))
  _, state = optimizer.update(jnp.array([5.0]), state, jnp.ones(1))
  assert state.average == 2


@pytest.mark.parametrize('call, message', [
  (lambda: bop(0.1, threshold=-1.0), r'threshold=-1\.0'),
  (lambda: bop(0.1, threshold=0.0).update(jnp.ones(1), bop(0.1, threshold=0.0).init(jnp.ones(1))), 'flips weights'),
])
def test_errors_tell_the_way_out(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_a_run_flips_kernels_and_trains_the_rest_by_adam():
  tree = {'params': {'fc': {'kernel': jnp.full((2, 2), 0.5), 'bias': jnp.zeros(2)}}, 'transform': {'a': jnp.ones(1)}}
  optimizer = optimizers.optimizer(
    optimizers.bop, optimizers.constant(0.1, total=1), weight_decay=0.1, no_decay=('.*/bias',), adaptivity=1.0,
    threshold=0.0)
  gradients = jax.tree.map(jnp.ones_like, tree)
  updates, _ = optimizer.update(gradients, optimizer.init(tree), tree)
  np.testing.assert_array_equal(updates['params']['fc']['kernel'], -np.ones((2, 2)))
  np.testing.assert_allclose(updates['params']['fc']['bias'], [-0.1, -0.1], rtol=1e-4)
  np.testing.assert_allclose(updates['transform']['a'], [-0.1], rtol=1e-4)


def test_rates_of_glorot_adam_are_the_papers():
  tree = {'params': {'fc': {'kernel': jnp.zeros((30, 20)), 'bias': jnp.zeros(20)},
                     'conv': {'kernel': jnp.zeros((3, 3, 4, 6))}}, 'transform': ()}
  optimizer = optimizers.optimizer(optimizers.glorot_adam, optimizers.constant(0.01, total=1))
  updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, tree), optimizer.init(tree), tree)
  params = updates['params']
  np.testing.assert_allclose(params['fc']['kernel'], -0.01 / np.sqrt(1.5 / 50), rtol=1e-4)
  np.testing.assert_allclose(params['conv']['kernel'], -0.01 / np.sqrt(1.5 / (9 * 10)), rtol=1e-4)
  np.testing.assert_allclose(params['fc']['bias'], -0.01, rtol=1e-4)


def test_the_exponential_rate_ends_where_it_is_told():
  rate = optimizers.exponential(1e-2, total=100, warmup=10, final=1e-4)
  np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(55), rate(100), rate(200)],
                             [0, 5e-3, 1e-2, 1e-3, 1e-4, 1e-4], rtol=1e-4)
