import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lightjax.core import trees


class Linen(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.BatchNorm(use_running_average=True, name='norm')(nn.Dense(3, name='fc')(x))
    return nn.Dense(2, name='value')(x)


def linen():
  return Linen().init(jax.random.key(0), jnp.ones((1, 4)))


def nnx_state():
  model = nnx.Sequential(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
  return nnx.split(model)[1]


def equinox_partition():
  return eqx.partition(eqx.nn.MLP(4, 2, 3, 1, key=jax.random.key(0)), eqx.is_array)[0]


TREES = {
  'linen': (linen, ['fc/bias', 'fc/kernel', 'norm/bias', 'norm/scale', 'value/bias', 'value/kernel']),
  'nnx': (nnx_state, ['layers/0/bias', 'layers/0/kernel', 'layers/1/bias', 'layers/1/kernel']),
  'equinox': (equinox_partition, ['layers/0/bias', 'layers/0/weight', 'layers/1/bias', 'layers/1/weight']),
}


@pytest.mark.parametrize('name', TREES)
def test_parameters_have_the_paths_that_a_user_would_write(name):
  make, paths = TREES[name]
  assert sorted(trees.flatten(make())) == paths


@pytest.mark.parametrize('name', TREES)
def test_replace_exchanges_what_is_named_and_keeps_the_rest_and_the_structure(name):
  make, paths = TREES[name]
  variables = make()
  before = trees.flatten(variables)
  replaced = trees.replace(variables, {paths[1]: before[paths[1]] + 1})
  after = trees.flatten(replaced)
  assert jax.tree.structure(replaced) == jax.tree.structure(variables)
  np.testing.assert_array_equal(after[paths[1]], before[paths[1]] + 1)
  assert all(after[path] is before[path] for path in paths if path != paths[1])
  assert trees.replace(variables, {}) is variables


@pytest.mark.parametrize('name', TREES)
def test_the_whole_paths_of_jax_give_the_same_names(name):
  variables = TREES[name][0]()
  whole = {trees.path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables)}
  assert set(trees.flatten(variables)) <= whole


def test_linens_other_collections_are_no_parameters_and_stay():
  variables = linen()
  replaced = trees.replace(variables, {'fc/bias': jnp.ones(3)})
  assert replaced['batch_stats'] is variables['batch_stats']
  assert trees.parameters(variables) is variables['params']
  assert not trees.has_collections(variables['params'])


def test_modules_called_params_or_value_keep_their_names():
  tree = {'params': {'params': {'kernel': 1}, 'kernel': 2, 'value': {'value': 3}}}
  assert trees.flatten(tree) == {'kernel': 2, 'params/kernel': 1, 'value/value': 3}


def test_a_path_that_is_no_parameter_is_an_error_that_names_the_nearest():
  with pytest.raises(KeyError, match="'fc/kernl' is no parameter of these variables; nearest: 'fc/kernel'"):
    trees.replace(linen(), {'fc/kernl': jnp.ones(3)})


def test_nearest_of_nothing():
  assert trees.nearest('fc', []) == 'none'
