import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
