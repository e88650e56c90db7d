"""K-means on sorted values against brute force and SciPy."""
import numpy as np
import pytest
import scipy.cluster.vq
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax.share import clustering, starts

NUMBERS = st.lists(st.integers(-40, 40).map(lambda each: each / 8), min_size=1, max_size=12)


def objective(values, clusters, penalty=0.0):
  """sum (value - centroid)^2 + penalty * bits, and the entropy in bits a value."""
  members = np.repeat(clusters.centroids, clusters.counts)
  share = clusters.counts[clusters.counts > 0] / values.size
  entropy = -np.sum(share * np.log2(share))
  return np.sum(np.square(values - members)) + penalty * values.size * entropy, entropy


@given(NUMBERS, NUMBERS, st.data())
@settings(deadline=None)
def test_every_value_is_in_the_cell_that_costs_least(values, centroids, data):
  values, centroids = np.sort(values), np.sort(centroids)
  costs = np.array(data.draw(st.lists(
    st.one_of(st.integers(0, 30).map(lambda each: each / 4), st.just(np.inf)), min_size=centroids.size,
    max_size=centroids.size)))
  costs[data.draw(st.integers(0, centroids.size - 1))] = 1.0  # one at least takes values
  counts = clustering.cells(values, centroids, costs)
  assert counts.sum() == values.size and (counts >= 0).all() and not counts[np.isinf(costs)].any()
  chosen = np.repeat(np.arange(centroids.size), counts)
  table = np.square(values[:, None] - centroids) + costs
  np.testing.assert_allclose(table[np.arange(values.size), chosen], table.min(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('entries', [2, 8, 32])
def test_k_means_is_scipys(entries):
  values = np.sort(np.random.default_rng(1).normal(size=3000))
  begin = np.linspace(values[0] + 0.5, values[-1] - 0.5, entries)
  found = clustering.cluster(values, begin)
  theirs, _ = scipy.cluster.vq.kmeans2(values[:, None], begin[:, None], iter=500, minit='matrix')
  np.testing.assert_allclose(found.centroids, np.sort(theirs[:, 0]), rtol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.sampled_from(starts.__all__))
@settings(max_examples=40, deadline=None)
def test_it_ends_where_centroids_are_means_and_members_are_nearest(seed, entries, name):
  generator = np.random.default_rng(seed)
  values = np.sort(generator.normal(size=200).round(2))
  found = clustering.cluster(values, getattr(starts, name)(values, entries, generator))
  members = np.split(values, np.cumsum(found.counts)[:-1])
  for centroid, each in zip(found.centroids, members, strict=True):
    if each.size:
      np.testing.assert_allclose(centroid, each.mean(), atol=1e-12)
  chosen = np.repeat(found.centroids, found.counts)
  np.testing.assert_allclose(np.abs(values - chosen), np.abs(values[:, None] - found.centroids).min(1), atol=1e-12)


def test_more_iterations_never_cost_more_with_and_without_a_penalty():
  values = np.sort(np.random.default_rng(2).standard_t(3, size=2000))
  for entropy in (0.0, 0.05):
    penalty = entropy * values.var()
    costs = [objective(values, clustering.cluster(
      values, np.linspace(values[0], values[-1], 16), entropy=entropy, iterations=each), penalty)[0]
      for each in range(2, 30)]
    assert (np.diff(costs) <= 1e-9 * costs[0]).all() and costs[-1] < costs[0]


def test_a_larger_penalty_takes_fewer_bits_and_a_larger_distortion():
  values = np.sort(np.random.default_rng(3).normal(size=5000))
  found = [objective(values, clustering.cluster(values, np.linspace(-3, 3, 32), entropy=each))
           for each in (0.0, 0.01, 0.05, 0.2)]
  distortions, bits = zip(*found, strict=True)
  assert (np.diff(distortions) > 0).all() and (np.diff(bits) < 0).all() and bits[-1] < 0.6 * bits[0]
