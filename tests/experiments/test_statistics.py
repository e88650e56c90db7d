"""Statistics against scipy.stats and against laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.engine import statistics
from experiments.engine.errors import TableError

figures = st.floats(0.01, 1.0)
seeds = st.lists(figures, min_size=3, max_size=8)


@given(st.lists(figures, min_size=2, max_size=8))
def test_summary_is_that_of_numpy(values):
  summary = statistics.summarize(values)
  np.testing.assert_allclose(
    [summary.mean, summary.std], [np.mean(values), np.std(values, ddof=1)], rtol=1e-9, atol=1e-12
  )
  assert summary.n == len(values)


def test_one_seed_has_no_spread_and_none_is_an_error():
  assert math.isnan(statistics.summarize([0.5]).std)
  with pytest.raises(ValueError, match='no values'):
    statistics.summarize([])


@given(seeds, figures)
def test_interval_is_that_of_the_one_sample_t_test(values, figure):
  if np.ptp(values) < 1e-6:
    return
  found = statistics.compare(values, figure, is_higher_better=True)
  test = stats.ttest_1samp(values, figure)
  expected = test.confidence_interval(0.95)
  np.testing.assert_allclose(
    [found.low, found.high], [expected.low - figure, expected.high - figure], rtol=1e-6, atol=1e-9
  )
  if abs(test.pvalue - 0.05) > 1e-6:
    assert (found.verdict == 'within noise') == (test.pvalue > 0.05)


@given(seeds, seeds)
def test_interval_with_spread_is_that_of_welch(ours, theirs):
  if np.ptp(ours) < 1e-6 or np.ptp(theirs) < 1e-6:
    return
  figure = statistics.summarize(theirs)
  found = statistics.compare(ours, figure.mean, is_higher_better=True, std=figure.std, n=figure.n)
  expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
  np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-6, atol=1e-9)


@given(seeds, figures)
def test_direction_swaps_better_and_worse_and_nothing_else(values, figure):
  up = statistics.compare(values, figure, is_higher_better=True)
  down = statistics.compare(values, figure, is_higher_better=False)
  assert up[:3] == down[:3]
  assert (up.verdict, down.verdict) in {('better', 'worse'), ('worse', 'better'), ('within noise', 'within noise')}


@pytest.mark.parametrize('values', [[0.9], [0.9, 0.8]])
def test_too_few_seeds_have_a_difference_and_no_interval(values):
  found = statistics.compare(values, 0.8, is_higher_better=True)
  assert found.verdict == 'too few seeds'
  assert found.difference == pytest.approx(np.mean(values) - 0.8)
  assert math.isnan(found.low) and math.isnan(found.high)


def test_equal_seeds_equal_to_the_figure_are_within_noise():
  assert statistics.compare([0.1 + 0.2] * 3, 0.3, is_higher_better=True).verdict == 'within noise'
  assert statistics.compare([266610.0] * 3, 266200.0, is_higher_better=False).verdict == 'worse'


def test_a_metric_without_direction_is_an_error_that_says_what_to_declare():
  assert statistics.higher_is_better('best/test/accuracy')
  assert not statistics.higher_is_better('test/error')
  with pytest.raises(TableError, match='HIGHER_IS_BETTER'):
    statistics.higher_is_better('test/ndcg')
