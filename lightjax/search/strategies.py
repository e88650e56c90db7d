"""How a search goes on: which candidate is evaluated next, given the outcomes of those before.

The module is the registry of strategies; what one is says `strategy`.
"""
from __future__ import annotations

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lightjax.search import measures
from lightjax.search.amc import amc
from lightjax.search.netadapt import netadapt
from lightjax.search.rewards import Outcome, Reward
from lightjax.search.space import Candidate, Space
from lightjax.search.strategy import State, Strategy, strategy

__all__ = ['amc', 'controller', 'evolution', 'netadapt', 'nsga2', 'random']


def random(space: Space) -> Strategy:
  """Candidates drawn alike and independently, the baseline of every search.

  Args:
    space: to search in.
  Returns:
    The strategy.
  """
  return strategy(space, lambda state, generator: space.sample(generator))


def evolution(space: Space, *, reward: Reward, population: int = 20, sample: int = 5) -> Strategy:
  """Regularized evolution: the best of a sample of the population is mutated, and the oldest member dies.

  Args:
    space: to search in.
    reward: to be maximized.
    population: members P; the first P candidates are random, and later members are the last P observed.
    sample: members S that compete to be the parent, drawn with replacement.
  Returns:
    The strategy.
  Raises:
    ValueError: no members.
  Source: Real et al. 2019, arXiv:1802.01548, algorithm 1.
  Deviations from the paper: a mutation always changes one choice; the paper's may change nothing.
  """
  if population < 1 or sample < 1:
    raise ValueError(f'evolution: population={population}, sample={sample}; both have at least one member.')

  def pick(state: State, generator: np.random.Generator) -> Candidate:
    if len(state.candidates) < population or int(state.proposed) < population:
      return space.sample(generator)
    first = len(state.candidates) - population
    drawn = first + generator.integers(population, size=sample)
    return space.mutate(_candidate(state, max(drawn, key=lambda index: reward(_outcome(state, index)))), generator)

  return strategy(space, pick)


def nsga2(space: Space, *, population: int = 20, crossover: float = 0.9, mutation: float = 0.5) -> Strategy:
  """NSGA-II: the frontier of quality and cost by non-dominated sorting and crowding, with elitism.

  A generation is `population` outcomes; the parents of the next are the best of the parents before and of it.

  Args:
    space: to search in.
    population: members N; the first N candidates are random.
    crossover: probability that a child has two parents.
    mutation: probability that one choice of a child is changed.
  Returns:
    The strategy.
  Raises:
    ValueError: fewer than two members.
  Source: Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II, section III.
  Deviations from the paper: choices are crossed over uniformly and mutated to another option, as options have no
    distance; a candidate counts once among the parents, however often it was observed.
  """
  if population < 2:
    raise ValueError(f'nsga2: population={population}; two or more members have children.')

  def pick(state: State, generator: np.random.Generator) -> Candidate:
    if len(state.candidates) < population or int(state.proposed) < population:
      return space.sample(generator)
    parents = _survivors(state, population)

    def tournament() -> Candidate:
      # Parents are in order, the best first.
      return _candidate(state, parents[min(generator.integers(len(parents), size=2))])

    child = tournament()
    if generator.random() < crossover:
      child = space.crossover(child, tournament(), generator)
    return space.mutate(child, generator) if generator.random() < mutation else child

  return strategy(space, pick)


