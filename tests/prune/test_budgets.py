import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.prune import budgets

SIZES = st.dictionaries(st.text('abc/', min_size=1), st.integers(1, 10**8), min_size=1, max_size=5)
# Sparsities as papers state them: a few decimals.
SPARSITIES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


def exact(sparsity, size):
  """round(sparsity * size) in rational arithmetic, half to even as Python rounds."""
  return round(Fraction(round(sparsity * 1000), 1000) * size)


@given(sizes=SIZES, sparsity=SPARSITIES)
def test_uniform_counts_are_exact_for_any_size(sizes, sparsity):
  counts = budgets.uniform(sizes, sparsity)
  assert list(counts) == [(path,) for path in sizes]
  for path, size in sizes.items():
    assert abs(counts[path,] - exact(sparsity, size)) <= ((Fraction(round(sparsity * 1000), 1000) * size) % 1 == 0.5)


@given(sizes=SIZES, sparsity=SPARSITIES)
def test_global_counts_are_exact_over_the_total(sizes, sparsity):
  (group, count), = budgets.global_(sizes, sparsity).items()
  total = sum(sizes.values())
  assert group == tuple(sizes)
  assert abs(count - exact(sparsity, total)) <= ((Fraction(round(sparsity * 1000), 1000) * total) % 1 == 0.5)


def test_float32_would_be_wrong_at_these_sizes():
  assert budgets.uniform({'w': 100_000_001}, 0.9) == {('w',): 90_000_001}
  assert budgets.global_({'v': 16_777_217, 'w': 1}, 1.0) == {('v', 'w'): 16_777_218}


@given(sizes=SIZES)
def test_the_ends_are_nothing_and_everything(sizes):
  for budget in (budgets.uniform, budgets.global_):
    assert set(budget(sizes, 0.0).values()) == {0}
    assert sum(budget(sizes, 1.0).values()) == sum(sizes.values())


# LeNet-5's kernels: shapes, and MACs at 28x28.
SHAPES = {'conv1': (5, 5, 1, 20), 'conv2': (5, 5, 20, 50), 'fc1': (800, 500), 'fc2': (500, 10)}
MACS = {'conv1': 288_000, 'conv2': 1_600_000, 'fc1': 400_000, 'fc2': 5_000}
LENET = {path: math.prod(shape) for path, shape in SHAPES.items()}


def test_erk_is_the_papers_formula_where_no_layer_is_full():
  """The density of each layer is epsilon times (sum of dimensions) / (product); epsilon from the total."""
  counts = budgets.erk(LENET, SHAPES, 0.99)
  raw = {path: sum(shape) / math.prod(shape) for path, shape in SHAPES.items()}
  epsilon = 0.01 * sum(LENET.values()) / sum(raw[path] * LENET[path] for path in LENET)
  assert max(raw.values()) * epsilon < 1
  for path, size in LENET.items():
    assert abs((size - counts[path,]) - epsilon * raw[path] * size) <= 0.5


def test_erk_fills_layers_one_after_another_and_keeps_the_total():
  counts = budgets.erk(LENET, SHAPES, 0.5)
  density = {path: 1 - counts[path,] / LENET[path] for path in LENET}
  assert density['conv1'] == density['fc2'] == 1  # their share of epsilon would be more
  raw = {path: sum(SHAPES[path]) / math.prod(SHAPES[path]) for path in ('conv2', 'fc1')}
  np.testing.assert_allclose(density['conv2'] / density['fc1'], raw['conv2'] / raw['fc1'], rtol=1e-4)
  assert abs(sum(counts.values()) - 0.5 * sum(LENET.values())) <= 2
  for sparsity in (0.0, 1.0):
    assert sum(budgets.erk(LENET, SHAPES, sparsity).values()) == round(sparsity * sum(LENET.values()))


def left(counts):
  return 1 - sum(MACS[path] * count / LENET[path] for (path,), count in counts.items()) / sum(MACS.values())


def test_trap_14_erk_has_more_macs_than_uniform_unless_it_is_asked_for_equal_ones():
  assert 1.8 < left(budgets.erk(LENET, SHAPES, 0.9)) / left(budgets.uniform(LENET, 0.9)) < 2.3
  equal = budgets.equal_macs(budgets.erk)(LENET, SHAPES, MACS, 0.9)
  np.testing.assert_allclose(left(equal), 0.1, rtol=5e-3)  # a weight of conv2 is 64 MACs
  assert sum(equal.values()) > 0.9 * sum(LENET.values())
  same = budgets.equal_macs(budgets.uniform)(LENET, SHAPES, MACS, 0.9)
  assert same == budgets.uniform(LENET, 0.9)


def test_equal_macs_refuses_a_ranking_over_layers_and_what_cannot_be_reached():
  with pytest.raises(ValueError, match=r"ranks 4 parameters together \('conv1'"):
    budgets.equal_macs(budgets.global_)(LENET, SHAPES, MACS, 0.5)
  halves = budgets.by_path([('fc.*', 1.0), ('.*', 0.0)])
  with pytest.raises(ValueError, match=r'0\.9000 of 2293000 MACs are to go, and the budget removes 0\.1766'):
    budgets.equal_macs(halves)(LENET, SHAPES, MACS, 0.9)


def test_a_map_by_path_scales_with_the_schedule():
  counts = budgets.by_path([('conv.*', 0.5), ('.*', 0.9)])(LENET, 0.5)
  assert counts == {('conv1',): 125, ('conv2',): 6250, ('fc1',): 180_000, ('fc2',): 2250}


@pytest.mark.parametrize('ratios, message', [
  ([('conv.*', 0.5)], "no pattern takes 'fc1'"),
  ([('stem', 0.5), ('.*', 0.1)], "'stem' takes no parameter that is pruned; nearest"),
  ([('.*', 0.5), ('fc1', 0.1)], "'fc1' takes no parameter"),
  ([('.*', 1.5)], r"'\.\*' has sparsity 1.5"),
])
def test_a_map_that_does_not_fit_is_an_error(ratios, message):
  with pytest.raises(ValueError, match=message):
    budgets.by_path(ratios)(LENET, 1.0)


def test_a_file_of_ratios_is_read_as_exact_paths(tmp_path):
  path = tmp_path / 'ratios.json'
  path.write_text('{"block.0/kernel": 0.5, "fc": 1}')
  pairs = budgets.read(path)
  counts = budgets.by_path(pairs)({'block.0/kernel': 10, 'fc': 10}, 1.0)
  assert counts == {('block.0/kernel',): 5, ('fc',): 10}


def test_a_budget_of_the_users_own_may_not_ask_for_what_there_is_not():
  def mine(sizes, latency):
    return {}

  with pytest.raises(ValueError, match=r"budget mine: it is offered sizes, shapes, macs, sparsity, not 'latency'"):
    budgets.ask(mine, sizes=LENET, sparsity=0.5)
