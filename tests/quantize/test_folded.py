"""Training with BatchNorm folded against networks that are folded by hand."""
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lightjax.core import schedules
from lightjax.core.transform import Context, chain, where
from lightjax.nn.layers import BatchNorm
from lightjax.prune import budgets, criteria, patterns, prune
from lightjax.quantize import activations, folded, formats, granularities, scales, weights
from lightjax.train import optimizers, step
from lightjax.train import state as states
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (4, 6, 6, 8))
EPSILON = 1e-3
# name -> groups, whether the convolution has a bias
CONVS = {'normal': (1, False), 'grouped': (4, True), 'depthwise': (8, False)}


class Network(nn.Module):
  """Each kind of convolution with BatchNorm, then layers without one."""
  norm: type = nn.BatchNorm

  @nn.compact
  def __call__(self, x, train=False):
    for name, (groups, bias) in CONVS.items():
      x = nn.Conv(8, (3, 3), feature_group_count=groups, use_bias=bias, name=name)(x)
      x = nn.relu(self.norm(use_running_average=not train, epsilon=EPSILON, momentum=0.9, name=f'{name}_norm')(x))
    x = nn.relu(nn.Conv(8, (1, 1), name='plain')(x))
    return nn.Dense(3, name='head')(x.mean((1, 2)))


def variables_of(model=None):
  """Statistics as after training; a scale that is negative and one that is zero."""
  variables = jax.jit((model or Network()).init)(jax.random.key(0), X)
  for i, name in enumerate(CONVS):
    keys = jax.random.split(jax.random.key(5 + i), 4)
    draw = [jax.random.normal(key, (8,)) for key in keys]
    variables['batch_stats'][f'{name}_norm'] = {'mean': draw[0], 'var': jnp.exp(draw[1])}
    variables['params'][f'{name}_norm'] = {'scale': draw[2].at[0].set(0.0).at[1].set(-0.7), 'bias': draw[3]}
  return variables


VARIABLES = variables_of()


