"""Pruned weights under optimizers with memory: exactly zero in the params and in every params-shaped slot."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lightjax.core import schedules, trees
from lightjax.core.transform import Context
from lightjax.core.typing import Layout
from lightjax.prune import budgets, criteria, patterns, prune
from lightjax.train.compression import mask_slots

LAYOUTS = {path: Layout('dense', (1,), order) for order, path in enumerate(('a/kernel', 'b/kernel', 'z/kernel'))}
METHOD = prune(
  criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.cubic(0.3, 0.8, begin=3, end=9), every=3)


OPTIMIZERS = {
  'momentum': optax.sgd(0.1, momentum=0.9),
  'nesterov': optax.sgd(0.1, momentum=0.9, nesterov=True),
  'adamw with decay': optax.adamw(1e-2, weight_decay=0.1),
  'lion': optax.lion(1e-2),
  'inject_hyperparams': optax.inject_hyperparams(optax.adamw)(learning_rate=optax.cosine_decay_schedule(1e-2, 100)),
  'MultiSteps': optax.MultiSteps(
    optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)), 2).gradient_transformation(),
  'multi_transform': optax.multi_transform(
    {'kernel': optax.adamw(1e-2), 'bias': optax.sgd(0.1, momentum=0.9)},
    lambda params: jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key, params)),
  'average': optax.chain(optax.adam(1e-2), optax.ema(0.9)),
  'adafactor': optax.adafactor(1e-2, min_dim_size_to_factor=4),
}


@pytest.fixture
def params():
  """Square kernels, so that a slot of another shape would broadcast unnoticed."""
  rng = np.random.default_rng(0)
  return {name: {'bias': jnp.ones(6), 'kernel': jnp.asarray(rng.normal(size=(6, 6)), jnp.float32)} for name in 'abz'}


def loss(params, x):
  for name in 'abz':
    x = jnp.tanh(x @ params[name]['kernel'] + params[name]['bias'])
  return (x**2).mean()


def train(optimizer, params, steps=12, *, masked_slots=True):
  own, opt_state = METHOD.init({'params': params}, Context(LAYOUTS)), optimizer.init(params)

  @jax.jit
  def step(params, own, opt_state, i, x):
    gradients = jax.grad(lambda params: loss(METHOD.view({'params': params}, own, None)['params'], x))(params)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    params = optax.apply_updates(params, updates)
    own = METHOD.update({'params': params}, own, Context(LAYOUTS, step=i))
    params = METHOD.project({'params': params}, own)['params']
    everywhere = jax.tree.map(lambda leaf: jnp.ones((), bool), params)
    masks = trees.replace(everywhere, METHOD.support(own))
    return params, own, mask_slots(optimizer, opt_state, masks) if masked_slots else opt_state

  for i in range(1, steps + 1):
    x = jnp.asarray(np.random.default_rng(i).normal(size=(8, 6)), jnp.float32)
    params, own, opt_state = step(params, own, opt_state, i, x)
  return params, own, opt_state


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_trap_11_pruned_weights_and_their_slots_are_exactly_zero_after_the_last_step(name, params):
  optimizer = OPTIMIZERS[name]
  trained, own, opt_state = train(optimizer, params)
  masks = {path: np.asarray(mask) for path, mask in own.state['masks'].items()}
  assert {path: int((~mask).sum()) for path, mask in masks.items()} == {'a/kernel': 29, 'b/kernel': 29}
  assert jax.tree.map(jnp.shape, opt_state) == jax.tree.map(jnp.shape, optimizer.init(params))
  for path, leaf in trees.flatten(trained).items():
    np.testing.assert_array_equal(leaf != 0, masks.get(path, np.ones(leaf.shape, bool)))
  slots = 0
  for key_path, slot in jax.tree_util.tree_leaves_with_path(opt_state):
    for path, mask in masks.items():
      if trees.path_string(key_path).endswith(path) and jnp.shape(slot) == mask.shape:
        slots += 1
        assert not np.asarray(slot)[~mask].any(), jax.tree_util.keystr(key_path)
        assert np.asarray(slot)[mask].any() or name == 'MultiSteps', jax.tree_util.keystr(key_path)
  assert slots >= 2 or name == 'adafactor'


def test_trap_11_the_control_shows_the_fault_that_masked_slots_prevent(params):
  _, own, opt_state = train(OPTIMIZERS['momentum'], params, masked_slots=False)
  momentum = np.asarray(opt_state[0].trace['a']['kernel'])
  assert momentum[~own.state['masks']['a/kernel']].any()


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_slots_are_untouched_where_nothing_is_pruned(name, params):
  optimizer = OPTIMIZERS[name]
  opt_state = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), optimizer.init(params))
  everywhere = jax.tree.map(lambda leaf: jnp.ones((), bool), params)
  for masks in (everywhere, jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)):
    masked = mask_slots(optimizer, opt_state, masks)
    assert jax.tree.structure(masked) == jax.tree.structure(opt_state)
    jax.tree.map(np.testing.assert_array_equal, masked, opt_state)


def test_slots_are_zero_where_pruned_and_as_they_were_elsewhere(params):
  optimizer = OPTIMIZERS['adamw with decay']
  opt_state = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), optimizer.init(params))
  keep = np.arange(36).reshape(6, 6) % 2 == 0
  masks = trees.replace(jax.tree.map(lambda leaf: jnp.ones((), bool), params), {'a/kernel': jnp.asarray(keep)})
  adam = mask_slots(optimizer, opt_state, masks)[0]
  assert adam.count == 1
  for moment in (adam.mu, adam.nu):
    np.testing.assert_array_equal(moment['a']['kernel'], keep)
    assert all((leaf == 1).all() for path, leaf in trees.flatten(moment).items() if path != 'a/kernel')
