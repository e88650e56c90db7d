import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lightjax.nn.blocks.depthwise_separable import DepthwiseSeparable
from lightjax.nn.blocks.inverted_residual import InvertedResidual
from lightjax.nn.blocks.squeeze_excite import SqueezeExcite

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5, 6, 24)), jnp.float32)


@pytest.mark.parametrize('gate,value', [
  (nn.sigmoid, lambda y: 1 / (1 + np.exp(-y))), (nn.hard_sigmoid, lambda y: np.clip(y + 3, 0, 6) / 6)])
def test_it_scales_each_channel_by_a_gate_of_the_averages(gate, value):
  block = SqueezeExcite(0.5, gate=gate)
  variables = block.init(KEY, X)
  reduce, expand = (variables['params'][name] for name in ('reduce', 'expand'))
  hidden = np.maximum(X.mean((1, 2)) @ reduce['kernel'][0, 0] + reduce['bias'], 0)
  gates = value(np.asarray(hidden @ expand['kernel'][0, 0] + expand['bias']))
  np.testing.assert_allclose(block.apply(variables, X), X * gates[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('options,squeezed', [
  ({}, 6), ({'divisor': 8}, 8), ({'divisor': 4}, 8), ({'base': 16}, 4), ({'ratio': 1 / 16, 'divisor': 8}, 8)])
def test_the_squeezed_channels_are_a_rounded_fraction_of_the_base(options, squeezed):
  assert SqueezeExcite(**options).init(KEY, X)['params']['reduce']['kernel'].shape[-1] == squeezed


def test_it_computes_in_its_precision():
  block = SqueezeExcite(dtype=jnp.bfloat16)
  x = X.astype(jnp.bfloat16)
  y, variables = block.init_with_output(KEY, x)
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('options,parts', [
  ({'expansion': 1}, {'depthwise', 'project'}), ({'expansion': 6}, {'expand', 'depthwise', 'project'}),
  ({'hidden': 24}, {'depthwise', 'project'}), ({'always_expand': True}, {'expand', 'depthwise', 'project'}),
  ({'squeeze_excite': SqueezeExcite}, {'depthwise', 'squeeze_excite', 'project'}),
])
def test_an_inverted_residual_has_the_parts_it_needs(options, parts):
  assert set(InvertedResidual(24, **options).init(KEY, X)['params']) == parts


def test_stochastic_depth_skips_whole_examples_and_scales_the_others():
  x = jnp.concatenate([X] * 32)
  plain, dropping = InvertedResidual(24, 2), InvertedResidual(24, 2, drop_path=0.75)
  variables = plain.init(KEY, x)
  options = {'train': True, 'mutable': ['batch_stats']}
  added = plain.apply(variables, x, **options)[0] - x
  found = dropping.apply(variables, x, rngs={'dropout': KEY}, **options)[0] - x
  kept = np.asarray(jnp.abs(found).max((1, 2, 3)) > 0)
  assert 0.1 < kept.mean() < 0.4
  np.testing.assert_allclose(found[kept], 4 * added[kept], rtol=1e-3, atol=1e-4)
  np.testing.assert_array_equal(dropping.apply(variables, x), plain.apply(variables, x))


def test_a_depthwise_separable_convolution_is_its_two_convolutions():
  block = DepthwiseSeparable(10, 2, activation=lambda y: y)
  variables = block.init(KEY, X)
  depthwise, pointwise = (variables['params'][name]['conv']['kernel'] for name in ('depthwise', 'pointwise'))
  kernel = jnp.einsum('hwic,cd->hwcd', depthwise, pointwise[0, 0]) / (1 + 1e-5)
  wanted = jax.lax.conv_general_dilated(
      X, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(block.apply(variables, X), wanted, rtol=1e-4, atol=1e-5)
