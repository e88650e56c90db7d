"""Binary inputs of layers: what the forward pass sees, where gradients end, what is stored."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import binarize
from lightjax.binarize import estimators
from lightjax.core.transform import chain, where
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (8, 6))
EVERY = ('not_kernel',)


class Watched(nn.Module):
  """A layer that shows what it is given."""

  @nn.compact
  def __call__(self, x):
    self.sow('intermediates', 'input', x)
    return x @ self.param('kernel', nn.initializers.lecun_normal(), (6, 6))


class Twice(nn.Module):
  """A layer that is called twice, and one that is called once."""
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    shared = (nn.remat(nn.Dense) if self.remat else nn.Dense)(6, name='shared')
    return nn.Dense(3, name='head')(shared(shared(x)))


class MoreInTraining(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    shared = nn.Dense(6, name='shared')
    return nn.Dense(3, name='head')(shared(shared(x)) if train else shared(x))


class Step(nn.Module):
  @nn.compact
  def __call__(self, carry, _):
    return nn.Dense(6, name='fc')(carry), None


class Scanned(nn.Module):
  @nn.compact
  def __call__(self, x):
    scan = nn.scan(Step, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)
    return nn.Dense(3, name='head')(scan(name='scan')(x, None)[0])


def setup(model, estimator=estimators.hard_tanh, pattern='.*/kernel', **options):
  variables = jax.jit(model.init)(jax.random.key(0), X)
  method = where(((pattern, binarize.activations(estimator, **options)),), skip=EVERY)
  compressed = bind(model, variables, method, X)
  return compressed, variables, compressed.init(variables)


def reference(variables, x):
  """Twice, in NumPy."""
  def layer(name, x):
    each = variables['params'][name]
    return np.where(np.asarray(x) >= 0, 1, -1) @ np.asarray(each['kernel']) + np.asarray(each['bias'])
  return layer('head', layer('shared', layer('shared', x)))


@pytest.mark.parametrize('remat', [False, True])
def test_every_call_of_a_layer_sees_signs(remat):
  compressed, variables, own = setup(Twice(remat))
  output = jax.jit(compressed.apply)(variables, own, X)
  np.testing.assert_allclose(output, reference(variables, X), rtol=1e-5, atol=1e-6)


def test_the_layer_sees_two_values_and_zero_as_plus():
  compressed, variables, own = setup(Watched(), pattern='kernel')
  _, seen = compressed.apply(variables, own, X.at[0, 0].set(0.0), mutable=['intermediates'])
  values = np.asarray(seen['intermediates']['input'][-1])
  assert set(np.unique(values)) == {-1, 1} and values[0, 0] == 1


def test_units_are_dorefas_rounded_clip_and_are_stored_as_such():
  """quantize_1(clip(x, 0, 1)) = round(clip(x, 0, 1)); the frozen interceptor gives the same."""
  compressed, variables, own = setup(Watched(), estimators.unit, pattern='kernel')
  x = 2 * X
  expected = np.floor(np.clip(np.asarray(x), 0, 1) + 0.5) @ np.asarray(variables['params']['kernel'])
  np.testing.assert_allclose(compressed.apply(variables, own, x), expected, rtol=1e-5, atol=1e-6)
  stored = compressed.transform.finalize(variables, own).activations
  assert stored == {'': [{'bits': 1, 'levels': 'unit'}]}
  with nn.intercept_methods(binarize.frozen_interceptor(stored)):
    np.testing.assert_array_equal(Watched().apply(variables, x), compressed.apply(variables, own, x))


def test_an_estimator_of_other_values_is_refused_since_they_could_not_be_stored():
  with pytest.raises(ValueError, match='neither \\+1 where x >= 0 and -1 elsewhere nor 1 where'):
    binarize.activations(lambda x: estimators.hard_tanh(x - 0.3))


class Scaled(nn.Module):
  """A convolution and a dense layer, both with a bias."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(4, (3, 2), strides=(2, 1), padding='SAME', name='conv')(x)
    return nn.Dense(3, name='head')(x.mean((1, 2)))


