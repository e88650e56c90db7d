"""Weights on two and three levels as views: rules, latent clipping, progress, what is stored."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import artifact, binarize, prune
from lightjax.binarize import binarizers
from lightjax.core import schedules, trees
from lightjax.core.transform import Context, chain, where
from lightjax.core.typing import Layout
from lightjax.prune import budgets, criteria, patterns
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (2, 6, 6, 3))
KEY = jax.random.key(3)


class Network(nn.Module):
  """Convolutions, one of them depthwise, and dense layers."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(4, (3, 3), name='stem')(x))
    x = nn.Conv(4, (3, 3), feature_group_count=4, name='depthwise')(x)
    x = nn.relu(nn.Conv(8, (3, 3), name='conv')(x))
    x = nn.relu(nn.Dense(40, name='fc')(x.mean((1, 2))))
    return nn.Dense(3, name='head')(x)


VARIABLES = jax.jit(Network().init)(jax.random.key(0), X)


def setup(method):
  compressed = bind(Network(), VARIABLES, method, X)
  return compressed, compressed.init(VARIABLES, key=KEY)


def kernel(variables, name):
  return np.asarray(trees.flatten(variables)[f'{name}/kernel'])


def test_trap_9_scales_are_of_the_output_channels_that_the_graph_names():
  compressed, own = setup(binarize.weights(binarizers.xnor, clip=None))
  view = compressed.transform.view(VARIABLES, own, None)
  for name, axes in (('depthwise', (0, 1, 2)), ('conv', (0, 1, 2)), ('fc', (0,))):
    scale = np.abs(kernel(VARIABLES, name)).mean(axes, keepdims=True)
    np.testing.assert_allclose(np.abs(kernel(view, name)), np.broadcast_to(scale, kernel(view, name).shape), rtol=1e-5)
  for name in ('stem', 'head'):  # by default first and last layer stay as they are
    np.testing.assert_array_equal(kernel(view, name), kernel(VARIABLES, name))


@pytest.mark.parametrize('shape, axes', [((4, 2, 3, 3), (0,)), ((4, 5), (0,)), ((5, 2, 3), (1, 2))])
def test_other_layouts_have_their_own_channels(shape, axes):
  leaf = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
  method = binarize.weights(binarizers.bi_real, clip=None)
  own = method.init({'kernel': leaf}, Context({'kernel': Layout('conv', axes, 0)}, paths=('kernel',)))
  stored = method.finalize({'kernel': leaf}, own).parameters['kernel']
  assert stored.scale.shape == tuple(size if axis in axes else 1 for axis, size in enumerate(shape))


def test_projection_clips_latent_weights_after_the_step_and_the_view_sees_the_clipped_ones():
  compressed, own = setup(binarize.weights(binarizers.xnor, clip=0.1))
  projected = compressed.transform.project(VARIABLES, own)
  np.testing.assert_array_equal(kernel(projected, 'fc'), np.clip(kernel(VARIABLES, 'fc'), -0.1, 0.1))
  np.testing.assert_array_equal(kernel(projected, 'head'), kernel(VARIABLES, 'head'))
  before, after = (compressed.transform.view(each, own, None) for each in (VARIABLES, projected))
  np.testing.assert_array_equal(kernel(before, 'fc'), kernel(after, 'fc'))
  updated, _, _ = compressed.update(VARIABLES, own, step=1)
  assert np.abs(kernel(updated, 'conv')).max() <= np.float32(0.1)


def test_trap_15_layers_draw_other_signs_and_each_key_draws_anew():
  variables = jax.tree.map(jnp.zeros_like, VARIABLES)
  compressed, own = setup(binarize.weights(binarizers.stochastic_binary_connect, clip=1.0))

  def drawn(key, name):
    return kernel(compressed.transform.view(variables, own, key), name).reshape(-1)[:36]

  assert (drawn(KEY, 'conv') != drawn(KEY, 'fc')).any()
  assert (drawn(KEY, 'conv') != drawn(jax.random.key(4), 'conv')).any()
  np.testing.assert_array_equal(drawn(KEY, 'conv'), drawn(KEY, 'conv'))
  np.testing.assert_array_equal(drawn(None, 'conv'), np.zeros(36))


def test_the_progress_of_the_training_moves_the_gradient_and_not_the_value():
  compressed, own = setup(binarize.weights(binarizers.ir_net, clip=None, steps=10))
  assert own.state['progress'] == 0
  late = compressed.update(VARIABLES, own, step=5)[1]
  assert late.state['progress'] == 0.5 and compressed.update(VARIABLES, own, step=20)[1].state['progress'] == 1

  def gradient(own):
    return jax.grad(lambda variables: compressed.transform.view(variables, own, None)['params']['fc']['kernel'][
      0].sum())(VARIABLES)['params']['fc']['kernel']

  assert (gradient(own) != gradient(late)).any()
  early, later = (compressed.transform.view(VARIABLES, each, None) for each in (own, late))
  jax.tree.map(np.testing.assert_array_equal, early, later)


def test_binary_weights_cannot_follow_pruning_and_ternary_ones_can():
  pruned = prune.prune(
    criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.constant(0.5), every=1)
  with pytest.raises(ValueError, match=r"'weights\(xnor\)' does not keep the zeros that .* makes in"):
    setup(chain(pruned, binarize.weights(binarizers.xnor, clip=None)))
  for later in (binarize.weights(binarizers.ternary, clip=None), binarize.trained_ternary()):
    setup(chain(pruned, later))


