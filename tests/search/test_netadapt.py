"""NetAdapt on networks whose accuracy and cost are formulas: its path is that of algorithm 1, restated here."""
import itertools

import jax
import numpy as np
import pytest

from lightjax.search import Choice, Outcome, Space, strategies

WIDTHS = (8, 12, 16, 10)
SENSITIVITY = np.array([0.5, 0.1, 0.3, 0.05])
SPACE = Space('s', tuple(Choice(f'c{place}', tuple(range(1, width + 1))) for place, width in enumerate(WIDTHS)), dict)


def cost_of(counts):
  """Multiply-adds of layers in a row: each reads what the one before makes."""
  return float(3 * counts[0] + sum(one * other for one, other in itertools.pairwise(counts)) + counts[-1])


def accuracy_of(counts):
  return float(1 - (SENSITIVITY * (1 - np.array(counts) / WIDTHS) ** 2).sum())


def cost(candidate):
  return cost_of([option + 1 for option in candidate])


def outcome(candidate):
  return Outcome(accuracy_of([option + 1 for option in candidate]), cost(candidate))


def search(strategy, state, most=1000):
  """Candidates in the order of their evaluation, and the bases."""
  found, bases = [], [strategy.base(state)]
  while len(found) < most:
    candidate, state = strategy.propose(state)
    if candidate == strategy.base(state):
      break
    found.append(candidate)
    state = strategy.observe(state, candidate, outcome(candidate))
    if strategy.base(state) != bases[-1]:
      bases.append(strategy.base(state))
  return found, bases, state


def algorithm_1(target, step, decay):
  """By counts and loops: the networks that are accepted."""
  counts, accepted, number = list(WIDTHS), [], 0
  while cost_of(counts) > target:
    limit = max(cost_of(counts) - step * cost_of(WIDTHS) * decay**number, target)
    best = None
    for place in range(len(counts)):
      smaller = list(counts)
      while smaller[place] > 1 and cost_of(smaller) > limit:
        smaller[place] -= 1
      if cost_of(smaller) <= limit and (best is None or accuracy_of(smaller) > accuracy_of(best)):
        best = smaller
    counts, number = best, number + 1
    accepted.append(tuple(counts))
  return accepted


@pytest.mark.parametrize(('ratio', 'step', 'decay'), [(0.5, 0.05, 0.96), (0.4, 0.1, 1.0), (0.7, 0.03, 0.9)])
def test_it_is_algorithm_1(ratio, step, decay):
  target = ratio * cost_of(WIDTHS)
  strategy = strategies.netadapt(SPACE, cost=cost, target=target, step=step, decay=decay)
  found, bases, state = search(strategy, strategy.init(0))
  expected = algorithm_1(target, step, decay)
  assert [tuple(option + 1 for option in base) for base in bases[1:]] == expected
  assert cost(bases[-1]) <= target < cost(bases[-2])
  assert strategy.propose(strategy.propose(state)[1])[0] == bases[-1]
  assert len(set(found)) == len(found)


def test_one_round_by_hand():
  """Two layers of 4: cost 4 a + b; a whole of 20, a first step of 2: a falls to 3 (16), b to 2 (18)."""
  space = Space('s', (Choice('a', (1, 2, 3, 4)), Choice('b', (1, 2, 3, 4))), dict)
  strategy = strategies.netadapt(
    space, cost=lambda candidate: 4.0 * (candidate[0] + 1) + candidate[1] + 1, target=15.0, step=0.1, decay=0.5)
  state = strategy.init(0)
  first, state = strategy.propose(state)
  second, state = strategy.propose(state)
  assert (first, second) == ((2, 3), (3, 1))
  for candidate, quality in ((second, 0.8), (first, 0.7)):
    assert strategy.base(state) == (3, 3)
    state = strategy.observe(state, candidate, Outcome(quality, 1.0))
  assert strategy.base(state) == (3, 1)
  # The step is now 1, of 18: 17 is met by a = 3 (14, which is below the target) and by b = 1.
  assert {strategy.propose(state)[0], strategy.propose(strategy.propose(state)[1])[0]} == {(2, 1), (3, 0)}


def test_a_stored_state_goes_on_alike():
  strategy = strategies.netadapt(SPACE, cost=cost, target=0.5 * cost_of(WIDTHS))
  whole, bases, _ = search(strategy, strategy.init(0))
  for stop in (1, 4, 7, 18):
    _, _, state = search(strategy, strategy.init(0), stop)
    leaves, structure = jax.tree.flatten(state)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    stored = [np.frombuffer(leaf.tobytes(), leaf.dtype).reshape(leaf.shape) for leaf in leaves]
    again = strategies.netadapt(SPACE, cost=cost, target=0.5 * cost_of(WIDTHS))
    rest, later, _ = search(again, jax.tree.unflatten(structure, stored))
    assert rest == whole[stop:] and later == bases[-len(later):]


def test_a_step_that_no_choice_meets_alone_is_halved():
  strategy = strategies.netadapt(SPACE, cost=cost, target=0.1 * cost_of(WIDTHS), step=1.0, decay=1.0)
  _, bases, _ = search(strategy, strategy.init(0))
  assert len(bases) > 2 and cost(bases[-1]) <= 0.1 * cost_of(WIDTHS)


@pytest.mark.parametrize(('changes', 'message'), [
  ({'step': 0.0}, 'step=0.0'), ({'decay': 1.5}, 'decay=1.5'), ({'target': 1.0}, 'the smallest candidate costs 7')])
def test_what_can_not_be_met_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    strategies.netadapt(SPACE, **{'cost': cost, 'target': 100.0, **changes})


def test_a_cost_that_does_not_fall_is_refused():
  strategy = strategies.netadapt(SPACE, cost=lambda candidate: 2.0 - (candidate == (0, 0, 0, 0)), target=1.0)
  with pytest.raises(ValueError, match='no choice alone lowers'):
    strategy.propose(strategy.init(0))
