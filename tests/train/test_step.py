"""The training step: gradients, averages, masks, losses, and what happens when a step is not finite."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lightjax import prune, quantize
from lightjax.core import schedules, trees
from lightjax.core.transform import Own, chain, transform, where
from lightjax.distill import learners, losses, terms
from lightjax.train import compression, devices, optimizers, step
from lightjax.train import state as states

IMAGES = jax.random.normal(jax.random.key(0), (16, 4, 4, 1))
LABELS = jnp.arange(16) % 3
KEY = jax.random.key(5)


class Net(nn.Module):
  """A network with statistics, and logits in a precision of its choice."""
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Dense(8, dtype=self.dtype)(x.reshape(len(x), -1))
    x = nn.relu(nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x))
    return nn.Dense(3, dtype=self.dtype)(x)


def pruning(sparsity=0.5, end=4):
  cubic = schedules.cubic(0.2, sparsity, begin=1, end=end)
  return prune.prune(prune.criteria.magnitude, prune.patterns.unstructured, prune.budgets.global_, cubic, every=1)


METHODS = {
  'none': lambda: (),
  'prune': lambda: (pruning(),),
  'weights': lambda: (quantize.weights(bits=4),),
  'prune and weights': lambda: (pruning(), quantize.weights(bits=4)),
  'activations': lambda: (quantize.activations(bits=8),),
}


def build(method='none', optimizer=None, averaged=False, dtype=jnp.float32, **options):
  """(compressed, state, jitted step)"""
  model = Net(dtype)
  variables = model.init(jax.random.key(1), IMAGES)
  stages = (where((('.*', stage),), skip=('not_kernel',)) for stage in METHODS[method]())
  compressed = compression.bind(model, variables, chain(*stages), IMAGES)
  optimizer = optimizer or optimizers.optimizer(optimizers.sgd, lambda step: 0.1, momentum=0.0)
  state = states.create(variables, compressed.init(variables), optimizer, averaged=averaged)
  advance = step.training_step(compressed, optimizer, prepare=lambda key, images: images, **options)
  return compressed, state, jax.jit(advance)


def assert_close(one, other, **tolerance):
  for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(left, right, **({'rtol': 1e-4, 'atol': 1e-6} | tolerance))


@pytest.mark.parametrize('method', METHODS)
def test_the_gradient_pulled_back_is_that_of_the_composed_loss(method):
  compressed, state, advance = build(method)
  for _ in range(3):
    state = advance(state, KEY, IMAGES, LABELS)

  def loss(params):
    (logits, _), _ = compressed.apply(
      {**state.collections, 'params': params}, state.own, IMAGES, observe=True, train=True, mutable=['batch_stats'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

  expected = optax.tree_utils.tree_add_scale(state.params, -0.1, jax.grad(loss)(state.params))
  after = advance(state, KEY, IMAGES, LABELS)
  expected = compressed.transform.project({'params': expected}, after.own)['params']
  assert_close(after.params, expected)


def test_a_trainable_gets_its_gradient_through_the_view_and_its_update():
  """A transform that scales every kernel by a factor that it trains."""

  def view(variables, own, key):
    leaves = trees.flatten(variables)
    return trees.replace(variables, {path: leaves[path] * factor for path, factor in own.trainable.items()})

  scaling = transform(
    'scaling', view=view, init=lambda variables, context: Own({path: jnp.float32(0.7) for path in context.layouts}))
  model, optimizer = Net(), optimizers.optimizer(optimizers.sgd, lambda step: 0.1, momentum=0.0)
  variables = model.init(jax.random.key(1), IMAGES)
  compressed = compression.bind(model, variables, scaling, IMAGES)
  state = states.create(variables, compressed.init(variables), optimizer, averaged=False)

  def loss(params, trainable):
    viewed = view({**state.collections, 'params': params}, Own(trainable), None)
    logits, _ = model.apply(viewed, IMAGES, train=True, mutable=['batch_stats'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

  trained = (state.params, state.own.trainable)
  gradients = jax.grad(loss, argnums=(0, 1))(*trained)
  assert len(gradients[1]) == 2 and all(float(leaf) != 0 for leaf in gradients[1].values())
  after = step.training_step(compressed, optimizer, prepare=lambda key, images: images)(state, KEY, IMAGES, LABELS)
  assert_close((after.params, after.own.trainable), optax.tree_utils.tree_add_scale(trained, -0.1, gradients))


def test_totals_count_examples_loss_and_hits():
  _, state, advance = build()
  logits = Net().apply({**state.collections, 'params': state.params}, IMAGES, train=True, mutable=['batch_stats'])[0]
  log = np.asarray(logits, np.float64) - np.log(np.exp(np.asarray(logits, np.float64)).sum(-1, keepdims=True))
  after = advance(state, KEY, IMAGES, LABELS)
  assert float(after.totals['examples']) == 16
  np.testing.assert_allclose(after.totals['loss'], -log[np.arange(16), LABELS].sum(), rtol=1e-5)
  assert int(after.totals['correct']) == (log.argmax(-1) == np.asarray(LABELS)).sum()
  assert int(after.step) == 1 and int(after.failed[0]) == -1


def test_statistics_move_in_training_and_not_in_evaluation():
  compressed, state, advance = build()
  after = advance(state, KEY, IMAGES, LABELS)
  mean = np.asarray(nn.Dense(8).apply({'params': state.params['Dense_0']}, IMAGES.reshape(16, -1)).mean(0))
  np.testing.assert_allclose(
    after.collections['batch_stats']['BatchNorm_0']['mean'], 0.01 * mean, rtol=1e-4, atol=1e-6)  # linen keeps 0.99
  evaluate = step.evaluation_step(compressed, prepare=lambda images: images)
  sums = evaluate(after.variables(), after.own, IMAGES, LABELS, jnp.arange(16) < 5)
  logits = Net().apply(after.variables(), IMAGES[:5])
  assert float(sums['examples']) == 5
  assert int(sums['correct']) == int((logits.argmax(-1) == LABELS[:5]).sum())
  expected = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[:5]).sum()
  np.testing.assert_allclose(sums['loss'], expected, rtol=1e-5)


def test_the_average_is_the_exponential_one():
  _, state, advance = build(averaged=True, average=0.8)
  history = [state.params]
  for _ in range(4):
    state = advance(state, KEY, IMAGES, LABELS)
    history.append(state.params)
  weights = [0.8**4, *(0.2 * 0.8**(4 - k) for k in range(1, 5))]
  expected = jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *history)
  assert_close(state.average, expected, rtol=1e-5)
  assert state.variables()['params'] is state.average


OPTIMIZERS = {
  'momentum with decay': lambda: optimizers.optimizer(optimizers.sgd, lambda step: 0.1, weight_decay=0.1),
  'adamw with decay': lambda: optimizers.optimizer(optimizers.adamw, lambda step: 0.01, weight_decay=0.1),
  'clipped nesterov': lambda: optimizers.optimizer(optimizers.sgd, lambda step: 0.1, clip_norm=1.0, nesterov=True),
}


@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize('method', ['prune', 'prune and weights'])
def test_pruned_entries_are_zero_in_params_average_and_every_slot_after_each_step(name, method):
  optimizer = OPTIMIZERS[name]()
  compressed, state, advance = build(method, optimizer=optimizer, averaged=True, average=0.9)
  for number in range(1, 8):
    state = advance(state, KEY, IMAGES, LABELS)
    masks = compressed.transform.support(state.own)
    assert len(masks) == 2
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    size = sum(mask.size for mask in masks.values())
    assert pruned == round(size * schedules.cubic(0.2, 0.5, begin=1, end=4).value(number))
    for path, mask in masks.items():
      dead = ~np.asarray(mask)
      for tree in (state.params, state.average, compressed.transform.view({'params': state.params}, state.own, None)):
        leaf = np.asarray(trees.flatten(tree)[path])
        assert (leaf[dead] == 0).all() and (leaf[~dead] != 0).any()
      name_, kind = path.split('/')
      slots = [
        leaf for key_path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if jax.tree_util.keystr(key_path, simple=True, separator='/').endswith(f'params/{name_}/{kind}')]
      assert len(slots) == (2 if 'adamw' in name else 1)
      for slot in slots:
        assert slot.shape == mask.shape and (np.asarray(slot)[dead] == 0).all()


class Noisy(nn.Module):
  """Its logits are its bias with dropout, of ones whatever comes in."""

  @nn.compact
  def __call__(self, x, train=False):
    logits = nn.Dense(200, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.ones)(x.reshape(len(x), -1))
    return nn.Dropout(0.5, deterministic=not train)(logits)


def test_randomness_is_new_in_each_step_and_a_function_of_key_and_step():
  prepared = []
  compressed = compression.bind(Noisy(), Noisy().init(jax.random.key(1), IMAGES), chain(), IMAGES)
  optimizer = optax.set_to_zero()

  def prepare(key, images):
    prepared.append(np.asarray(jax.random.key_data(key)).tobytes())
    return images

  advance = step.training_step(compressed, optimizer, prepare=prepare)

  def follow(key, steps):
    variables = Noisy().init(jax.random.key(1), IMAGES)
    state = states.create(variables, compressed.init(variables), optimizer, averaged=False)
    losses = [0.0]
    for _ in range(steps):
      state = advance(state, key, IMAGES, LABELS)  # not jitted, so that `prepare` sees the keys
      losses.append(float(state.totals['loss']))
    return np.diff(losses).round(3).tolist()

  first = follow(KEY, 4)
  assert len(set(first)) == 4 and len(set(prepared)) == 4  # dropout, augmentation
  assert follow(KEY, 4) == first and prepared[4:] == prepared[:4]
  assert follow(jax.random.key(6), 1) != first[:1] and prepared[8] not in prepared[:8]


@pytest.mark.parametrize('weight', [0.0, 0.3, 1.0])
def test_a_student_pays_its_share_of_both_terms(weight):
  """(1 - weight) cross-entropy + weight T^2 KL(teacher || student), by NumPy."""
  teacher = jnp.asarray(np.random.default_rng(3).normal(size=(16, 3)), jnp.float32)
  term = terms.Term('logits', losses.temperature, {'temperature': 3.0}, weight, learners.none(), ('',), ('',))
  teaching = step.Distillation(lambda taught, images, index, names: {'': taught}, (term,), 1 - weight)
  _, state, advance = build(distillation=teaching)
  logits = np.asarray(
    Net().apply({**state.collections, 'params': state.params}, IMAGES, train=True, mutable=['batch_stats'])[0])
  after = advance(state, KEY, IMAGES, LABELS, teacher)

  def log_softmax(values):
    values = np.asarray(values, np.float64)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))

  hard = -log_softmax(logits)[np.arange(16), LABELS].mean()
  soft_teacher, soft_student = log_softmax(teacher / 3), log_softmax(logits / 3)
  soft = 9 * (np.exp(soft_teacher) * (soft_teacher - soft_student)).sum(-1).mean()
  np.testing.assert_allclose(after.totals['loss'] / 16, (1 - weight) * hard + weight * soft, rtol=1e-5)


@pytest.mark.parametrize('method', ['none', 'prune and weights', 'activations'])
def test_a_step_that_is_not_finite_leaves_the_state_bit_for_bit(method):
  _, state, advance = build(
    method, optimizer=OPTIMIZERS['adamw with decay'](), averaged=True, average=0.9)
  for _ in range(2):
    state = advance(state, KEY, IMAGES, LABELS)
  failed = advance(state, KEY, IMAGES.at[3, 0, 0].set(jnp.nan), LABELS)
  assert int(failed.failed[0]) == 2
  for one, other in zip(
      jax.tree.leaves(state.replace(failed=None)), jax.tree.leaves(failed.replace(failed=None)), strict=True):
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
  # A failed run stands still, and keeps the first failure.
  later = advance(failed, KEY, IMAGES, LABELS)
  assert [int(each) for each in later.failed] == [int(each) for each in failed.failed]
  assert int(later.step) == 2


@pytest.mark.parametrize('method', METHODS)
def test_two_devices_agree_with_one(method):
  results = []
  for mesh in (devices.mesh(1), devices.mesh(2)):
    _, state, advance = build(method, optimizer=OPTIMIZERS['momentum with decay'](), averaged=True, average=0.9)
    state, key = devices.replicate(state, mesh), devices.replicate(KEY, mesh)
    for _ in range(3):
      state = advance(state, key, *devices.shard([IMAGES, LABELS], mesh))
    assert len(jax.tree.leaves(state.params)[0].devices()) == mesh.size
    results.append(jax.device_get(state))
  assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)


def test_more_devices_than_there_are_is_an_error_that_counts_them():
  with pytest.raises(ValueError, match='devices=3, but this process has 2'):
    devices.mesh(3)


def test_bfloat16_is_for_computing_only():
  compressed, state, advance = build(
    'prune and weights', optimizer=OPTIMIZERS['adamw with decay'](), averaged=True, average=0.9, dtype=jnp.bfloat16)
  assert compressed.apply(state.variables(), state.own, IMAGES).dtype == jnp.bfloat16
  before = jax.tree.map(lambda leaf: leaf.dtype, state)
  state = advance(state, KEY, IMAGES, LABELS)
  assert jax.tree.map(lambda leaf: leaf.dtype, state) == before
  floats = {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)}
  assert floats == {jnp.dtype('float32')}