def test_outputs_are_scaled_by_the_mean_size_of_the_inputs_that_each_place_sees():
  """XNOR-Net's K = A * k, k = 1 / (w h), A the mean |x| over channels, by loops in NumPy; biases are not scaled."""
  x = np.asarray(jax.random.normal(jax.random.key(3), (2, 5, 6, 3)))
  variables = jax.jit(Scaled().init)(jax.random.key(0), x)
  variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
  method = where((('.*', binarize.activations(estimators.hard_tanh, scaled=True)),), skip=EVERY)
  compressed = bind(Scaled(), variables, method, x)
  own = compressed.init(variables)
  params = jax.tree.map(np.float64, variables['params'])

  sizes = np.pad(np.abs(np.float64(x)).mean(-1), ((0, 0), (1, 1), (0, 1)))  # SAME of a 3x2 window at strides (2, 1)
  signs = np.pad(np.where(x >= 0, 1.0, -1.0), ((0, 0), (1, 1), (0, 1), (0, 0)))
  y = np.zeros((2, 3, 6, 4))
  for i, j in np.ndindex(3, 6):
    scale = sizes[:, 2 * i:2 * i + 3, j:j + 2].sum((1, 2)) / 6
    product = np.einsum('bhwc,hwco->bo', signs[:, 2 * i:2 * i + 3, j:j + 2], params['conv']['kernel'])
    y[:, i, j] = product * scale[:, None] + params['conv']['bias']
  y = y.mean((1, 2))
  expected = (np.where(y >= 0, 1, -1) @ params['head']['kernel']) * np.abs(y).mean(-1, keepdims=True) + (
    params['head']['bias'])
  simulated = jax.jit(compressed.apply)(variables, own, x)
  np.testing.assert_allclose(simulated, expected, rtol=1e-4, atol=1e-5)

  stored = compressed.transform.finalize(variables, own).activations
  assert stored['conv'] == [{'bits': 1, 'scaled': True}]

  @jax.jit
  def frozen(variables, x):
    with nn.intercept_methods(binarize.frozen_interceptor(stored)):
      return Scaled().apply(variables, x)

  np.testing.assert_array_equal(frozen(variables, x), simulated)
  gradient = jax.jit(jax.grad(lambda x: compressed.apply(variables, own, x).sum()))(jnp.full_like(x, 2.0))
  assert np.abs(gradient).min() > 0  # beyond the sign's gradient that of the scale is left


@pytest.mark.parametrize('estimator, slope', [
  (estimators.identity, lambda x: np.ones_like(x)), (estimators.hard_tanh, lambda x: np.abs(x) <= 1),
  (estimators.polynomial, lambda x: np.maximum(2 - 2 * np.abs(x), 0)),
])
def test_the_gradient_of_the_input_is_the_estimators(estimator, slope):
  compressed, variables, own = setup(Watched(), estimator, pattern='kernel')
  gradient = jax.jit(jax.grad(lambda x: compressed.apply(variables, own, x).sum()))(X)
  expected = np.asarray(variables['params']['kernel']).sum(-1) * slope(np.asarray(X))
  np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_progress_reaches_the_forward_pass():
  compressed, variables, own = setup(Watched(), estimators.error_decay, pattern='kernel', steps=4)
  assert jax.tree.leaves(own.state) == [0]
  for step, progress in ((2, 0.5), (9, 1.0)):
    _, observed = compressed.apply(variables, own, X, observe=True)
    own = compressed.update(variables, own, step=step, observed=observed)[1]
    assert jax.tree.leaves(own.state) == [progress]
    gradient = jax.grad(lambda x, own=own: compressed.apply(variables, own, x).sum())(X)
    t = 0.1 * 100**progress
    slope = max(1 / t, 1) * t * (1 - np.tanh(t * np.asarray(X, np.float64)) ** 2)
    expected = np.asarray(variables['params']['kernel']).sum(-1) * slope
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('model', [Twice(), Twice(remat=True)], ids=['plain', 'remat'])
def test_the_frozen_interceptor_gives_the_simulations_output_to_the_last_bit(model):
  compressed, variables, own = setup(model)
  stored = compressed.transform.finalize(variables, own).activations
  assert stored == {'shared': [{'bits': 1}, {'bits': 1}], 'head': [{'bits': 1}]}

  @jax.jit
  def frozen(variables, x):
    with nn.intercept_methods(binarize.frozen_interceptor(stored)):
      return model.apply(variables, x)

  np.testing.assert_array_equal(frozen(variables, X), jax.jit(compressed.apply)(variables, own, X))


def test_layers_with_more_bits_are_left_to_others():
  frozen = {'a': [{'bits': 1}], 'b': [{'scale': 0.1, 'zero_point': 0, 'bits': 8}]}
  assert binarize.binary_modules(frozen) == {'a'}


def test_two_stages_that_take_one_input_are_refused_when_it_is_stored():
  model = Twice()
  variables = jax.jit(model.init)(jax.random.key(0), X)
  method = chain(*[where((('.*', binarize.activations(estimators.hard_tanh)),), skip=EVERY)] * 2)
  compressed = bind(model, variables, method, X)
  with pytest.raises(ValueError, match="'shared' is stored by two stages"):
    method.finalize(variables, compressed.init(variables))


def test_errors_tell_the_way_out():
  with pytest.raises(ValueError, match="does not reach the layer of 'scan/fc/kernel'"):
    setup(Scanned())
  with pytest.raises(ValueError, match=r'asks for the progress .* steps=None'):
    binarize.activations(estimators.error_decay)
  compressed, variables, own = setup(MoreInTraining())
  with pytest.raises(ValueError, match="'shared' was called less often at init than here, call1 is new"):
    compressed.apply(variables, own, X, observe=True, train=True)
