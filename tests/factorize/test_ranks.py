"""Rules for ranks: energies by NumPy, budgets against all choices, what is measured."""
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax.factorize import ranks
from lightjax.factorize.layers import Layer, Option
from lightjax.factorize.ranks import Network
from lightjax.graph.factored import Use

DENSE = Use('dense', (), (0,), (1,), (((1,), (1,)),))
CONV = Use('conv', (0, 1), (2,), (3,), (((6, 6), (6, 6)),))


def network(others=0, damaged=None):
  rng = np.random.default_rng(0)
  decay = 0.7 ** np.arange(12)
  fc = (rng.standard_normal((20, 12)) * decay) @ rng.standard_normal((12, 16))
  layers = {'conv': Layer('spatial', (3, 3, 4, 8), CONV), 'fc': Layer('channel', (20, 16), DENSE)}
  kernels = {'conv': rng.standard_normal((3, 3, 4, 8)), 'fc': fc}
  macs, params = (sum(getattr(each.whole, cost) for each in layers.values()) + others for cost in ('macs', 'params'))
  return Network(layers, kernels, macs, params, damaged)


def test_energy_keeps_the_fewest_singular_values_that_hold_so_much():
  given_ = network()
  values = np.linalg.svd(given_.kernels['fc'], compute_uv=False)**2
  for ratio in (0.5, 0.9, 0.99):
    fewest = next(rank for rank in range(1, 17) if values[:rank].sum() >= ratio * values.sum())
    assert ranks.energy(ratio)(given_)['fc'] == (fewest,)
  assert ranks.energy(1.0)(given_).get('conv') is None  # whose factors would be no smaller


@pytest.mark.parametrize('cost', ['macs', 'params'])
@pytest.mark.parametrize('ratio', [0.3, 0.5, 0.8])
def test_a_budget_is_kept_and_near_the_best_of_all_choices(cost, ratio):
  given_ = network(others=50)
  chosen = ranks.budget(ratio, cost=cost)(given_)
  options = {path: [*layer.options(given_.kernels[path]), layer.whole] for path, layer in given_.layers.items()}
  limit = ratio * getattr(given_, cost) - 50
  best = min(sum(each.damage for each in pair) for pair in itertools.product(*options.values())
             if sum(getattr(each, cost) for each in pair) <= limit)
  ours = [next(each for each in options[path] if each.ranks == chosen.get(path, ())) for path in options]
  assert sum(getattr(each, cost) for each in ours) <= limit
  assert sum(each.damage for each in ours) <= 1.1 * best + 1e-9


@settings(max_examples=50, deadline=None)
@given(
  st.lists(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=5), min_size=1, max_size=4),
  st.floats(0, 1))
def test_cheapest_stays_within_its_limit_and_leaves_nothing_better_behind(pairs, share):
  options = {str(i): [Option((j,), damage, macs, macs) for j, (macs, damage) in enumerate(each)]
             for i, each in enumerate(pairs)}
  least, most = (sum(pick(each.macs for each in given_) for given_ in options.values()) for pick in (min, max))
  limit = least + share * (most - least)
  chosen = ranks.cheapest(options, limit, cost='macs')
  spent = sum(each.macs for each in chosen.values())
  assert spent <= limit
  for path, given_ in options.items():  # no single layer has a better option that still fits
    for each in given_:
      assert each.damage >= chosen[path].damage or spent + each.macs - chosen[path].macs > limit
  if share == 1:
    assert all(chosen[path].damage == min(each.damage for each in given_) for path, given_ in options.items())


def test_sensitivity_spares_the_layer_that_the_loss_needs():
  asked = []

  def damaged(path, at):
    asked.append((path, at))
    return 1.0 if not at else 1.0 + {'conv': 100.0, 'fc': 0.01}[path] / at[0]

  found = ranks.sensitivity(0.9, cost='params', levels=4)(network(damaged=damaged))
  assert set(found) == {'fc'}  # the energy alone would have cut both
  assert {path for path, _ in asked} == {'conv', 'fc'}
  assert len({at for path, at in asked if path == 'fc' and at}) == 4


def test_ranks_by_path():
  assert ranks.by_path((('fc', 3),))(network()) == {'fc': (3,)}
  with pytest.raises(ValueError, match="by_path: 'fd' takes no layer that can be split; nearest: 'fc'"):
    ranks.by_path((('fd', 3),))(network())


@pytest.mark.parametrize(('make', 'message'), [
  (lambda: ranks.energy(0.0), 'energy: ratio=0.0 is a ratio'),
  (lambda: ranks.budget(0.5, cost='flops'), "budget: cost='flops' is none of"),
  (lambda: ranks.budget(0.01)(network()), 'budget: 0.01 of .* macs .* the least that these layers can cost'),
  (lambda: ranks.sensitivity(0.5)(network()), 'sensitivity measures the loss, and none is given'),
  (lambda: ranks.sensitivity(0.5, levels=0), 'levels=0'),
])
def test_what_can_not_be_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
