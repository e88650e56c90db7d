"""AMC: its bound is algorithm 1, what it sees are the paper's eleven features, and it learns what a layer can lose."""
import jax
import numpy as np
import optax
import pytest
from scipy import stats

from lightjax.search import Choice, Outcome, Space, amc, rewards, strategies
from lightjax.search.channels import Layer

LAYERS = [
  Layer(outputs=16, inputs=3, height=28, width=28, strides=1, window=3, macs=338.0),
  Layer(outputs=32, inputs=16, height=28, width=28, strides=2, window=3, macs=903.0),
  Layer(outputs=64, inputs=32, height=14, width=14, strides=1, window=1, macs=401.0),
  Layer(outputs=32, inputs=64, height=14, width=14, strides=1, window=1, macs=402.0)]


def algorithm_1(wanted, work, *, alpha, most):
  """The paper's, by sums over layers: W_all, W_rest, W_duty, W_reduced."""
  reduced, actions = 0.0, []
  for layer, action in enumerate(wanted):
    action = min(action, most)
    everything, rest = sum(work), sum(work[layer + 1:])
    duty = alpha * everything - most * rest - reduced
    action = max(action, duty / work[layer])
    reduced += action * work[layer]
    actions.append(action)
  return actions


@pytest.mark.parametrize('seed', range(6))
def test_the_bound_is_algorithm_1(seed):
  """On costs that are sums over layers, with options so fine that rounding is no matter."""
  generator = np.random.default_rng(seed)
  options, count = 20_000, 5
  work = generator.uniform(1, 10, count)
  most = 1 - 1 / options

  def cost(candidate):
    return sum(each * (option + 1) / options for each, option in zip(work, candidate, strict=True))

  wanted, alpha = generator.uniform(0, 0.6, count), generator.uniform(0.4, 0.8)
  chosen = ()
  for action in wanted:
    option = round((1 - action) * options) - 1
    chosen = (*chosen, amc.bounded(chosen, option, count, cost=cost, target=(1 - alpha) * work.sum()))
  expected = algorithm_1(wanted, work, alpha=alpha, most=most)
  np.testing.assert_allclose([1 - (option + 1) / options for option in chosen], expected, atol=3e-4)
  assert cost(chosen) <= (1 - alpha) * work.sum()


def test_the_features_are_those_of_equation_1():
  seen = amc.features(LAYERS, [0.5, 0.25])
  total = 338 + 903 + 401 + 402
  expected = [
    # t, n, c, h, w, stride, k, W, reduced, rest, a[t-1]
    [0, 16 / 64, 3 / 64, 1, 1, 0.5, 1, 338 / 903, 0, (903 + 401 + 402) / total, 0],
    [1 / 3, 32 / 64, 16 / 64, 1, 1, 1, 1, 1, 169 / total, 803 / total, 0.5],
    [2 / 3, 1, 32 / 64, 0.5, 0.5, 0.5, 1 / 3, 401 / 903, (169 + 225.75) / total, 402 / total, 0.25],
    [1, 32 / 64, 1, 0.5, 0.5, 0.5, 1 / 3, 402 / 903, (169 + 225.75) / total, 0, 0]]
  np.testing.assert_allclose(seen, expected, rtol=1e-6)


@pytest.mark.parametrize(('mean', 'deviation'), [(0.5, 0.5), (0.9, 0.2), (0.02, 0.05)])
def test_exploration_is_a_truncated_normal(mean, deviation):
  uniform = np.linspace(0.01, 0.99, 25)
  expected = stats.truncnorm.ppf(uniform, -mean / deviation, (1 - mean) / deviation, mean, deviation)
  np.testing.assert_allclose(
    [amc.truncated_normal(mean, deviation, each) for each in uniform], expected, rtol=1e-9)
  assert amc.truncated_normal(0.3, 1e-9, 0.7) == pytest.approx(0.3)


def network(weights, x):
  """Two hidden layers with ReLU, by NumPy."""
  for index in (0, 1):
    x = np.maximum(x @ weights[f'weight{index}'] + weights[f'bias{index}'], 0)
  return (x @ weights['weight2'] + weights['bias2'])[..., 0]


