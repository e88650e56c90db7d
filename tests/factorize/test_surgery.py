"""Networks on factors compute what they compute on the products, in every mode, and are stored as they are."""
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import artifact, factorize, graph, measure
from lightjax.core import trees
from lightjax.factorize import ranks
from lightjax.graph.factored import FactorError
from lightjax.nn.layers import Conv

X = jax.random.normal(jax.random.key(1), (2, 9, 8, 3))


class Network(nn.Module):
  """Strides, dilation, uneven padding, groups, a cast, several axes, a kernel used twice, a transposed product."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(6, (3, 3), name='stem')(x))
    x = Conv(8, (3, 3), strides=(2, 1), name='strided')(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name='norm')(x))
    x = nn.Conv(8, (2, 3), kernel_dilation=(1, 2), padding=((1, 0), (2, 2)), name='dilated')(x)
    twice = nn.Conv(8, (3, 3), name='twice')
    x = twice(nn.relu(twice(x)))
    x = nn.Conv(8, (3, 3), feature_group_count=4, name='grouped')(x)
    x = nn.relu(nn.Conv(6, (1, 1), strides=2, name='pointwise')(x))
    x = nn.DenseGeneral((2, 5), axis=(-2, -1), name='general')(x)
    x = jax.nn.softmax(x.reshape(x.shape[0], -1, 10))
    x = nn.Dense(7, name='cast', dtype=jnp.float32)(x.mean(1))
    left = self.param('left', nn.initializers.normal(1.0), (5, 7))
    x = (left @ x.T).T
    return nn.Dense(3, name='head')(x)


MODEL = Network()
VARIABLES = MODEL.init(jax.random.key(0), X)
SPLIT = (
  'strided/kernel', 'dilated/kernel', 'twice/kernel', 'pointwise/kernel', 'general/kernel', 'cast/kernel', 'left')


def made(method='tucker2', rule=None, **options):
  return factorize.factorize(
    MODEL.apply, VARIABLES, X, method=method, ranks=rule or ranks.budget(0.6), **options)


@pytest.fixture(scope='module', params=['channel', 'spatial', 'tucker2'])
def smaller(request):
  at = {'tucker2': (3, 4)}.get(request.param, (3,))
  plain = ('pointwise/kernel', 'general/kernel', 'cast/kernel', 'left')
  return made(request.param, ranks.by_path([(path, (3,) if path in plain else at) for path in SPLIT]))


def test_every_kernel_that_can_be_split_is_found_and_the_others_say_why():
  used = graph.uses(MODEL.apply, VARIABLES, X)
  assert [path for path, use in used.items() if not use.obstacle] == ['stem/kernel', *SPLIT, 'head/kernel']
  assert used['grouped/kernel'].obstacle == 'conv_general_dilated in grouped'
  assert len(used['twice/kernel'].extents) == 2
  assert used['left'].input_axes == (1,) and used['general/kernel'].output_axes == (2, 3)


def test_the_layers_compute_what_the_products_do(smaller):
  for train in (False, True):
    options = {'train': True, 'mutable': ['batch_stats']} if train else {}
    expected = MODEL.apply(smaller.factorization.product(smaller.variables), X, **options)
    found = jax.jit(lambda variables, x, options=options: smaller.apply(variables, x, **options))(smaller.variables, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
  np.testing.assert_allclose(  # another batch size
    smaller.apply(smaller.variables, X[:1]), MODEL.apply(smaller.factorization.product(smaller.variables), X[:1]),
    rtol=1e-4, atol=1e-5)


def test_gradients_act_on_the_factors_and_are_those_of_the_view(smaller):
  def through(apply):
    return jax.jit(jax.grad(lambda params: (apply({**smaller.variables, 'params': params}, X)**2).sum()))(
      smaller.variables['params'])

  found = through(smaller.apply)
  expected = through(lambda variables, x: MODEL.apply(smaller.factorization.product(variables), x))
  assert {'first', 'second'} <= set(found['strided']['kernel'])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected)


def test_macs_and_params_are_what_the_plan_says(smaller):
  layers, at = smaller.factorization.layers, smaller.factorization.ranks
  before = measure.count((MODEL.apply, VARIABLES), X.shape[1:])
  after = measure.count((smaller.apply, smaller.variables), X.shape[1:])
  for cost in ('macs', 'params'):
    saved = sum(getattr(layer.whole, cost) - getattr(layer.option(at[path], 0.0), cost)
                for path, layer in layers.items())
    assert getattr(after, cost) == getattr(before, cost) - saved


def test_full_ranks_change_nothing():
  for method in ('channel', 'spatial', 'tucker2'):
    full = made(method, lambda network: {
      path: layer.options(network.kernels[path])[-1].ranks for path, layer in network.layers.items()})
    np.testing.assert_allclose(full.apply(full.variables, X), MODEL.apply(VARIABLES, X), rtol=1e-3, atol=1e-4)


def test_it_is_stored_as_factors_and_plain_data(smaller, tmp_path):
  spec = json.loads(json.dumps({'factorization': smaller.factorization.to_json()}))
  artifact.save(tmp_path / 'network.ljx', network=spec, variables=smaller.variables)
  stored = artifact.load(tmp_path / 'network.ljx')
  again = factorize.Factorization.from_json(stored.network['factorization'])
  np.testing.assert_array_equal(
    again.apply(MODEL.apply)(stored.variables, X), smaller.apply(smaller.variables, X))
  with pytest.raises(FactorError, match='this is no factorization as to_json wrote it'):
    factorize.Factorization.from_json({'fc': {'decomposition': 'magic', 'shape': [2], 'ranks': [1], 'use': []}})


def test_shapes_alone_are_split_as_arrays_are(smaller):
  shapes = jax.eval_shape(lambda: VARIABLES)
  found = smaller.factorization.split(shapes)
  assert jax.tree.map(lambda leaf: leaf.shape, found) == jax.tree.map(lambda leaf: leaf.shape, smaller.variables)


def test_a_budget_holds_over_the_whole_network_and_a_loss_may_choose():
  target = MODEL.apply(VARIABLES, X)
  before = measure.count((MODEL.apply, VARIABLES), X.shape[1:]).macs

  def loss(variables):
    return ((MODEL.apply(variables, X) - target)**2).mean()

  for rule in (ranks.budget(0.7), ranks.sensitivity(0.7, levels=2)):
    network = made('spatial', rule, loss=loss)
    assert measure.count((network.apply, network.variables), X.shape[1:]).macs <= 0.7 * before


def test_zeros_of_a_pruned_kernel_are_not_lost_silently():
  keep = jax.random.permutation(jax.random.key(3), jnp.arange(576)).reshape(3, 3, 8, 8) % 2
  pruned = trees.replace(VARIABLES, {'twice/kernel': keep * trees.flatten(VARIABLES)['twice/kernel']})
  with pytest.raises(FactorError, match=r'twice/kernel has 288 zeros, .*; factorize before pruning'):
    factorize.factorize(MODEL.apply, pruned, X, method='channel', ranks=ranks.by_path([('twice/kernel', 3)]))
  without = trees.replace(VARIABLES, {  # whole channels at zero stay at zero
    'twice/kernel': trees.flatten(VARIABLES)['twice/kernel'].at[..., 2:4].set(0)})
  factorize.factorize(MODEL.apply, without, X, method='channel', ranks=ranks.by_path([('twice/kernel', 3)]))


@pytest.mark.parametrize(('options', 'message'), [
  ({'only': ('grouped/kernel',)}, 'asks for grouped/kernel, which can not be split: it is read by conv_general_dil'),
  ({'only': ('stem/kernel',)}, 'a default leaves it whole'), ({'only': ('norm/scale',)}, 'read by reshape in norm'),
  ({'exclude': ('conv9/.*',)}, "exclude: 'conv9/.\\*' matches no parameter"),
  ({'rule': ranks.by_path([('left', 9)])}, r'left: ranks \(9,\) for channel; there are 1, of 1..\(5,\)'),
  ({'rule': lambda network: {}}, 'leaves every layer whole'), ({'method': 'magic'}, "method='magic'.*'tucker2'"),
  ({'exclude': SPLIT}, 'no kernel can be split'),
])
def test_mistakes_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    made(**options)