def by_hand(variables, bits, granularity='channel'):
  """The deployed network: NumPy folds and rounds the kernels, and there is no BatchNorm."""
  params, x = jax.tree.map(np.float64, variables['params']), X
  limit = 2 ** (bits - 1) - 1

  def rounded(kernel):
    axes = tuple(range(kernel.ndim - 1)) if granularity == 'channel' else tuple(range(kernel.ndim))
    scale = np.abs(kernel).max(axes, keepdims=True) / limit
    scale = np.where(scale > 0, scale, 1)
    return np.round(kernel / scale) * scale

  for name, (groups, bias) in CONVS.items():
    norm, statistics = params[f'{name}_norm'], jax.tree.map(np.float64, variables['batch_stats'][f'{name}_norm'])
    factor = norm['scale'] / np.sqrt(statistics['var'] + EPSILON)
    kernel = rounded(params[name]['kernel'] * factor)
    shift = norm['bias'] + ((params[name]['bias'] if bias else 0) - statistics['mean']) * factor
    x = nn.relu(lax.conv_general_dilated(
      x, jnp.float32(kernel), (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups) + jnp.float32(shift))
  x = nn.relu(x @ jnp.float32(rounded(params['plain']['kernel'])[0, 0]) + params['plain']['bias'])
  return x.mean((1, 2)) @ jnp.float32(rounded(params['head']['kernel'])) + params['head']['bias']


def everywhere(method):
  return where((('.*', method),), skip=('not_kernel',))


def setup(method, model=None, variables=None):
  compressed = bind(model or Network(), variables or VARIABLES, everywhere(method), X)
  return compressed, compressed.init(variables or VARIABLES, key=jax.random.key(3))


@pytest.mark.parametrize('norm', [nn.BatchNorm, BatchNorm], ids=['flax', 'lightjax'])
@pytest.mark.parametrize('bits', [8, 3])
def test_trap_18_evaluation_is_that_of_the_folded_network(bits, norm):
  compressed, own = setup(folded(weights(bits=bits)), Network(norm))
  np.testing.assert_allclose(compressed.apply(VARIABLES, own, X), by_hand(VARIABLES, bits), rtol=1e-4, atol=1e-4)


def test_trap_18_a_scale_for_the_whole_folded_kernel():
  compressed, own = setup(folded(weights(bits=5, granularity=granularities.tensor)))
  # A channel whose factor is zero is not scaled: its kernel would set the scale of the others, unlike in `by_hand`.
  scale = VARIABLES['params']['normal_norm']['scale']
  assert float(scale[0]) == 0
  quiet = jax.tree.map(lambda leaf: leaf, VARIABLES)
  for name in CONVS:
    quiet['params'][name]['kernel'] = quiet['params'][name]['kernel'].at[..., 0].multiply(1e-3)
  output = compressed.apply(quiet, own, X)
  np.testing.assert_allclose(output, by_hand(quiet, 5, 'tensor'), rtol=1e-4, atol=1e-4)


def test_what_is_stored_decodes_to_the_view_of_evaluation_to_the_last_bit():
  grids = {'groups': {'granularity': granularities.group(4)}, 'lsq': {'scale': scales.lsq},
           'tensor': {'granularity': granularities.tensor, 'format': formats.affine}}
  for name, options in grids.items():
    compressed, own = setup(folded(weights(bits=4, **options)))
    view, training = (each['params'] for each in jax.jit(lambda own, transform=compressed.transform: (
      transform.view(VARIABLES, own, None), transform.view(VARIABLES, own, jax.random.key(0))))(own))
    stored = compressed.transform.finalize(VARIABLES, own).parameters
    assert set(stored) == {f'{each}/kernel' for each in (*CONVS, 'plain', 'head')}
    for path, integers in stored.items():
      module = path.partition('/')[0]
      np.testing.assert_array_equal(integers.decode(), view[module]['kernel'], err_msg=f'{name} {path}')
      np.testing.assert_allclose(integers.decode(), training[module]['kernel'], rtol=5e-7, atol=0)


def test_gradients_reach_kernels_as_they_are_and_norms_only_through_the_norm():
  compressed, own = setup(folded(weights(bits=8)))

  def loss(params, through_view):
    view = compressed.transform.view({**VARIABLES, 'params': params}, own, None)
    seen = view if through_view else {**VARIABLES, 'params': params}
    return sum((leaf * (1 + jnp.arange(leaf.size).reshape(leaf.shape) % 3)).sum()
               for leaf in jax.tree.leaves(seen['params']))

  viewed, plain = (jax.jit(jax.grad(loss), static_argnums=1)(VARIABLES['params'], each) for each in (True, False))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), viewed, plain)


def test_pruning_inside_keeps_its_zeros_and_leaves_the_rest_to_the_last_bit():
  sparse = prune(criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.constant(0.5), every=1)
  method = everywhere(folded(chain(sparse, weights(bits=4))))
  compressed = bind(Network(), VARIABLES, method, X)
  own = compressed.init(VARIABLES)
  own = method.update(VARIABLES, own, Context(compressed.layouts, step=1))
  view, projected = method.view(VARIABLES, own, None)['params'], method.project(VARIABLES, own)['params']
  masks = method.support(own)
  for path, mask in masks.items():
    name = path.partition('/')[0]
    before = VARIABLES['params'][name]['kernel']
    assert abs(float(jnp.mean(mask)) - 0.5) < 0.02
    assert not np.asarray(view[name]['kernel'])[~np.asarray(mask)].any()
    np.testing.assert_array_equal(projected[name]['kernel'], np.where(mask, before, 0))


