"""Dynamic sparse training, straight-through masks, phases, and pruning before training; on one device and on two."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lightjax.core import schedules, trees
from lightjax.core.transform import Context, chain, where
from lightjax.core.typing import Layout
from lightjax.prune import Growth, budgets, criteria, patterns, prune
from lightjax.train.compression import mask_slots

LAYOUTS = {path: Layout('dense', (1,), order, (0,)) for order, path in enumerate(('a/kernel', 'b/kernel', 'z/kernel'))}
KEY = jax.random.key(5)
END, EVERY, SPARSITY = 9, 3, 0.5


def sparse(grow=criteria.gradient_magnitude, budget=budgets.uniform, pattern=patterns.unstructured, fraction=0.4):
  return prune(
    criteria.magnitude, pattern, budget, schedules.periodic(SPARSITY, begin=0, end=END), every=EVERY,
    first=criteria.random, growth=Growth(grow, fraction, END))


METHODS = {
  'RigL': sparse(), 'SET': sparse(criteria.random), 'RigL in 2:4 steps': sparse(pattern=patterns.n_of_m(1, 4, axis=-1)),
  'in a chain by rules': chain(where((('a/.*', sparse()), ('b/.*', sparse(criteria.random))))),
}
OPTIMIZERS = {
  'momentum': optax.sgd(0.1, momentum=0.9), 'adamw': optax.adamw(1e-2, weight_decay=0.1), 'lion': optax.lion(1e-2),
  'inject_hyperparams': optax.inject_hyperparams(optax.adamw)(learning_rate=optax.cosine_decay_schedule(1e-2, 100)),
  'MultiSteps': optax.MultiSteps(optax.adamw(1e-2), 2).gradient_transformation(),
}


@pytest.fixture
def params():
  rng = np.random.default_rng(0)
  return {name: {'bias': jnp.ones(8), 'kernel': jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)} for name in 'abz'}


def loss(params, x):
  for name in 'abz':
    x = jnp.tanh(x @ params[name]['kernel'] + params[name]['bias'])
  return (x**2).mean()


def stepper(method, optimizer):
  @jax.jit
  def step(params, own, opt_state, number, x):
    dense = jax.grad(loss)(method.view({'params': params}, own, None)['params'], x)
    pull_back = jax.vjp(lambda params: method.view({'params': params}, own, None)['params'], params)[1]
    updates, opt_state = optimizer.update(*pull_back(dense), opt_state, params)
    params = optax.apply_updates(params, updates)
    context = Context(LAYOUTS, step=number, key=KEY, gradients=lambda: trees.flatten(dense))
    own = method.update({'params': params}, own, context)
    params = method.project({'params': params}, own)['params']
    masks = trees.replace(jax.tree.map(lambda leaf: jnp.ones((), bool), params), method.support(own))
    return params, own, mask_slots(optimizer, opt_state, masks), dense

  return step


def batch(number):
  return jnp.asarray(np.random.default_rng(number).normal(size=(4, 8)), jnp.float32)


def train(method, params, optimizer=OPTIMIZERS['momentum'], steps=12):
  """The state after each step, the one before the first included: (params, own, slots, dense gradients)."""
  own = method.init({'params': params}, Context(LAYOUTS, key=KEY))
  history = [(params, own, optimizer.init(params), None)]
  step = stepper(method, optimizer)
  for number in range(1, steps + 1):
    history.append(step(*history[-1][:3], number, batch(number)))
  assert step._cache_size() == 1
  return history


def masks_of(method, own):
  return {path: np.asarray(mask) for path, mask in method.support(own).items()}


def test_trap_12_rigl_is_its_algorithm_in_numpy(params):
  method = sparse()
  history = train(method, params)
  for number in range(1, 13):
    before, after = (masks_of(method, history[i][1]) for i in (number - 1, number))
    for path, mask in after.items():
      if number not in (3, 6, 9):
        np.testing.assert_array_equal(mask, before[path])
        continue
      # The weights that the optimizer made, before they are projected: those of the old mask.
      weight = np.where(before[path], np.asarray(trees.flatten(history[number][0])[path]), 0)
      dropped_to_zero = before[path] & ~mask
      exchanged = int(0.4 / 2 * (1 + np.cos(np.pi * number / END)) * 32)
      assert mask.sum() == 32 and dropped_to_zero.sum() <= exchanged
      gradient = np.abs(np.asarray(trees.flatten(history[number][3])[path]))
      grown = mask & ~before[path]
      if grown.any():
        never = ~mask & ~before[path]
        assert gradient[grown].min() >= gradient[never].max()
      assert not weight[grown].any()
  assert any((masks_of(method, history[3][1])[path] != masks_of(method, history[2][1])[path]).any() for path in before)
  assert all((masks_of(method, history[12][1])[path] == masks_of(method, history[8][1])[path]).all() for path in before)


@pytest.mark.parametrize('name', METHODS)
def test_the_sparsity_of_each_layer_is_exact_at_all_times(name, params):
  method = METHODS[name]
  history = train(method, params)
  for _, own, _, _ in history:
    for path, mask in masks_of(method, own).items():
      assert mask.sum() == 32, path
  for path, mask in masks_of(method, own).items():
    assert not np.asarray(trees.flatten(history[-1][0])[path])[~mask].any()


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_trap_12_what_grows_starts_at_zero_with_fresh_slots(name, params):
  method, optimizer = sparse(), OPTIMIZERS[name]
  history = train(method, params, optimizer, steps=6)
  for number in (3, 6):
    now, own, slots, _ = history[number]
    for path, mask in masks_of(method, own).items():
      fresh = ~masks_of(method, history[number - 1][1])[path]
      assert (mask & fresh).any()
      assert not np.asarray(trees.flatten(now)[path])[fresh].any()
      found = [np.asarray(slot) for key_path, slot in jax.tree_util.tree_leaves_with_path(slots)
               if trees.path_string(key_path).endswith(path) and jnp.shape(slot) == mask.shape]
      assert found and not any(slot[fresh].any() for slot in found)


@pytest.mark.parametrize('name', ['RigL', 'SET'])
def test_sharded_params_move_the_same_masks(name, params, devices):
  method, optimizer = METHODS[name], OPTIMIZERS['adamw']
  sharding = NamedSharding(Mesh(np.array(devices), ('model',)), PartitionSpec('model'))
  own = method.init({'params': params}, Context(LAYOUTS, key=KEY))
  state = (jax.device_put(params, sharding), own, jax.tree.map(
    lambda leaf: jax.device_put(leaf, sharding) if leaf.ndim else leaf, optimizer.init(params)))
  step = stepper(method, optimizer)
  for number in range(1, 7):
    *state, _ = step(*state, number, batch(number))
  expected = train(method, params, optimizer, steps=6)[-1]
  for path, mask in masks_of(method, expected[1]).items():
    np.testing.assert_array_equal(mask, masks_of(method, state[1])[path])


def test_trap_13_straight_through_masks_come_from_weights_that_go_on_learning(params):
  method = prune(
    criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.periodic(SPARSITY, begin=0, end=100), every=2,
    straight_through=True)
  history = train(method, params)
  for number, (now, own, _, _) in enumerate(history):
    mask = np.asarray(own.state['masks']['a/kernel'])
    assert mask.sum() == 32
    view = np.asarray(method.view({'params': now}, own, None)['params']['a']['kernel'])
    np.testing.assert_array_equal(view, np.where(mask, now['a']['kernel'], 0))
    if number and number % 2 == 0:
      magnitude = np.abs(np.asarray(now['a']['kernel']))
      np.testing.assert_array_equal(mask, magnitude > np.sort(magnitude, None)[31])
  first, second = history[0][0]['a']['kernel'], history[1][0]['a']['kernel']
  # Momentum's first step: every weight moves by the gradient at the view, the masked ones too.
  np.testing.assert_allclose(second, first - 0.1 * history[1][3]['a']['kernel'], rtol=1e-5, atol=1e-6)
  assert np.asarray(history[12][2][0].trace['a']['kernel']).all()


def test_phases_alternate_between_dense_and_sparse_and_end_sparse(params):
  method = prune(
    criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.alternating(0.75, begin=2, end=8, every=2),
    every=2)
  history = train(method, params, steps=10)
  zeros = [int((~masks_of(method, own)['a/kernel']).sum()) for _, own, _, _ in history]
  assert zeros == [0, 0, 48, 48, 0, 0, 48, 48, 48, 48, 48]
  # In a dense phase the pruned weights set out from zero and learn.
  assert (np.asarray(history[4][0]['a']['kernel']) == 0).sum() == 48
  assert (np.asarray(history[5][0]['a']['kernel']) == 0).sum() == 0


def test_a_move_at_step_0_is_made_before_training(params):
  variables = {'params': params}
  context = Context(LAYOUTS, key=KEY, loss=lambda variables: loss(variables['params'], batch(0)))
  method = prune(criteria.snip, patterns.unstructured, budgets.global_, schedules.constant(0.8), every=1)
  own = method.init(variables, context)
  gradient = jax.grad(loss)(params, batch(0))
  scores = np.concatenate([
    np.abs(np.asarray(params[name]['kernel'] * gradient[name]['kernel'])).ravel() for name in 'ab'])
  mask = np.concatenate([np.asarray(own.state['masks'][f'{name}/kernel']).ravel() for name in 'ab'])
  np.testing.assert_array_equal(mask, scores > np.sort(scores)[round(0.8 * 128) - 1])
  later = method.update(variables, own, Context(LAYOUTS, step=100))  # needs no gradient: it does not move again
  np.testing.assert_array_equal(later.state['masks']['a/kernel'], own.state['masks']['a/kernel'])


def test_rounds_before_training_see_the_masks_of_the_round_before(params):
  """Iterative magnitude with a score that depends on what is left: w divided by the sum that is left of its row."""
  def relative(weight):
    return jnp.abs(weight) / (jnp.abs(weight).sum(1, keepdims=True) + 1e-9)

  method = prune(relative, patterns.unstructured, budgets.uniform, schedules.constant(0.75), every=1, rounds=2)
  mask = np.asarray(method.init({'params': params}, Context(LAYOUTS)).state['masks']['a/kernel'])
  weight = np.abs(np.asarray(params['a']['kernel']))
  for kept in (32, 16):  # the kept share falls geometrically: 1/2, 1/4
    score = weight / (weight.sum(1, keepdims=True) + 1e-9)
    weight = np.where(score >= np.sort(score, None)[-kept], weight, 0)
  np.testing.assert_array_equal(mask, weight > 0)


def test_what_a_pattern_cannot_give_is_an_error_that_names_layer_and_numbers(params):
  method = prune(
    criteria.magnitude, patterns.n_of_m(2, 4), budgets.uniform, schedules.cubic(0.0, 0.8, begin=1, end=9), every=4)
  message = r"at sparsity 0\.7 the budget prunes 45 of 'a/kernel', and n_of_m\(2, 4, axis=-2\) allows 32 of 64"
  with pytest.raises(ValueError, match=message):
    method.init({'params': params}, Context(LAYOUTS))
  with pytest.raises(ValueError, match=r'rounds=0'):
    prune(criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.constant(0.5), every=1, rounds=0)


def test_a_straight_through_stage_may_not_lose_its_zeros_either(params):
  from lightjax.core.transform import Own, transform
  shift = transform('shift', init=lambda variables, context: Own(), view=lambda variables, own, key: jax.tree.map(
    lambda leaf: leaf + 1, variables))
  method = prune(
    criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.constant(0.5), every=1, straight_through=True)
  with pytest.raises(ValueError, match="'shift' does not keep the zeros"):
    chain(method, shift).init({'params': params}, Context(LAYOUTS))
