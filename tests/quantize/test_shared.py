"""Scales that inputs share which an addition joins."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core.transform import where
from lightjax.quantize import activations, formats, scales
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (8, 6))


class Residual(nn.Module):
  """`first` and `second` read the residual stream, `inner` does not."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(6, name='stem')(x))
    x = nn.relu(x + 3 * nn.Dense(6, name='inner')(nn.relu(nn.Dense(6, name='first')(x))))
    return nn.Dense(3, name='second')(x)


@functools.lru_cache
def trained(scale, shared, batches=2):
  variables = jax.jit(Residual().init)(jax.random.key(0), X)
  method = where((('.*/kernel', activations(bits=4, scale=scale, shared=shared)),), skip=('not_kernel',))
  compressed = bind(Residual(), variables, method, X)
  own = compressed.init(variables)

  @jax.jit
  def advance(own, x):
    def loss(trainable):
      output, observed = compressed.apply(variables, own._replace(trainable=trainable), x, observe=True)
      return (output**2).sum(), observed
    gradients, observed = jax.grad(loss, has_aux=True)(own.trainable)
    moved = jax.tree.map(lambda number, gradient: number - 1e-3 * gradient, own.trainable, gradients)
    return compressed.update(variables, own._replace(trainable=moved), step=1, observed=observed)[1]

  for i in range(batches):
    own = advance(own, (i + 1) * X)
  stored = compressed.transform.finalize(variables, own).activations
  return {module: calls[0] for module, calls in stored.items()}, compressed, variables, own


@pytest.mark.parametrize('scale', [scales.min_max, scales.lsq, scales.lsq_plus], ids=lambda scale: scale.__name__)
def test_inputs_of_one_stream_have_one_scale_and_others_their_own(scale):
  alone, together = (trained(scale, shared)[0] for shared in (False, True))
  assert alone['first'] != alone['second']
  assert together['first'] == together['second']
  assert together['inner']['scale'] not in (together['first']['scale'], together['stem']['scale'])
  assert {each['bits'] for each in together.values()} == {4}


def test_the_shared_range_is_the_union():
  alone, together = (trained(scales.min_max, shared)[0] for shared in (False, True))
  # Inputs of `second` are rounded on another grid than alone; ranges before it are the same.
  assert together['first']['scale'] == pytest.approx(max(alone['first']['scale'], alone['second']['scale']), rel=0.15)
  assert together['stem'] == alone['stem']


def test_evaluation_uses_the_shared_scale_and_so_does_the_stored_network():
  stored, compressed, variables, own = trained(scales.min_max, True)
  output = compressed.apply(variables, own, X)
  x = np.asarray(X)

  def rounded(x, name):
    grid, each = formats.affine(4), stored[name]
    scale, zero_point = (jnp.float32(each[name]) for name in ('scale', 'zero_point'))
    return grid.levels(jnp.asarray(x), scale, zero_point, None) * scale

  params = variables['params']

  def dense(x, name):
    return rounded(x, name) @ params[name]['kernel'] + params[name]['bias']

  x = nn.relu(dense(x, 'stem'))
  x = nn.relu(x + 3 * dense(nn.relu(dense(x, 'first')), 'inner'))
  np.testing.assert_allclose(output, dense(x, 'second'), rtol=1e-4, atol=1e-4)


class Tied(nn.Module):
  """A layer whose kernel is used more often than it is called."""

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (6, 6))
    return x @ kernel @ kernel


def test_a_kernel_that_is_used_more_often_than_its_layer_is_called_is_refused():
  variables = jax.jit(Tied().init)(jax.random.key(0), X)
  method = where((('kernel', activations(bits=4, shared=True)),), skip=())
  with pytest.raises(ValueError, match='is called 1 times, but its kernel is used 2 times'):
    bind(Tied(), variables, method, X).init(variables)