def test_statistics_stand_still_from_the_step_that_is_named():
  model = Network(BatchNorm)
  method = everywhere(chain(folded(weights(bits=8), freeze=2), activations(bits=8)))
  compressed = bind(model, VARIABLES, method, X)
  optimizer = optimizers.optimizer(optimizers.sgd, lambda _: 0.01, momentum=0.0)
  state = states.create(VARIABLES, compressed.init(VARIABLES), optimizer, averaged=False)
  advance = jax.jit(step.training_step(compressed, optimizer, prepare=lambda key, images: images))
  statistics = []
  for _ in range(4):
    state = advance(state, jax.random.key(0), X, jnp.arange(4) % 3)
    statistics.append(state.collections['batch_stats'])
  moved = [any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
           for pair in itertools.pairwise(statistics)]
  assert moved == [True, False, False]  # steps 0 and 1 move them
  frozen = compressed.apply(state.variables(), state.own, X, observe=True, train=True, mutable=['batch_stats'])[0][0]
  # A training pass is then one of evaluation, but for the ranges of activations, which move with the batch.
  np.testing.assert_allclose(frozen, compressed.apply(state.variables(), state.own, X), atol=0.05)


def test_a_frozen_step_is_the_same_with_the_norms_of_flax_and_of_the_library():
  """Flax's norm is asked for both results, of which one is taken; the library's takes other statistics."""
  def everything(norm):
    compressed = bind(Network(norm), VARIABLES, everywhere(folded(weights(bits=8), freeze=2)), X)
    own = compressed.init(VARIABLES)

    @jax.jit
    def step(params, own, x):
      def loss(params):
        (y, moved), _ = compressed.apply(
          {**VARIABLES, 'params': params}, own, x, observe=True, train=True, mutable=['batch_stats'])
        return (y**2).sum(), (y, moved)
      return jax.grad(loss, has_aux=True)(params)

    moving = step(VARIABLES['params'], own, X)
    return moving, step(VARIABLES['params'], compressed.update(VARIABLES, own, step=2)[1], X)

  flax, ours = everything(nn.BatchNorm), everything(BatchNorm)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3), ours, flax)
  np.testing.assert_array_equal(
    ours[1][1][1]['batch_stats']['normal_norm']['mean'], VARIABLES['batch_stats']['normal_norm']['mean'])
  assert np.abs(ours[0][1][0] - ours[1][1][0]).max() > 0.01


class Shared(nn.Module):
  """A convolution that is used twice, with a norm after each use; one with a function before its norm."""

  @nn.compact
  def __call__(self, x, train=False):
    conv = nn.Conv(8, (3, 3), use_bias=False, name='conv')
    for i in range(2):
      x = nn.BatchNorm(use_running_average=not train, name=f'norm{i}')(conv(x))
    x = nn.relu(nn.Conv(8, (1, 1), name='late')(x))
    return nn.BatchNorm(use_running_average=not train, name='norm2')(x).mean((1, 2))


def test_a_norm_after_a_function_is_not_folded_and_a_kernel_of_two_norms_is_refused():
  variables = jax.jit(Shared().init)(jax.random.key(0), X)
  late = where((('late/kernel', folded(weights(bits=8))),), skip=('not_kernel',))
  plain = where((('late/kernel', weights(bits=8)),), skip=('not_kernel',))
  outputs = []
  for method in (late, plain):
    compressed = bind(Shared(), variables, method, X)
    outputs.append(compressed.apply(variables, compressed.init(variables), X))
  np.testing.assert_array_equal(*outputs)
  both = bind(Shared(), variables, everywhere(folded(weights(bits=8))), X)
  with pytest.raises(ValueError, match="'conv/kernel' is used 2 times, which cannot all be folded"):
    both.init(variables)


def test_a_transform_of_activations_inside_is_refused():
  with pytest.raises(ValueError, match='only transforms of kernels are folded; put that of activations beside it'):
    setup(folded(chain(weights(bits=8), activations(bits=8))))


def test_params_alone_are_refused():
  compressed, own = setup(folded(weights(bits=8)))
  with pytest.raises(ValueError, match='needs the variables with their collections'):
    compressed.transform.view({'params': VARIABLES['params']}, own, None)
