"""What a strategy is: three pure functions and a state that is a pytree of NumPy arrays.

A search can be stored at any time and goes on with the same candidates. Several may be proposed before the first of
them is observed. Randomness is a function of the seed and of the number of the proposal.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lightjax.search.rewards import Outcome
from lightjax.search.space import Candidate, Space

__all__ = ['State', 'Strategy', 'strategy']


class State(NamedTuple):
  """What every strategy knows.

  Attributes:
    seed: of the search.
    proposed: candidates proposed so far.
    candidates: those observed, in that order, [n, choices].
    outcomes: quality and cost of each, [n, 2].
    policy: further arrays that a strategy learns.
  """
  seed: Int[np.ndarray, '']
  proposed: Int[np.ndarray, '']
  candidates: Int[np.ndarray, 'n c']
  outcomes: Float[np.ndarray, 'n 2']
  policy: Any = ()


class Strategy(NamedTuple):
  """One way to search.

  Attributes:
    init: seed -> state.
    propose: state -> (candidate, state).
    observe: (state, candidate, outcome) -> state; in any order, and for candidates that nobody proposed as well.
    base: state -> the candidate that proposals are variations of and go on from with what it has learned; None where
      all start from the same.
  """
  init: Callable[[int], State]
  propose: Callable[[State], tuple[Candidate, State]]
  observe: Callable[[State, Candidate, Outcome], State]
  base: Callable[[State], Candidate | None] = lambda state: None


Pick = Callable[[State, np.random.Generator], Candidate]
Learn = Callable[[State, Candidate, Outcome], Any]


def strategy(
  space: Space, pick: Pick, policy: Any = (), learn: Learn | None = None,
  base: Callable[[State], Candidate | None] = lambda state: None,
) -> Strategy:
  """A strategy of its own parts.

  Args:
    space: to search in.
    pick: (state, generator of this proposal) -> candidate.
    policy: arrays to start with, or a function of the seed that makes them.
    learn: (state before the outcome, candidate, outcome) -> the policy after it; without it the policy stays.
    base: as in `Strategy`.
  Returns:
    The strategy; it refuses outcomes that are none.
  """

  def init(seed: int) -> State:
    return State(
      np.asarray(seed), np.asarray(0), np.zeros((0, len(space.choices)), int), np.zeros((0, 2)),
      policy(seed) if callable(policy) else policy)

  def propose(state: State) -> tuple[Candidate, State]:
    generator = np.random.default_rng((int(state.seed), int(state.proposed)))
    return pick(state, generator), state._replace(proposed=np.asarray(int(state.proposed) + 1))

  def observe(state: State, candidate: Candidate, outcome: Outcome) -> State:
    space.options(candidate)  # refuses what is no candidate
    if not np.isfinite(outcome).all() or outcome.cost <= 0:
      raise ValueError(f'observe: {outcome} of {candidate}; quality is finite, cost finite and positive.')
    return state._replace(
      candidates=np.concatenate([state.candidates, [candidate]]),
      outcomes=np.concatenate([state.outcomes, [outcome]]),
      policy=learn(state, candidate, outcome) if learn else state.policy)

  return Strategy(init, propose, observe, base)
