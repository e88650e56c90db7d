"""Where k-means starts."""
import numpy as np
import pytest

from lightjax.share import starts

VALUES = np.sort(np.random.default_rng(0).normal(size=1000))


def start(name, values=VALUES, entries=8, seed=0):
  return getattr(starts, name)(values, entries, np.random.default_rng(seed))


@pytest.mark.parametrize('name', starts.__all__)
@pytest.mark.parametrize('values, entries', [(VALUES, 8), (VALUES, 256), (VALUES[:3], 16), (np.ones(5), 4)])
def test_a_start_has_so_many_entries_within_the_range(name, values, entries):
  found = start(name, values, entries)
  assert found.shape == (entries,) and values[0] <= found.min() <= found.max() <= values[-1]


def test_linear_entries_are_evenly_spaced():
  np.testing.assert_allclose(start('linear'), VALUES[0] + (VALUES[-1] - VALUES[0]) * np.arange(8) / 7)


def test_between_two_density_entries_lie_equally_many_values():
  between = np.diff(np.searchsorted(VALUES, start('density')))
  assert (between == 125).all()


@pytest.mark.parametrize('name', ['random', 'k_means_plus_plus'])
def test_drawn_entries_are_distinct_values_that_depend_on_the_seed(name):
  found = start(name)
  assert len(set(found)) == 8 and np.isin(found, VALUES).all()
  assert not np.array_equal(found, start(name, seed=1))
  np.testing.assert_array_equal(found, start(name))


def test_k_means_plus_plus_finds_small_clusters_that_random_draws_miss():
  """A thousand values at 0 and two clusters of three: the squared distance makes up for the numbers."""
  values = np.sort(np.concatenate([VALUES * 1e-3, [100, 100.1, 100.2], [-100, -100.1, -100.2]]))
  for seed in range(20):
    found = start('k_means_plus_plus', values, 3, seed)
    assert np.array_equal(np.sort(np.round(found / 100)), [-1, 0, 1])
  assert not any(np.abs(start('random', values, 3, seed)).max() > 99 for seed in range(3))
