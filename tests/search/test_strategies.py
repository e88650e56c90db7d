"""Strategies: pure, resumable at any point, and better than chance where there is something to find."""
import jax
import numpy as np
import pytest

from lightjax.search import Choice, Outcome, Space, measures, rewards, strategies
from lightjax.search.channels import Layer

SPACE = Space('s', tuple(Choice(f'c{number}', (0, 1, 2, 3)) for number in range(5)), dict)
METHODS = {
  'random': strategies.random(SPACE),
  'evolution': strategies.evolution(SPACE, reward=rewards.quality, population=10, sample=4),
  'nsga2': strategies.nsga2(SPACE, population=10),
  'controller': strategies.controller(SPACE, reward=rewards.quality),
  'amc': strategies.amc(
    SPACE, layers=[Layer(4, 3, 8, 8, 1, 3, 10.0 + place) for place in range(5)], target=1e9, warmup=5, hidden=8,
    cost=lambda candidate: 1.0 + sum(candidate))}


def outcome(candidate):
  """Quality grows with each option but interacts; cost grows with the sum."""
  return Outcome(sum(candidate) / 15 + 0.1 * (candidate[0] == candidate[1]), 1.0 + sum(index**2 for index in candidate))


def search(strategy, state, count):
  found = []
  for _ in range(count):
    candidate, state = strategy.propose(state)
    state = strategy.observe(state, candidate, outcome(candidate))
    found.append(candidate)
  return found, state


@pytest.mark.parametrize('name', METHODS)
def test_a_stored_state_goes_on_with_the_same_candidates(name):
  strategy = METHODS[name]
  whole, end = search(strategy, strategy.init(3), 45)
  first, state = search(strategy, strategy.init(3), 23)
  leaves, structure = jax.tree.flatten(state)
  assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
  stored = [np.frombuffer(leaf.tobytes(), leaf.dtype).reshape(leaf.shape) for leaf in leaves]
  second, again = search(strategy, jax.tree.unflatten(structure, stored), 22)
  assert first + second == whole
  jax.tree.map(np.testing.assert_array_equal, again, end)
  assert search(strategy, strategy.init(4), 45)[0] != whole


@pytest.mark.parametrize('name', METHODS)
def test_states_are_not_changed_and_several_may_be_proposed_at_once(name):
  strategy = METHODS[name]
  _, state = search(strategy, strategy.init(0), 12)
  before = jax.tree.map(np.copy, state)
  first, after = strategy.propose(state)
  second, later = strategy.propose(after)
  for candidate in (second, first):  # in another order
    later = strategy.observe(later, candidate, outcome(candidate))
  assert later.candidates[-2:].tolist() == [list(second), list(first)]
  jax.tree.map(np.testing.assert_array_equal, state, before)
  assert strategy.propose(state)[0] == first


@pytest.mark.parametrize('name', METHODS)
def test_what_is_no_outcome_is_refused(name):
  for wrong in (Outcome(float('nan'), 1), Outcome(1, 0)):
    with pytest.raises(ValueError, match='quality is finite'):
      METHODS[name].observe(METHODS[name].init(0), (0,) * 5, wrong)
  with pytest.raises(ValueError, match='is no candidate'):
    METHODS[name].observe(METHODS[name].init(0), (9,) * 5, Outcome(1, 1))


def test_learned_searches_beat_chance_in_what_they_maximize():
  def mean(name, measure):
    return np.mean([measure([outcome(each) for each in search(METHODS[name], METHODS[name].init(seed), 100)[0]])
                    for seed in range(10)])

  def best(found):
    return max(each.quality for each in found)

  def area(found):
    return measures.hypervolume(found, reference=Outcome(0.0, 50.0))

  assert mean('evolution', best) > mean('random', best) + 0.05
  assert mean('controller', best) > mean('random', best) + 0.05
  assert mean('nsga2', area) > mean('random', area)


def test_evolution_is_algorithm_1():
  """A population that is a queue: parents are of its last members only, and children differ in one choice."""
  strategy = strategies.evolution(SPACE, reward=rewards.quality, population=6, sample=60)
  found, _ = search(strategy, strategy.init(1), 40)
  for place in range(6, 40):
    queue = found[place - 6:place]
    # A sample of 60 out of 6 has the best member, but for 2e-5; of equal ones any may be the parent.
    best = max(outcome(each).quality for each in queue)
    parents = [each for each in queue if outcome(each).quality == best]
    assert any(sum(one != other for one, other in zip(parent, found[place], strict=True)) == 1 for parent in parents)


def test_crowded_order_is_by_fronts_and_then_by_room():
  outcomes = [Outcome(*each) for each in ((1, 1), (5, 5), (2, 2), (4.5, 4.5), (0, 6), (0.5, 5.5), (4, 4))]
  # The first five of the frontier by distance (ends first; (2, 2): 2 * 3/4, (4, 4): 2 * 2.5/4, (4.5, 4.5): 2 * 1/4),
  # then those that one dominates, and two.
  assert strategies.crowded_order(outcomes) == [0, 1, 2, 6, 3, 5, 4]


def test_the_policy_gradient_is_that_of_the_log_probability():
  strategy = strategies.controller(SPACE, reward=rewards.quality, rate=0.1, memory=0.5)
  _, state = search(strategy, strategy.init(0), 5)
  candidate = (1, 0, 3, 2, 1)

  def log_probability(logits):
    return sum(jax.nn.log_softmax(each)[index] for each, index in zip(logits.reshape(5, 4), candidate, strict=True))

  gradient = jax.grad(log_probability)(state.policy['logits'].astype(np.float32))
  weights = 0.5 ** np.arange(5, 0, -1)
  qualities = state.outcomes[:, 0]
  mean = (weights * qualities).sum() / weights.sum()
  deviation = np.sqrt((weights * qualities**2).sum() / weights.sum() - mean**2)
  after = strategy.observe(state, candidate, Outcome(0.8, 1.0))
  advantage = np.clip((0.8 - mean) / deviation, -3, 3)
  np.testing.assert_allclose(after.policy['logits'] - state.policy['logits'], 0.1 * advantage * gradient, atol=1e-6)


@pytest.mark.parametrize('make', [
  lambda: strategies.evolution(SPACE, reward=rewards.quality, population=0),
  lambda: strategies.nsga2(SPACE, population=1),
  lambda: strategies.controller(SPACE, reward=rewards.quality, rate=0)])
def test_settings_that_mean_nothing_are_refused(make):
  with pytest.raises(ValueError, match=r'population|rate'):
    make()
