"""Terms that drive structure, and statistics that are estimated again, against NumPy and closed forms."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import graph
from lightjax.prune import regularizers, statistics, surgery


class Network(nn.Module):
  momentum: float = 0.9

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(nn.Dense(6)(x))
    return nn.Dense(2)(nn.relu(x))


@pytest.fixture(scope='module')
def network():
  x = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32) + 1
  variables = Network().init(jax.random.key(0), x)
  variables['params']['BatchNorm_0']['scale'] = jnp.array([1.0, -2, 0, 0.5, 1, 1])
  return variables, x, graph.channels(Network().apply, variables, x)


def test_terms_are_the_papers(network):
  variables, _, coupling = network
  kernel = np.asarray(variables['params']['Dense_0']['kernel'])
  groups = coupling.prunable
  np.testing.assert_allclose(regularizers.batch_norm_l1(variables, groups, strength=0.1), 0.55, rtol=1e-6)
  np.testing.assert_allclose(
    regularizers.group_lasso(variables, groups, strength=0.5),
    0.5 * np.sqrt(5) * np.sqrt((kernel ** 2).sum(0)).sum(), rtol=1e-5)
  readers = np.asarray(variables['params']['Dense_1']['kernel'])
  np.testing.assert_allclose(
    regularizers.group_lasso(variables, groups, strength=1.0, roles=('producer', 'consumer')),
    np.sqrt(7) * np.sqrt((kernel ** 2).sum(0) + (readers ** 2).sum(1)).sum(), rtol=1e-5)
  kept = {'Dense_0': np.array([True, False, True, True, False, True])}
  np.testing.assert_allclose(
    regularizers.growing(variables, groups, kept, strength=2.0), (kernel[:, [1, 4]] ** 2).sum(), rtol=1e-5)
  # The params alone do as well.
  np.testing.assert_allclose(regularizers.batch_norm_l1(variables['params'], groups, strength=0.1), 0.55, rtol=1e-6)


def test_gradients(network):
  variables, _, coupling = network
  groups = coupling.prunable
  kept = {'Dense_0': np.array([True, False, True, True, False, True])}
  gradient = jax.grad(lambda variables: regularizers.growing(variables, groups, kept, strength=2.0))(variables)
  kernel = np.array(variables['params']['Dense_0']['kernel'])
  np.testing.assert_allclose(
    gradient['params']['Dense_0']['kernel'], 2 * kernel * ~kept['Dense_0'], rtol=1e-5)
  kernel[:, 2] = 0  # a unit that is gone: no NaN
  zeroed = {**variables, 'params': {**variables['params'], 'Dense_0': {
    **variables['params']['Dense_0'], 'kernel': jnp.asarray(kernel)}}}
  gradient = jax.jit(jax.grad(lambda variables: regularizers.group_lasso(variables, groups, strength=1.0)))(zeroed)
  norms = np.maximum(np.sqrt((kernel ** 2).sum(0)), 1e-30)
  np.testing.assert_allclose(
    gradient['params']['Dense_0']['kernel'], np.sqrt(5) * kernel / norms, rtol=1e-5, atol=1e-7)


def test_groups_without_a_scale_are_refused():
  def plain(variables, x):
    return jax.nn.relu(x @ variables['up']) @ variables['down']

  variables = {'up': np.ones((3, 4)), 'down': np.ones((4, 2))}
  groups = graph.channels(plain, variables, np.ones((1, 3))).prunable
  with pytest.raises(ValueError, match='no BatchNorm scale'):
    regularizers.batch_norm_l1(variables, groups, strength=1.0)


def moved(model_apply):
  return lambda variables, x: model_apply(variables, x, train=True, mutable=['batch_stats'])[1]['batch_stats']


@pytest.mark.parametrize('momentum', [0.9, 0.5])
def test_statistics_are_those_of_all_examples(network, momentum):
  """Batches of equal size: the moments of the first layer's outputs over all examples, whatever the momentum."""
  variables, x, _ = network
  found = statistics.reestimate(moved(Network(momentum).apply), variables, np.split(x, 4))
  dense = variables['params']['Dense_0']
  outputs = x @ np.asarray(dense['kernel']) + np.asarray(dense['bias'])
  np.testing.assert_allclose(found['batch_stats']['BatchNorm_0']['mean'], outputs.mean(0), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found['batch_stats']['BatchNorm_0']['var'], outputs.var(0), rtol=1e-4)
  assert found['params'] is variables['params']


def test_statistics_of_a_smaller_network_are_the_masked_ones_left(network):
  variables, x, coupling = network
  kept = {'Dense_0': np.array([True, False, True, True, False, True])}
  removed = surgery.remove(Network().apply, coupling, variables, kept)
  smaller = statistics.reestimate(moved(removed.apply), removed.variables, np.split(x, 2))
  whole = statistics.reestimate(moved(Network().apply), variables, np.split(x, 2))
  for name in ('mean', 'var'):
    np.testing.assert_allclose(
      smaller['batch_stats']['BatchNorm_0'][name], whole['batch_stats']['BatchNorm_0'][name][kept['Dense_0']],
      rtol=1e-5, atol=1e-6)


def test_statistics_that_cannot_be_estimated(network):
  variables, x, _ = network
  with pytest.raises(ValueError, match='there are no batches'):
    statistics.reestimate(moved(Network().apply), variables, [])
  with pytest.raises(ValueError, match="no 'batch_stats'"):
    statistics.reestimate(moved(Network().apply), {'params': variables['params']}, [x])
  with pytest.raises(ValueError, match='BatchNorm_0/mean does not move'):
    statistics.reestimate(lambda variables, x: variables['batch_stats'], variables, [x])
