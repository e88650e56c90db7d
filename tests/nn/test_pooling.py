import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.core.modes import convolution_mode
from lightjax.nn import pooling

X = np.random.default_rng(0).standard_normal((2, 11, 8, 3)).astype(np.float32) - 2.0  # mostly negative


def windows(extent, window, strides, padding, ceil):
  """Starts of the windows: those that fit and, if pixels are left over behind them, one more that begins inside."""
  fits = [start for start in range(-padding, extent + padding, strides) if start + window <= extent + padding]
  start = fits[-1] + strides
  left_over = fits[-1] + window < extent + padding and start < extent
  return [*fits, start] if ceil and left_over else fits


def maxima(x, window, strides, padding, ceil):
  rows = windows(x.shape[1], window, strides, padding, ceil)
  columns = windows(x.shape[2], window, strides, padding, ceil)
  return np.stack([np.stack([
      x[:, max(row, 0):row + window, max(column, 0):column + window].max((1, 2)) for column in columns], 1)
      for row in rows], 1)


@given(st.sampled_from([(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (5, 3, 2)]), st.booleans())
def test_max_pool_is_the_largest_of_each_window(geometry, ceil):
  window, strides, padding = geometry
  y = pooling.max_pool(jnp.asarray(X), window, strides, padding=padding, ceil=ceil)
  np.testing.assert_array_equal(y, maxima(X, window, strides, padding, ceil))


@pytest.mark.parametrize('geometry', [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (5, 3, 2)])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_max_pool_has_the_values_and_gradient_of_lax_even_under_ties(geometry, dtype):
  window, strides, padding = geometry
  # Whole numbers: equal values in most windows, and sums of gradients without rounding.
  x = jnp.asarray(np.random.default_rng(0).integers(-2, 2, (2, 11, 8, 3)), dtype)

  def pulled(x):
    y, pull_back = jax.vjp(lambda x: pooling.max_pool(x, window, strides, padding=padding), x)
    weights = np.random.default_rng(1).integers(-3, 4, y.shape)
    return y, pull_back(jnp.asarray(weights, dtype))[0]

  assert 'reduce_window' not in str(jax.make_jaxpr(pulled)(x))
  ours = jax.jit(pulled)(x)
  with convolution_mode('lax'):
    assert 'reduce_window' in str(jax.make_jaxpr(pulled)(x))
    theirs = jax.jit(pulled)(x)
  for one, other in zip(ours, theirs, strict=True):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)
  per_example = jax.vmap(lambda x: pooling.max_pool(x[None], window, strides, padding=padding)[0])(x)
  np.testing.assert_array_equal(per_example, ours[0])


def test_nan_wins_wherever_it_stands_in_the_window():
  x = np.zeros((9, 3, 3, 1), np.float32)
  x.reshape(9, 9)[np.arange(9), np.arange(9)] = np.nan
  assert np.isnan(pooling.max_pool(jnp.asarray(x), 3, 1)).all()


def test_average_pool_counts_the_zeros_around():
  y = pooling.average_pool(jnp.ones((1, 4, 4, 1)), 3, 1, padding=1)
  np.testing.assert_allclose(y[0, :2, :2, 0], [[4 / 9, 6 / 9], [6 / 9, 1]], rtol=1e-6)


@pytest.mark.parametrize('size', [1, 2, 3, 4, 8, 12])
def test_adaptive_average_pool_is_the_mean_of_each_cell(size):
  y = pooling.adaptive_average_pool(jnp.asarray(X), size)
  for row in range(size):
    for column in range(size):
      cell = X[:, row * 11 // size:-(-(row + 1) * 11 // size), column * 8 // size:-(-(column + 1) * 8 // size)]
      np.testing.assert_allclose(y[:, row, column], cell.mean((1, 2)), rtol=1e-5)
