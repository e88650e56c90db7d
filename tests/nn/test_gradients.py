"""Gradients of feature maps that many layers read: the same values, and code that grows with the layers, not faster."""
import re

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import modes
from lightjax.nn.blocks.dense import DenseBlock
from lightjax.nn.gradients import summed_once


def multiplications(layers, wrapper):
  """Of the largest function in the compiled gradient of a small dense block without weights."""

  def block(x):
    for _ in range(layers):
      x = wrapper(x)
      x = jnp.concatenate([x, jnp.maximum(x * x, 1) @ jnp.ones((x.shape[1], 4))], axis=1)
    return jnp.sum(x * x)

  text = jax.jit(jax.grad(block)).lower(jnp.ones((8, 4))).compile().as_text()
  return max(len(re.findall(r' multiply\(', function)) for function in text.split('\n\n'))


def test_code_does_not_grow_with_the_layers_that_read():
  with modes.convolution_mode('lax'):
    assert multiplications(24, summed_once) > multiplications(8, summed_once) + 10  # the reason for it all
  assert multiplications(24, summed_once) == multiplications(8, summed_once)


def test_values_gradients_and_hessian_products_are_those_without_it():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5)), jnp.float32)

  def cubes(wrapper):
    return lambda x: jnp.sum(wrapper(x) ** 3)

  one, other = cubes(summed_once), cubes(lambda x: x)
  assert one(x) == other(x)
  np.testing.assert_array_equal(jax.grad(one)(x), jax.grad(other)(x))
  for function in (lambda f: jax.jvp(jax.grad(f), (x,), (x,))[1], lambda f: jax.grad(lambda x: jnp.sum(
      jax.grad(f)(x) ** 2))(x), lambda f: jax.vmap(jax.grad(f))(x)):
    np.testing.assert_allclose(function(one), function(other), rtol=1e-6)


def test_a_dense_block_has_the_gradients_of_its_lax_form():
  block = DenseBlock(layers=2, growth=4)
  x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5, 5, 6)), jnp.float32)
  variables = block.init(jax.random.key(0), x)

  def loss(params):
    y, _ = block.apply({**variables, 'params': params}, x, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y))

  fast = jax.jit(jax.grad(loss))(variables['params'])
  with modes.convolution_mode('lax'):
    expected = jax.jit(jax.grad(loss))(variables['params'])
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4), fast, expected)
