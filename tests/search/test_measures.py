"""Measures and rewards against restatements in NumPy, SciPy and closed forms."""
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as drawn
from scipy import stats

from lightjax.search import Outcome, allocation, measures, rewards

GRID = drawn.lists(drawn.builds(Outcome, drawn.integers(0, 9), drawn.integers(1, 9)), max_size=12)


@given(GRID)
def test_hypervolume_is_the_count_of_dominated_cells(outcomes):
  cells = sum(any(quality < each.quality and each.cost <= cost for each in outcomes)
              for quality in range(2, 9) for cost in range(1, 8))
  assert measures.hypervolume(outcomes, reference=Outcome(2, 8)) == cells


@given(GRID)
def test_the_frontier_is_what_nobody_dominates(outcomes):
  def dominates(one, other):
    return one.quality >= other.quality and one.cost <= other.cost and one != other

  expected = [not any(dominates(other, each) for other in outcomes) for each in outcomes]
  assert measures.frontier(outcomes).tolist() == expected


@given(drawn.lists(drawn.tuples(drawn.integers(0, 5), drawn.integers(0, 5)), min_size=2, max_size=15))
def test_rank_correlation_is_scipys(pairs):
  first, second = zip(*pairs, strict=True)
  with np.errstate(all='ignore'):
    expected = stats.kendalltau(first, second).statistic
  np.testing.assert_allclose(measures.rank_correlation(first, second), expected, atol=1e-12)


def test_rank_correlation_needs_pairs():
  with pytest.raises(ValueError, match='1 and 2'):
    measures.rank_correlation([1], [1, 2])


def test_regret_is_what_the_best_so_far_lacks():
  values = np.random.default_rng(0).random(50)
  expected = [1 - max(values[:count]) for count in range(1, 51)]
  np.testing.assert_allclose(measures.regret(values, best=1.0), expected)


def test_rewards_are_the_equations():
  # arXiv:1807.11626, section 3.1: doubling the latency is to be worth a relative gain of 5 % in accuracy.
  soft = rewards.soft(target=80)
  assert soft(Outcome(0.5 * 1.05, 160)) == pytest.approx(soft(Outcome(0.5, 80)), 2e-3)
  for cost in (10, 80, 81, 400):
    assert rewards.hard(target=80)(Outcome(0.7, cost)) == pytest.approx(0.7 * min(1, 80 / cost))
    assert rewards.soft(target=80, exponent=-0.2)(Outcome(0.7, cost)) == pytest.approx(0.7 * (cost / 80) ** -0.2)
  with pytest.raises(ValueError, match='target=0'):
    rewards.hard(target=0)


def random_layers(seed):
  generator = np.random.default_rng(seed)
  return {f'layer{number}': [
    allocation.Option(bits, generator.random() * 2.0 ** (-bits), bits * size) for bits in (2, 3, 4, 8)]
    for number, size in enumerate(generator.integers(1, 20, size=4))}


@pytest.mark.parametrize('seed', range(8))
def test_linear_is_the_best_of_all_and_greedy_is_close(seed):
  layers = random_layers(seed)
  limit = 4.0 * sum(given[0].cost / 2 for given in layers.values())
  fits = [each for each in itertools.product(*layers.values()) if sum(option.cost for option in each) <= limit]
  damage = [sum(option.damage for option in each) for each in fits]
  results = {}
  for name in ('linear', 'greedy'):
    chosen = getattr(allocation, name)(layers, limit)
    assert list(chosen) == list(layers) and all(option in layers[path] for path, option in chosen.items())
    assert sum(option.cost for option in chosen.values()) <= limit
    results[name] = sum(option.damage for option in chosen.values())
  uniform = sum(given[2].damage for given in layers.values())
  assert results['linear'] == pytest.approx(min(damage), rel=1e-6)
  # Where a whole hull step is too large, greedy may end behind the optimum; it is one layer's step at most.
  step = max(given[0].damage - given[-1].damage for given in layers.values())
  assert min(damage) <= results['greedy'] + 1e-12 and results['greedy'] <= min(damage) + step
  assert results['linear'] <= uniform + 1e-12


@pytest.mark.parametrize('allocate', [allocation.linear, allocation.greedy])
def test_a_limit_under_the_least_cost_is_refused(allocate):
  with pytest.raises(ValueError, match='the cheapest options cost 2, over the limit 1'):
    allocate({'fc': [allocation.Option(2, 0.1, 2)]}, 1)
  with pytest.raises(ValueError, match="'fc' has no option"):
    allocate({'fc': []}, 1)
