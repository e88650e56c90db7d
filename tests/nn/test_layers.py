import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.nn import layers
from lightjax.nn.blocks.inverted_residual import InvertedResidual
from lightjax.nn.blocks.residual import BasicBlock, subsample_and_pad

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 7, 4)), jnp.float32)


@pytest.mark.parametrize('arguments', [
    dict(kernel_size=(3, 3), feature_group_count=4),
    dict(kernel_size=(3, 5), strides=2, feature_group_count=4, padding='CIRCULAR'),
    dict(kernel_size=(3, 3), strides=(2, 1), feature_group_count=2, use_bias=False, padding=1),
    dict(kernel_size=(3, 3), feature_group_count=4, kernel_dilation=2),
    dict(kernel_size=(2, 2), dtype=jnp.bfloat16, padding='VALID'),
    dict(kernel_size=(3,), padding='CAUSAL'),
], ids=str)
def test_conv_is_flax_conv(arguments):
  ours = layers.Conv(8 - 4 * ('feature_group_count' in arguments), **arguments)
  theirs = nn.Conv(ours.features, **arguments)
  variables = theirs.init(jax.random.key(1), X)
  mine = ours.init(jax.random.key(1), X)
  assert jax.tree.structure(mine) == jax.tree.structure(variables)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), mine, variables))
  mine, wanted = jax.jit(ours.apply)(variables, X), jax.jit(theirs.apply)(variables, X)
  assert mine.dtype == wanted.dtype
  np.testing.assert_allclose(mine.astype(jnp.float32), wanted.astype(jnp.float32), rtol=1e-5, atol=1e-5)


def test_batch_norm_moves_a_tenth_towards_the_batch_and_divides_by_its_deviation():
  norm = layers.BatchNorm(use_running_average=False)
  y, variables = norm.apply(norm.init(jax.random.key(0), X), X, mutable='batch_stats')
  x = np.asarray(X, np.float64)
  np.testing.assert_allclose(variables['batch_stats']['mean'], 0.1 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(variables['batch_stats']['var'], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)
  np.testing.assert_allclose(
      y, (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5), rtol=1e-3, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_with_float32_parameters_and_statistics():
  block = layers.ConvNorm(8, dtype=jnp.bfloat16)
  (y, variables) = block.init_with_output(jax.random.key(0), X, True)
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert set(variables['params']) == {'conv', 'norm'}


@given(st.floats(0.5, 2000), st.sampled_from([1, 4, 8]))
def test_make_divisible_is_a_multiple_not_far_from_the_wish(channels, divisor):
  made = layers.make_divisible(channels, divisor)
  assert made % divisor == 0
  assert made >= 0.9 * channels
  assert made <= max(divisor, channels + divisor)


def test_the_identity_shortcut_takes_every_second_pixel_and_appends_zeros():
  y = subsample_and_pad(X, strides=2, features=7)
  np.testing.assert_array_equal(y[..., :4], np.asarray(X)[:, ::2, ::2])
  np.testing.assert_array_equal(y[..., 4:], 0)
  with pytest.raises(ValueError, match='from 4 to 3 channels'):
    subsample_and_pad(X, strides=1, features=3)


@pytest.mark.parametrize('strides,features', [(1, 4), (2, 8)])
def test_a_block_with_zero_convolutions_is_its_shortcut(strides, features):
  block = BasicBlock(features, strides)
  variables = block.init(jax.random.key(0), X)
  variables = {**variables, 'params': jax.tree.map(jnp.zeros_like, variables['params'])}
  np.testing.assert_array_equal(
      block.apply(variables, X), nn.relu(subsample_and_pad(X, strides=strides, features=features)))


def test_projection_has_parameters_only_where_the_shape_changes():
  def names(features, strides):
    return set(BasicBlock(features, strides, 'projection').init(jax.random.key(0), X)['params'])
  assert names(4, 1) == {'conv1', 'norm1', 'conv2', 'norm2'}
  assert names(8, 2) - names(4, 1) == {'shortcut_conv', 'shortcut_norm'}
  with pytest.raises(ValueError, match="'projetion'"):
    BasicBlock(4, 1, 'projetion').init(jax.random.key(0), X)


@pytest.mark.parametrize('features,strides,added', [(4, 1, True), (8, 1, False), (4, 2, False)])
def test_an_inverted_residual_adds_its_input_where_the_shapes_agree(features, strides, added):
  block = InvertedResidual(features, 6, strides)
  variables = block.init(jax.random.key(0), X)
  variables = {**variables, 'params': jax.tree.map(jnp.zeros_like, variables['params'])}
  y = block.apply(variables, X)
  np.testing.assert_array_equal(y, X if added else jnp.zeros_like(y))
