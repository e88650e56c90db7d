"""Search: spaces of candidates, strategies that propose the next one, latency tables, measures of how good they were.

  space = spaces.mobile28()
  strategy = strategies.evolution(space, reward=rewards.soft(target=2.0))
  state = strategy.init(0)
  candidate, state = strategy.propose(state)
  state = strategy.observe(state, candidate, Outcome(quality=0.9, cost=1.7))

No state is kept elsewhere, so that a stored one goes on alike. NSGA-II is the short one of `strategies`, not optuna's:
an optuna study keeps its state in a storage of its own, which is no pytree.
"""
from lightjax.search import allocation, channels, latency, measures, replays, rewards, spaces, strategies
from lightjax.search.rewards import Outcome
from lightjax.search.space import Candidate, Choice, Space
from lightjax.search.strategy import State, Strategy

__all__ = [
  'Candidate', 'Choice', 'Outcome', 'Space', 'State', 'Strategy', 'allocation', 'channels', 'latency', 'measures',
  'replays', 'rewards', 'spaces', 'strategies',
]