def test_an_update_is_ddpg_with_a_baseline():
  """By NumPy, with plain gradient descent: baseline, the critic's target, both gradients, the slow targets."""
  optimizers, settings = amc._Pair(optax.sgd(0.1), optax.sgd(0.2)), amc._Settings(2, 2, soft=0.1, remembered=0.8)
  generator = np.random.default_rng(0)
  policy = amc._begin(optimizers, 3, 5)
  for name in ('actor', 'critic', 'actor_target', 'critic_target'):  # with outputs that are not nearly zero
    policy[name] = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), policy[name])
  policy['baseline'], policy['updates'] = np.float32(0.5), np.int32(3)
  batch = amc._Batch(
    generator.random((2, 11), np.float32), np.float32([0.3, 0.6]), np.float32([0.7, 0.9]),
    generator.random((2, 11), np.float32), np.array([False, True]))
  learned = amc._update(optimizers, settings, policy, batch)

  def act(actor, seen):
    return 1 / (1 + np.exp(-network(actor, seen)))

  def value(critic, seen, action):
    return network(critic, np.concatenate([seen, action[:, None]], 1))

  baseline = 0.8 * 0.5 + 0.2 * 0.8
  later = value(policy['critic_target'], batch.following, act(policy['actor_target'], batch.following))
  wanted = batch.reward - baseline + [later[0], 0.0]
  critic = descended(
    lambda weights: np.mean((wanted - value(weights, batch.seen, batch.action)) ** 2), policy['critic'], 0.2)
  actor = descended(
    lambda weights: -value(critic, batch.seen, act(weights, batch.seen)).mean(), policy['actor'], 0.1)
  assert float(learned['baseline']) == pytest.approx(baseline) and int(learned['updates']) == 4
  for name, expected in (('critic', critic), ('actor', actor)):
    for each, leaf in expected.items():
      np.testing.assert_allclose(learned[name][each], leaf, atol=2e-4)
      target = policy[f'{name}_target'][each]
      np.testing.assert_allclose(learned[f'{name}_target'][each], 0.9 * target + 0.1 * leaf, atol=2e-4)


def descended(function, weights, rate):
  """Weights after a step against the gradient, which is found by differences."""
  return {name: leaf - rate * slope(function, weights, name) for name, leaf in weights.items()}


def slope(function, weights, name, step=1e-5):
  """Gradient of a function of weights with respect to one of them, by differences."""
  found = np.zeros(weights[name].shape)
  for place in np.ndindex(found.shape):
    moved = []
    for sign in (1, -1):
      leaf = weights[name].astype(float)
      leaf[place] += sign * step
      moved.append(function({**weights, name: leaf}))
    found[place] = (moved[0] - moved[1]) / (2 * step)
  return found


SIZES = (16, 32, 64, 32)
SPACE = Space('s', tuple(Choice(f'c{place}', tuple(range(1, size + 1))) for place, size in enumerate(SIZES)), dict)
SENSITIVITY = np.array([0.9, 0.1, 0.5, 0.02])


def cost(candidate):
  return sum(layer.macs * (option + 1) / size for layer, option, size in zip(LAYERS, candidate, SIZES, strict=True))


def quality(candidate):
  left = (np.array(candidate) + 1) / SIZES
  return float(1 - (SENSITIVITY * (1 - left) ** 2).sum())


def search(strategy, seed, count):
  state, found = strategy.init(seed), []
  for _ in range(count):
    candidate, state = strategy.propose(state)
    state = strategy.observe(state, candidate, Outcome(quality(candidate), cost(candidate)))
    found.append(candidate)
  return found, state


def test_it_keeps_to_the_budget_and_learns_what_a_layer_can_lose():
  """Half of the work must go; the second and the last layer hardly matter."""
  whole = sum(layer.macs for layer in LAYERS)
  strategy = strategies.amc(
    SPACE, layers=LAYERS, cost=cost, target=0.5 * whole, warmup=40, hidden=32, actor_rate=1e-3, critic_rate=1e-2,
    decay=0.95)
  late, early = [], []
  for seed in range(3):
    found, _ = search(strategy, seed, 140)
    assert all(cost(candidate) <= 0.5 * whole for candidate in found)
    early += [quality(candidate) for candidate in found[:40]]
    late += [quality(candidate) for candidate in found[-20:]]
  uniform = quality([size // 2 - 1 for size in SIZES])
  assert np.mean(late) > np.mean(early) + 0.05 and np.mean(late) > uniform


def test_the_reward_of_error_and_cost():
  assert rewards.error_by_log_cost(Outcome(0.9, np.e**2)) == pytest.approx(-0.2)
  with pytest.raises(ValueError, match='no positive logarithm'):
    rewards.error_by_log_cost(Outcome(0.9, 1.0))


@pytest.mark.parametrize(('changes', 'message'), [
  ({'layers': LAYERS[:3]}, '3 layers for 4 choices'), ({'warmup': 0}, 'warmup=0'),
  ({'target': 1.0}, 'the smallest candidate costs'), ({'deviation': 0.0}, 'deviation=0.0')])
def test_settings_that_mean_nothing_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    strategies.amc(SPACE, **{'layers': LAYERS, 'cost': cost, 'target': 1e9, **changes})
