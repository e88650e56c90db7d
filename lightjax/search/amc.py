"""AMC: an agent that walks through the layers and says of each how much of it goes, trained by DDPG."""
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from scipy import special

from lightjax.core import rngs
from lightjax.search import rewards
from lightjax.search.channels import Layer
from lightjax.search.rewards import Outcome, Reward
from lightjax.search.space import Candidate, Space
from lightjax.search.strategy import State, Strategy, strategy

__all__ = ['amc', 'bounded', 'features', 'truncated_normal']


def amc(
  space: Space, *, layers: Sequence[Layer], cost: Callable[[Candidate], float], target: float,
  reward: Reward = rewards.quality, warmup: int = 100, deviation: float = 0.5, decay: float = 0.95, hidden: int = 300,
  actor_rate: float = 1e-4, critic_rate: float = 1e-3, soft: float = 0.01, batch_size: int = 64, memory: int = 100,
  remembered: float = 0.5,
) -> Strategy:
  """Deep deterministic policy gradient over layers: an action is the ratio of a layer that goes.

  An episode is a candidate: layer by layer, an action a ~ N(actor(s), deviation^2) within 0..1, bounded so that the
  target can still be met (`bounded`), rounded to an option. Every step of it has the reward R of the whole. After each
  episode beyond `warmup`, as many updates as there are layers, on batches of the last `memory` episodes:

    critic: minimize (R - b + Q'(s', actor'(s')) - Q(s, a))^2, without Q' at the last layer
    actor:  maximize Q(s, actor(s))
    Q' and actor' move towards both by the ratio `soft`; b is a moving average of the batches' rewards

  Args:
    space: a choice for each layer, whose options are ascending numbers of channels.
    layers: what the agent sees of each, from `channels.layers`.
    cost: candidate -> cost, such as MACs; it must not fall when an option grows.
    target: of the cost, which no candidate exceeds; the whole network's for a search that the reward alone keeps small.
    reward: of an outcome, `rewards.quality` within a budget or `rewards.error_by_log_cost`.
    warmup: episodes before the first update.
    deviation: of the exploration, first.
    decay: of the deviation, for each episode after `warmup`.
    hidden: units of each of the two hidden layers of actor and critic.
    actor_rate: of Adam.
    critic_rate: likewise.
    soft: ratio by which the targets move at each update.
    batch_size: transitions in an update.
    memory: episodes that are replayed.
    remembered: decay of the baseline b at each update; 0 takes the batch's own mean.
  Returns:
    The strategy.
  Raises:
    ValueError: not one layer a choice; the smallest candidate costs more than the target; a setting out of range.
  Source: He et al. 2018, arXiv:1802.03494, section 3 and algorithm 1; for DDPG Lillicrap et al. 2015,
    arXiv:1509.02971.
  Deviations from the paper: layers are coupled groups of channels, so that the cost of the rest is the cost of a whole
    candidate and no sum of layers; transitions are what was done, after bounds and rounding; the baseline is that of
    the authors' code, a moving average over batches.
  """
  sizes, memory_size = space.sizes, memory * len(space.sizes)
  cost = functools.cache(cost)
  if len(layers) != len(sizes):
    raise ValueError(f'amc: {len(layers)} layers for {len(sizes)} choices; give one for each.')
  if min(warmup, memory, batch_size, hidden) < 1 or not deviation > 0 or not 0 <= remembered < 1:
    raise ValueError(
      f'amc: warmup={warmup}, memory={memory}, batch_size={batch_size} and hidden={hidden} are 1 or more, '
      f'deviation={deviation} positive, remembered={remembered} at least 0 and under 1.')
  if not cost((0,) * len(sizes)) <= target:
    raise ValueError(
      f'amc: the smallest candidate costs {cost((0,) * len(sizes)):,.6g}, more than the target of {target:,.6g}; raise '
      'the target, or let choices have smaller options.')
  ratios = [np.array(choice.options, float) / choice.options[-1] for choice in space.choices]
  optimizers = _Pair(optax.adam(actor_rate), optax.adam(critic_rate))

  def gone(candidate: Sequence[int]) -> Float[np.ndarray, ' n']:
    """The actions that a candidate, or the beginning of one, consists of."""
    return np.array([1 - ratio[option] for ratio, option in zip(ratios, candidate, strict=False)])

  def pick(state: State, generator: np.random.Generator) -> Candidate:
    spread = deviation * decay ** max(0, int(state.proposed) - warmup)
    chosen: Candidate = ()
    for place, ratio in enumerate(ratios):
      seen = features(layers, gone(chosen))[place]
      action = truncated_normal(float(_act(state.policy['actor'], seen)), spread, float(generator.random()))
      option = int(np.argmin(abs(1 - ratio - action)))
      chosen = (*chosen, bounded(chosen, option, len(sizes), cost=cost, target=target))
    return chosen

  @functools.lru_cache(maxsize=memory)
  def transitions(candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
    actions = gone(candidate)
    return features(layers, actions), actions

  def learn(state: State, candidate: Candidate, outcome: Outcome) -> Any:
    seen = len(state.candidates) + 1
    if seen <= warmup:
      return state.policy
    episodes = [*map(_candidate, state.candidates[-memory + 1:] if memory > 1 else ()), candidate]
    found = [reward(Outcome(*map(float, each))) for each in state.outcomes[-memory + 1:]] if memory > 1 else []
    found.append(reward(outcome))
    states, actions = (np.concatenate(parts) for parts in zip(*map(transitions, episodes), strict=True))
    filled = len(actions)
    padded = [np.pad(each, ((0, memory_size - filled), *((0, 0),) * (each.ndim - 1))).astype(np.float32)
              for each in (states, actions, np.repeat(found, len(sizes)))]
    settings = _Settings(len(sizes), batch_size, soft, remembered)
    learned = _improve(optimizers, settings, state.policy, *padded, filled, rngs.fold(rngs.root(int(state.seed)), seen))
    return jax.tree.map(np.asarray, learned)

  return strategy(space, pick, functools.partial(_begin, optimizers, hidden), learn)


def features(layers: Sequence[Layer], actions: Sequence[float] | np.ndarray) -> Float[np.ndarray, 'n 11']:
  """What the agent sees of each layer: (t, n, c, h, w, stride, k, W[t], reduced, rest, a[t-1]), all in 0..1.

  reduced = sum of a[i] W[i] before the layer, rest = sum of W[i] behind it, both over the sum of all; the others are
  divided by the largest of all layers.

  Args:
    layers: of the network.
    actions: ratio that goes of the first layers, in order.
  Returns:
    A row for each layer; those behind the first without an action are as if all went on with 0.
  Source: He et al. 2018, arXiv:1802.03494, eq. 1.
  """
  work = np.array([layer.macs for layer in layers], float)
  taken = np.zeros(len(layers))
  taken[:len(actions)] = actions
  before = np.concatenate([[0.0], np.cumsum(taken * work)[:-1]])
  rest = work.sum() - np.cumsum(work)
  plain = np.array([[place, layer.outputs, layer.inputs, layer.height, layer.width, layer.strides, layer.window,
                     layer.macs] for place, layer in enumerate(layers)], float)
  plain /= np.maximum(plain.max(0), 1e-9)
  last = np.concatenate([[0.0], taken[:-1]])
  return np.concatenate([plain, np.stack([before / work.sum(), rest / work.sum(), last], 1)], 1).astype(np.float32)


def bounded(
  chosen: Candidate, option: int, count: int, *, cost: Callable[[Candidate], float], target: float,
) -> int:
  """An option, lowered until the target can be met: with the least of all layers that are still to come.

  Args:
    chosen: options of the layers before.
    option: that the agent wants for this one.
    count: of layers.
    cost: candidate -> cost.
    target: of the cost.
  Returns:
    The largest option up to `option` that meets it, by bisection; 0 where none does.
  Source: He et al. 2018, arXiv:1802.03494, algorithm 1, where costs are sums over layers: a[t] >= W_duty / W[t].
  """
  rest = (0,) * (count - len(chosen) - 1)
  if cost((*chosen, option, *rest)) <= target:
    return option
  low, high = 0, option
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if cost((*chosen, middle, *rest)) <= target else (low, middle)
  return low


def truncated_normal(mean: float, deviation: float, uniform: float) -> float:
  """A number of N(mean, deviation^2) within 0..1, by the inverse of its distribution.

  Args:
    mean: 0..1.
    deviation: positive.
    uniform: random number 0..1.
  Returns:
    0..1.
  """
  low, high = special.ndtr(np.array([-mean, 1 - mean]) / deviation)
  return float(np.clip(mean + deviation * special.ndtri(low + uniform * (high - low)), 0.0, 1.0))


class _Pair(NamedTuple):
  """Optimizers."""
  actor: optax.GradientTransformation
  critic: optax.GradientTransformation


class _Settings(NamedTuple):
  """Of the updates after an episode."""
  updates: int
  batch_size: int
  soft: float
  remembered: float


def _begin(optimizers: _Pair, hidden: int, seed: int) -> dict[str, Any]:
  """Networks as the first episode finds them."""
  actor, critic = (
    _network(rngs.fold(rngs.root(seed), name), inputs, hidden) for name, inputs in (('actor', 11), ('critic', 12)))
  policy = {
    'actor': actor, 'critic': critic, 'actor_target': actor, 'critic_target': critic,
    'actor_moments': optimizers.actor.init(actor), 'critic_moments': optimizers.critic.init(critic),
    'baseline': jnp.zeros(()), 'updates': jnp.zeros((), jnp.int32)}
  return jax.tree.map(np.asarray, policy)


def _network(key: jax.Array, inputs: int, hidden: int) -> dict[str, jax.Array]:
  """Weights of two hidden layers and one output."""
  sizes = (inputs, hidden, hidden, 1)
  keys = jax.random.split(key, 3)
  weights = {f'weight{i}': jax.random.normal(keys[i], (sizes[i], sizes[i + 1])) * (2 / sizes[i])**0.5 for i in (0, 1)}
  # The last layer starts small, so that the first actions are about a half (Lillicrap et al. 2015, section 7).
  return weights | {'weight2': 3e-3 * jax.random.normal(keys[2], (hidden, 1))} | {
    f'bias{i}': jnp.zeros(sizes[i + 1]) for i in range(3)}


def _run(network: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
  for i in (0, 1):
    x = jax.nn.relu(x @ network[f'weight{i}'] + network[f'bias{i}'])
  return (x @ network['weight2'] + network['bias2'])[..., 0]


@jax.jit
def _act(actor: Mapping[str, jax.Array], seen: jax.Array) -> jax.Array:
  return jax.nn.sigmoid(_run(actor, seen))


def _value(critic: Mapping[str, jax.Array], seen: jax.Array, action: jax.Array) -> jax.Array:
  return _run(critic, jnp.concatenate([seen, action[..., None]], -1))


class _Batch(NamedTuple):
  """Transitions: what was seen, done and found, what was seen then, and whether there was no more to see."""
  seen: jax.Array
  action: jax.Array
  reward: jax.Array
  following: jax.Array
  is_last: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def _improve(
  optimizers: _Pair, settings: _Settings, policy: Mapping[str, Any], states: jax.Array, actions: jax.Array,
  found: jax.Array, filled: jax.Array, key: jax.Array,
) -> dict[str, Any]:
  """The updates after an episode; transitions are in order, `settings.updates` an episode, `filled` of them real."""

  def update(policy: dict[str, Any], key: jax.Array) -> tuple[dict[str, Any], None]:
    index = jax.random.randint(key, (settings.batch_size,), 0, filled)
    is_last = (index + 1) % settings.updates == 0
    following = states[jnp.where(is_last, index, index + 1)]
    return _update(
      optimizers, settings, policy, _Batch(states[index], actions[index], found[index], following, is_last)), None

  learned, _ = jax.lax.scan(update, dict(policy), jax.random.split(key, settings.updates))
  return learned


def _update(optimizers: _Pair, settings: _Settings, policy: Mapping[str, Any], batch: _Batch) -> dict[str, Any]:
  mean = batch.reward.mean()
  baseline = jnp.where(
    policy['updates'] == 0, mean, settings.remembered * policy['baseline'] + (1 - settings.remembered) * mean)
  later = _value(policy['critic_target'], batch.following, _act(policy['actor_target'], batch.following))
  wanted = batch.reward - baseline + jnp.where(batch.is_last, 0.0, later)

  def error(critic: Any) -> jax.Array:
    return jnp.square(wanted - _value(critic, batch.seen, batch.action)).mean()

  def regret(actor: Any) -> jax.Array:
    return -_value(critic, batch.seen, _act(actor, batch.seen)).mean()

  step, critic_moments = optimizers.critic.update(jax.grad(error)(policy['critic']), policy['critic_moments'])
  critic = optax.apply_updates(policy['critic'], step)
  step, actor_moments = optimizers.actor.update(jax.grad(regret)(policy['actor']), policy['actor_moments'])
  actor = optax.apply_updates(policy['actor'], step)

  def towards(old: Any, new: Any) -> Any:
    return jax.tree.map(lambda old, new: old + settings.soft * (new - old), old, new)

  return {
    'actor': actor, 'critic': critic, 'actor_target': towards(policy['actor_target'], actor),
    'critic_target': towards(policy['critic_target'], critic), 'actor_moments': actor_moments,
    'critic_moments': critic_moments, 'baseline': baseline, 'updates': policy['updates'] + 1}


def _candidate(row: np.ndarray) -> Candidate:
  return tuple(map(int, row))