def controller(space: Space, *, reward: Reward, rate: float = 0.15, memory: float = 0.9) -> Strategy:
  """A policy that samples a candidate choice by choice, trained by the policy gradient.

  logits += rate * A * d log p(candidate) / d logits, with the advantage A = (R - mean) / deviation, at most 3 either
  way; both are moving averages over the rewards before.

  Args:
    space: to search in.
    reward: R, to be maximized; MnasNet's are `rewards.soft` and `rewards.hard`.
    rate: of learning.
    memory: decay of the moving averages, 0..1.
  Returns:
    The strategy.
  Raises:
    ValueError: a memory outside 0..1 or a rate that is not positive.
  Source: Williams 1992, REINFORCE; the controller of Tan et al. 2019, arXiv:1807.11626, section 4.2.
  Deviations from the paper: one softmax a choice in place of a recurrent network, and REINFORCE with a baseline in
    place of PPO; a few hundred evaluations, not 8,000, must train it.
  """
  if not 0 <= memory < 1 or not rate > 0:
    raise ValueError(f'controller: rate={rate}, memory={memory}; a rate is positive, a memory at least 0 and under 1.')
  bounds = np.cumsum(space.sizes)[:-1]

  def probabilities(logits: Float[np.ndarray, ' k']) -> list[Float[np.ndarray, ' o']]:
    exponentials = [np.exp(each - each.max()) for each in np.split(logits, bounds)]
    return [each / each.sum() for each in exponentials]

  def pick(state: State, generator: np.random.Generator) -> Candidate:
    return tuple(int(generator.choice(len(each), p=each)) for each in probabilities(state.policy['logits']))

  def learn(state: State, candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    seen, policy = len(state.candidates), state.policy
    now, mean, square = reward(outcome), policy['mean'], policy['square']
    # Averages of nothing say nothing: the first two rewards teach only what a usual reward is.
    debias = 1 - memory**seen
    deviation = np.sqrt(max(square / debias - (mean / debias) ** 2, 0.0)) if seen else 0.0
    advantage = (now - mean / debias) / deviation if deviation > 0 else 0.0
    gradient = np.concatenate([
      (np.arange(len(each)) == index) - each
      for each, index in zip(probabilities(policy['logits']), candidate, strict=True)])
    return {
      'logits': policy['logits'] + rate * np.clip(advantage, -3, 3) * gradient,
      'mean': np.asarray(memory * mean + (1 - memory) * now),
      'square': np.asarray(memory * square + (1 - memory) * now**2)}

  start = {'logits': np.zeros(sum(space.sizes)), 'mean': np.zeros(()), 'square': np.zeros(())}
  return strategy(space, pick, start, learn)


def _candidate(state: State, index: int) -> Candidate:
  return tuple(map(int, state.candidates[index]))


def _outcome(state: State, index: int) -> Outcome:
  return Outcome(*map(float, state.outcomes[index]))


def _survivors(state: State, population: int) -> tuple[int, ...]:
  """Indices of the parents after all complete generations, the best first."""
  complete = len(state.outcomes) // population
  return _survivors_of(
    tuple(map(_key, state.candidates[:complete * population])),
    tuple(Outcome(*row) for row in state.outcomes[:complete * population].tolist()), population)


def _key(row: Int[np.ndarray, ' c']) -> Candidate:
  return tuple(row.tolist())


@functools.lru_cache(maxsize=8)
def _survivors_of(
  candidates: tuple[Candidate, ...], outcomes: tuple[Outcome, ...], population: int,
) -> tuple[int, ...]:
  """By the generations before; cached, as each proposal of a generation asks for the same."""
  last = len(outcomes) - population
  before = _survivors_of(candidates[:last], outcomes[:last], population) if last else ()
  known = {candidates[index]: index for index in reversed((*before, *range(last, len(outcomes))))}
  indices = sorted(known.values())
  order = crowded_order([outcomes[index] for index in indices])
  return tuple(indices[place] for place in order[:population])


def crowded_order(outcomes: list[Outcome]) -> list[int]:
  """Indices by the front that an outcome is on, then by how much room it has there: the larger the earlier.

  Source: Deb et al. 2002, section III: fast non-dominated sort and crowding distance; ties by index.
  """
  order: list[int] = []
  left = list(range(len(outcomes)))
  while left:
    on_front = measures.frontier([outcomes[index] for index in left])
    front = [index for index, on in zip(left, on_front, strict=True) if on]
    left = [index for index, on in zip(left, on_front, strict=True) if not on]
    room = dict.fromkeys(front, 0.0)
    for axis in (0, 1):
      along = sorted(front, key=lambda index: outcomes[index][axis])
      room[along[0]] = room[along[-1]] = float('inf')
      span = outcomes[along[-1]][axis] - outcomes[along[0]][axis]
      for before, index, after in zip(along, along[1:], along[2:], strict=False):
        room[index] += (outcomes[after][axis] - outcomes[before][axis]) / span if span else 0.0
    order += sorted(front, key=lambda index: -room[index])
  return order
