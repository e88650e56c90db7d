"""LSQ, LSQ+ and PACT: where they start, gradients in closed form, and what a training step does with them."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core.transform import chain, where
from lightjax.quantize import activations, formats, learned, scales, weights
from lightjax.train import optimizers, step
from lightjax.train import state as states
from lightjax.train.compression import bind

X = np.float32(np.random.default_rng(0).normal(size=400))
SIGNED, RELU = jnp.asarray(X), jnp.asarray(np.maximum(X, 0))
COUNT = 16.0


def gradients(method, x, trained, others):
  """d(sum of values) / d(x, trainables)."""
  def value(x, trained):
    levels, scale = method.levels(x, trained, others, COUNT)
    return (levels * scale).sum()
  return jax.grad(value, argnums=(0, 1))(x, trained)


def test_lsq_starts_at_twice_the_mean_over_the_root_of_qp():
  trained, others = learned.lsq(formats.symmetric(4)).start(SIGNED[None])
  np.testing.assert_allclose(trained['step'], [2 * np.abs(X).mean() / np.sqrt(7)], rtol=1e-5)
  for x, zero_point, qp in ((RELU, 0, 15), (SIGNED, 8, 7)):
    trained, others = learned.lsq(formats.affine(4)).start(x[None])
    assert others['zero_point'] == zero_point
    np.testing.assert_allclose(trained['step'], [2 * np.abs(x).mean() / np.sqrt(qp)], rtol=1e-5)


@pytest.mark.parametrize('format_, x, qn, qp', [
  (formats.symmetric(3), SIGNED, 3, 3), (formats.affine(3), RELU, 0, 7), (formats.affine(3), SIGNED, 4, 3)])
def test_lsqs_gradients_in_closed_form(format_, x, qn, qp):
  """Esser et al., section 2."""
  method = learned.lsq(format_)
  trained, others = {'step': jnp.float32(0.3)}, {'zero_point': jnp.float32(qn if format_.kind == 'affine' else 0)}
  to_x, to_trained = gradients(method, x, trained, others)
  v = np.float64(x) / np.float32(0.3)
  inside = np.abs(np.round(v) - np.clip(np.round(v), -qn, qp)) == 0
  expected = np.where(inside, np.round(v) - v, np.where(v < 0, -qn, qp)).sum() / np.sqrt(COUNT * qp)
  np.testing.assert_allclose(to_trained['step'], expected, rtol=1e-4)
  np.testing.assert_allclose(to_x, inside, rtol=1e-6)


def test_lsq_pluss_gradients_in_closed_form():
  """Bhalgat et al., with the offset on the grid."""
  method = learned.lsq_plus(formats.affine(3))
  step, offset = np.float32(0.25), np.float32(-0.5)  # zero point 2
  trained, others = {'step': jnp.asarray(step), 'offset': jnp.asarray(offset)}, {'first_zero_point': jnp.float32(0)}
  to_x, to_trained = gradients(method, SIGNED, trained, others)
  v = np.float64(X) / step
  low, high = v < -2.5, v > 5.5
  factor = 1 / np.sqrt(COUNT * 7)
  np.testing.assert_allclose(to_x, ~(low | high), rtol=1e-6)
  np.testing.assert_allclose(to_trained['offset'], (low | high).sum() * factor, rtol=1e-4)
  # Above: x^ = 7 s + b. Below: x^ = b.
  expected = np.where(low, 0, np.where(high, 7, np.round(v) - v)).sum() * factor
  np.testing.assert_allclose(to_trained['step'], expected, rtol=1e-4)
  assert method.parameters(trained, others) == (step, 2)


def test_lsq_plus_starts_at_the_range_of_inputs_and_at_three_deviations_of_weights():
  trained, _ = learned.lsq_plus(formats.affine(8)).start(SIGNED[None])
  np.testing.assert_allclose(trained['step'], (X.max() - X.min()) / 255, rtol=1e-5)
  np.testing.assert_allclose(trained['offset'], X.min(), atol=trained['step'][0])
  trained, _ = learned.lsq_plus(formats.symmetric(8)).start(SIGNED[None] + 0.5)
  mean, deviation = np.float64(X + 0.5).mean(), np.float64(X).std()
  np.testing.assert_allclose(trained['step'], (mean + 3 * deviation) / 128, rtol=1e-4)


def test_pacts_values_and_gradients():
  """Choi et al., equations 1 to 3: the clip, the levels, the gradient of the bound."""
  method = learned.pact(formats.affine(4))
  bound = np.float32(1.5)
  trained, others = {'bound': jnp.asarray(bound)}, {'zero_point': jnp.float32(0)}
  levels, scale = method.levels(SIGNED, trained, others, COUNT)
  expected = np.round(np.clip(np.float64(X), 0, bound) * 15 / bound) * bound / 15
  np.testing.assert_allclose(levels * scale, expected, atol=1e-6)
  to_x, to_trained = gradients(method, SIGNED, trained, others)
  np.testing.assert_allclose(to_x, (X >= 0) & ~(bound < X), rtol=1e-6)
  np.testing.assert_allclose(to_trained['bound'], (bound < X).sum(), rtol=1e-6)
  np.testing.assert_allclose(method.start(SIGNED[None])[0]['bound'], [X.max()])
  np.testing.assert_allclose(method.project(trained)['bound'], bound * (1 - 4e-5), rtol=1e-7)
  with pytest.raises(ValueError, match="pact clips at zero and needs the format 'affine', not int4"):
    learned.pact(formats.symmetric(4))


@pytest.mark.parametrize('name', ['lsq', 'lsq_plus'])
def test_trap_6_a_start_from_zeros_is_finite_and_a_step_stays_positive(name):
  for format_ in (formats.symmetric(2), formats.affine(2)):
    method = getattr(learned, name)(format_)
    trained, others = method.start(jnp.zeros((2, 5)))
    assert (trained['step'] > 0).all()
    levels, scale = method.levels(jnp.zeros(5), *jax.tree.map(lambda each: each[0], (trained, others)), COUNT)
    np.testing.assert_array_equal(levels * scale, np.zeros(5))
    assert (method.project({**trained, 'step': jnp.array([-1.0, 0.0])})['step'] > 0).all()


class Net(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Dense(8, name='first')(x))
    return nn.Dense(3, name='second')(x)


def run(method, steps=2, weight_decay=0.0, rate=0.1):
  images, labels = jax.random.normal(jax.random.key(0), (16, 6)), jnp.arange(16) % 3
  variables = jax.jit(Net().init)(jax.random.key(1), images)
  compressed = bind(Net(), variables, where((('.*/kernel', method),), skip=('not_kernel',)), images)
  optimizer = optimizers.optimizer(optimizers.sgd, lambda _: rate, momentum=0.0, weight_decay=weight_decay)
  state = states.create(variables, compressed.init(variables), optimizer, averaged=False)
  advance = jax.jit(step.training_step(compressed, optimizer, prepare=lambda key, images: images))
  history = [state]
  for _ in range(steps):
    history.append(advance(history[-1], jax.random.key(2), images, labels))
  return compressed, images, history


@pytest.mark.parametrize('name', ['lsq', 'lsq_plus', 'pact'])
def test_inputs_start_at_the_first_batch_and_are_trained_from_then_on(name):
  compressed, images, history = run(activations(bits=4, scale=getattr(scales, name)))
  calls = [state.own.trainable[0]['second']['call0'] for state in history]
  expected, _ = getattr(learned, name)(formats.affine(4)).start(images.reshape(1, -1))
  first = history[1].own.trainable[0]['first']['call0']
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[0], rtol=1e-4), first, dict(expected))
  moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b)), calls[1], calls[2])
  assert any(each > 0 for each in jax.tree.leaves(moved))
  stored = compressed.transform.finalize(history[-1].variables(), history[-1].own).activations
  assert stored['second'][0]['zero_point'] == 0 and stored['second'][0]['bits'] == 4


def test_a_trained_input_scale_moves_by_the_learning_rate_times_its_gradient():
  """The step's gradient through interception against jax.grad of the loss that the network has as a plain function."""
  _, images, history = run(activations(bits=4, scale=scales.lsq))
  labels = jax.nn.one_hot(jnp.arange(16) % 3, 3)
  before, after = history[1], history[2]
  zero_points = {'first': 8.0, 'second': 0.0}

  def loss(steps):
    def rounded(x, name):
      factor = 1 / np.sqrt(x.shape[1] * (15 - zero_points[name]))
      s = steps[name] * factor + jax.lax.stop_gradient(steps[name] * (1 - factor))
      levels = x / s + jax.lax.stop_gradient(jnp.round(x / s) - x / s)
      clipped = jnp.clip(jax.lax.stop_gradient(levels), -zero_points[name], 15 - zero_points[name])
      return jnp.where(jnp.abs(levels - clipped) < 1e-3, levels, clipped) * s  # jnp.clip has gradient 1/2 on a bound
    params = before.params
    x = rounded(images, 'first') @ params['first']['kernel'] + params['first']['bias']
    x = rounded(nn.relu(x), 'second') @ params['second']['kernel'] + params['second']['bias']
    return -(labels * jax.nn.log_softmax(x)).sum(-1).mean()

  def steps_of(state):
    return {name: state.own.trainable[0][name]['call0']['step'] for name in ('first', 'second')}

  gradient = jax.grad(loss)(steps_of(before))
  for name, each in gradient.items():
    assert abs(float(each)) > 1e-5
    np.testing.assert_allclose(steps_of(after)[name] - steps_of(before)[name], -0.1 * each, rtol=0.02, atol=2e-6)


def test_trap_4_steps_have_no_weight_decay_and_stay_positive():
  method = chain(weights(bits=2, scale=scales.lsq), activations(bits=2, scale=scales.lsq))
  (_, decayed), (_, kept) = (run(method, steps=1, weight_decay=each, rate=300.0)[2] for each in (1e-3, 0.0))
  assert np.abs(decayed.params['first']['kernel'] - kept.params['first']['kernel']).max() > 1e-3
  jax.tree.map(np.testing.assert_array_equal, decayed.own.trainable, kept.own.trainable)
  assert all((np.asarray(leaf) > 0).all() for leaf in jax.tree.leaves(kept.own.trainable))


def test_trained_inputs_that_never_saw_a_batch_are_not_stored():
  compressed, _, history = run(activations(bits=4, scale=scales.lsq), steps=0)
  with pytest.raises(ValueError, match="the input range of 'first' was never observed"):
    compressed.transform.finalize(history[0].variables(), history[0].own)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(history[0].own))
