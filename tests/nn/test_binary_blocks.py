"""Blocks of Bi-Real Net and ReActNet against their formulas."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.nn.blocks.binary import BinaryBlock, LearnedShift, RPReLU

X = jnp.asarray(np.random.default_rng(0).normal(scale=2, size=(2, 6, 7, 4)), jnp.float32)


def test_a_shift_starts_at_zero_and_moves_each_channel():
  variables = LearnedShift().init(jax.random.key(0), X)
  np.testing.assert_array_equal(LearnedShift().apply(variables, X), X)
  shifted = LearnedShift().apply({'params': {'shift': jnp.arange(4.0)}}, X)
  np.testing.assert_array_equal(shifted, X + jnp.arange(4.0))


def test_rprelu_is_the_papers_formula():
  gamma, zeta, slope = (np.random.default_rng(i).normal(size=4).astype(np.float32) for i in range(3))
  seen = RPReLU().apply({'params': {'gamma': gamma, 'zeta': zeta, 'slope': slope}}, X)
  x = np.asarray(X)
  expected = np.where(x > gamma, x - gamma + zeta, slope * (x - gamma) + zeta)
  np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)
  fresh = RPReLU().init(jax.random.key(0), X)
  np.testing.assert_allclose(RPReLU().apply(fresh, X), np.where(x > 0, x, 0.25 * x), rtol=1e-6)


@pytest.mark.parametrize('learned', [False, True])
def test_with_a_zero_convolution_a_block_passes_real_numbers_by(learned):
  block = BinaryBlock(4, learned=learned)
  variables = block.init(jax.random.key(0), X)
  assert 'shortcut_conv' not in variables['params'] and ('shift' in variables['params']) == learned
  variables['params']['conv']['kernel'] *= 0
  x = np.asarray(X)
  np.testing.assert_allclose(block.apply(variables, X), np.where(x > 0, x, 0.25 * x) if learned else x, rtol=1e-6)


def test_a_strided_shortcut_averages_also_half_windows_and_projects():
  block = BinaryBlock(8, 2)
  variables = block.init(jax.random.key(0), X)
  variables['params']['conv']['kernel'] *= 0
  x = np.pad(np.asarray(X), ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=np.nan)
  average = np.nanmean(x.reshape(2, 3, 2, 4, 2, 4), axis=(2, 4))
  expected = average @ np.asarray(variables['params']['shortcut_conv']['kernel'])[0, 0] / np.sqrt(1 + 1e-5)
  np.testing.assert_allclose(block.apply(variables, X), expected, rtol=1e-4, atol=1e-5)


def test_what_is_convolved_has_been_clipped():
  block = BinaryBlock(4)
  variables = block.init(jax.random.key(0), X)
  large = jnp.where(X > 0, 1.0, -1.0) * 1.5
  np.testing.assert_allclose(
    block.apply(variables, large) - large, block.apply(variables, large / 1.5) - large / 1.5, rtol=1e-4, atol=1e-5)
