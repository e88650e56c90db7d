import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import graph

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 6, 3)), jnp.float32)


class Block(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.Conv(4, (3, 3), name='conv')(x)
    return nn.relu(nn.BatchNorm(use_running_average=True, name='norm')(x))


class Net(nn.Module):
  divide: bool = False

  @nn.compact
  def __call__(self, x):
    x = Block(name='block0')(x)
    x = nn.remat(Block)(name='block1')(x)
    if self.divide:
      x = x / x.sum() * 0
    return nn.Dense(2, name='fc')(x.mean((1, 2)))


VARIABLES = jax.jit(Net().init)(jax.random.key(0), X)


def changed(collection, block, name, leaf, value):
  return jax.tree_util.tree_map_with_path(
      lambda path, old: jnp.full_like(old, value)
      if [key.key for key in path] == [collection, block, name, leaf] else old, VARIABLES)


def test_a_finite_network_has_no_culprit():
  assert graph.first_nonfinite(Net().apply, VARIABLES, X) is None


@pytest.mark.parametrize('change,message', [
    (('params', 'block1', 'conv', 'kernel', jnp.nan), 'parameter block1/conv/kernel'),
    (('batch_stats', 'block0', 'norm', 'mean', jnp.nan), 'variable batch_stats/block0/norm/mean'),
    (('batch_stats', 'block1', 'norm', 'var', -1.0), 'block1/norm: rsqrt of batch_stats/block1/norm/var'),
    (('params', 'block1', 'conv', 'kernel', 3e38), 'block1/conv: conv_general_dilated of block1/conv/kernel'),
])
def test_the_first_cause_is_named(change, message):
  assert graph.first_nonfinite(Net().apply, changed(*change), X) == message


def test_an_input_is_named():
  assert graph.first_nonfinite(Net().apply, VARIABLES, X.at[0, 0, 0, 0].set(jnp.nan)) == 'input 0'


def test_a_division_of_activations_is_named_by_its_operation():
  dead = changed('params', 'block1', 'norm', 'bias', -1e6)
  assert graph.first_nonfinite(Net(divide=True).apply, dead, X) == 'div'


def test_infinities_that_do_not_reach_the_output_or_stand_in_the_program_are_no_cause():
  def guarded(variables, x):
    inverse = 1 / (x * 0)
    masked = jnp.where(x > 1e9, x, -jnp.inf).at[0].set(0.0)
    return jnp.where(x > -jnp.inf, variables['w'] * jnp.exp(masked), inverse)
  assert graph.first_nonfinite(guarded, {'w': jnp.ones(())}, X) is None


def test_a_nan_made_of_a_masks_infinities_is_named():
  def softmax(variables, x):
    return jax.nn.softmax(jnp.where(x > 1e9, variables['w'] * x, -jnp.inf))
  assert 'sub' in graph.first_nonfinite(softmax, {'w': jnp.ones(())}, X)


def test_a_gradient_can_be_searched_as_well():
  def loss(variables, x):
    return jnp.sqrt((variables['w'] * x).sum())
  assert graph.first_nonfinite(jax.grad(loss), {'w': jnp.zeros(())}, X) is not None