@pytest.mark.parametrize('call, message', [
  (lambda: binarize.weights(lambda weight, gradient: None, clip=None), "is offered weight, axes, .* not 'gradient'"),
  (lambda: binarize.weights(binarizers.bnn, clip=0.0), r'clip=0\.0 is a positive bound, or None'),
  (lambda: binarize.weights(binarizers.ir_net, clip=None), r'asks for the progress .* steps=None'),
  (lambda: binarize.trained_ternary(threshold=1.0), r'threshold=1\.0 is a ratio'),
])
def test_errors_tell_the_way_out(call, message):
  with pytest.raises(ValueError, match=message):
    call()


# Trained ternary quantization.


def one(leaf, threshold=0.05):
  method = binarize.trained_ternary(threshold=threshold)
  variables = {'kernel': leaf}
  return method, variables, method.init(variables, Context({'kernel': Layout('dense', (1,), 0)}, paths=('kernel',)))


def test_trained_levels_start_at_the_means_and_the_codes_are_the_papers():
  w = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
  method, variables, own = one(jnp.asarray(w), threshold=0.2)
  delta = 0.2 * np.abs(w).max()
  trained = own.trainable['kernel']
  np.testing.assert_allclose(trained['positive'], w[w > delta].mean(), rtol=1e-5)
  np.testing.assert_allclose(trained['negative'], -w[w < -delta].mean(), rtol=1e-5)
  view = np.asarray(method.view(variables, own, None)['kernel'])
  expected = np.where(w > delta, trained['positive'], np.where(w < -delta, -trained['negative'], np.float32(0)))
  np.testing.assert_array_equal(view, expected)


def test_gradients_of_trained_levels_and_of_latent_weights_are_the_papers():
  rng = np.random.default_rng(1)
  w, g = (rng.normal(size=(20, 30)).astype(np.float32) for _ in range(2))
  method, variables, own = one(jnp.asarray(w), threshold=0.2)
  own = own._replace(trainable={'kernel': {'positive': jnp.float32(0.7), 'negative': jnp.float32(0.4)}})

  def loss(variables, trainable):
    return (g * method.view(variables, own._replace(trainable=trainable), None)['kernel']).sum()

  latent, trained = jax.grad(loss, argnums=(0, 1))(variables, own.trainable)
  delta = 0.2 * np.abs(w).max()
  positive, negative = w > delta, w < -delta
  np.testing.assert_allclose(trained['kernel']['positive'], g[positive].sum(), rtol=1e-4)
  np.testing.assert_allclose(trained['kernel']['negative'], -g[negative].sum(), rtol=1e-4)
  scale = np.where(positive, np.float32(0.7), np.where(negative, np.float32(0.4), 1))
  np.testing.assert_allclose(latent['kernel'], g * scale, rtol=1e-6)


# What is stored.

STORED = {
  'binary_connect': 1, 'bnn': 1, 'xnor': 1, 'dorefa': 1, 'bi_real': 1, 'ir_net': 1, 'ternary': 2, 'trained_ternary': 2}


class Wide(nn.Module):
  """One layer that outweighs the header."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(200, use_bias=False, name='fc')(x)


@pytest.mark.parametrize('name', STORED)
def test_a_weight_costs_its_bits_in_the_file_and_comes_back_the_same(name, tmp_path):
  x = jnp.ones((1, 300))
  variables = jax.jit(Wide().init)(jax.random.key(0), x)
  method = binarize.trained_ternary() if name == 'trained_ternary' else binarize.weights(
    getattr(binarizers, name), clip=1.0, steps=10)
  compressed = bind(Wide(), variables, where((('.*', method),), skip=('not_kernel',)), x)
  own = compressed.init(variables)
  compressed.save(tmp_path / 'network.ljx', variables, own)
  stored = artifact.load(tmp_path / 'network.ljx')
  view = np.asarray(trees.flatten(compressed.transform.view(variables, own, None))['fc/kernel'])
  np.testing.assert_array_equal(stored.variables['params']['fc']['kernel'].view(np.int32), view.view(np.int32))
  (size,) = stored.sizes.arrays
  assert size.positions + size.values <= 60_000 * STORED[name] / 8 + 16  # a codebook has its values beside
  assert size.scales <= 4 * 200
  if name != 'trained_ternary':
    assert stored.encoded.parameters['fc/kernel'].bits == STORED[name]


def test_real_weights_of_the_stochastic_ones_are_stored_as_they_are():
  compressed, own = setup(binarize.weights(binarizers.stochastic_binary_connect, clip=1.0))
  assert not compressed.transform.finalize(VARIABLES, own).parameters


def test_weights_from_a_file_are_numpy_arrays_and_welcome():
  variables = jax.tree.map(np.asarray, VARIABLES)
  for method in (binarize.weights(binarizers.xnor, clip=1.0), binarize.trained_ternary()):
    compressed = bind(Network(), variables, method, X)
    own = compressed.init(variables)
    views = (compressed.transform.view(each, own, None) for each in (variables, VARIABLES))
    assert jax.tree.all(jax.tree.map(np.array_equal, *views))
