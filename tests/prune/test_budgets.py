from fractions import Fraction

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
