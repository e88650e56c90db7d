"""Searches in a space that was evaluated as a whole: what a strategy would have found, at no cost."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightjax.search.rewards import Outcome
from lightjax.search.space import Candidate, Space
from lightjax.search.strategy import Strategy

__all__ = ['outcomes', 'replay']

# A policy that has made up its mind proposes what is known, again and again.
PROPOSALS_PER_EVALUATION = 50


def outcomes(space: Space, rows: Iterable[Mapping[str, Any]], *, quality: str, cost: str) -> dict[Candidate, Outcome]:
  """The outcome of every candidate of a space.

  Args:
    space: what was evaluated.
    rows: each with 'options', name of a choice to its option, and the two figures.
    quality: name of the figure that is to be large.
    cost: name of the figure that is to be small.
  Returns:
    Candidate to outcome, in the order of the space.
  Raises:
    ValueError: a row lacks a field or is of no candidate, a candidate has two rows or none.
  """
  found: dict[Candidate, Outcome] = {}
  for number, row in enumerate(rows, 1):
    for field in ('options', quality, cost):
      if field not in row:
        raise ValueError(f'row {number} has no {field!r}; it has {", ".join(sorted(row))}.')
    candidate = space.candidate(row['options'])
    if candidate in found:
      raise ValueError(f'row {number} is the second one of {row["options"]}; keep one.')
    found[candidate] = Outcome(float(row[quality]), float(row[cost]))
  missing = [candidate for candidate in space if candidate not in found]
  if missing:
    example = space.options(missing[0])
    raise ValueError(f'{len(missing)} of {space.count} candidates have no row, such as {example}; evaluate them all.')
  return {candidate: found[candidate] for candidate in space}


def replay(
  strategy: Strategy, table: Mapping[Candidate, Outcome], *, evaluations: int, seed: int,
) -> list[Outcome]:
  """What a strategy finds with a number of evaluations.

  Proposals of what was evaluated before are answered again and are free, as those of a search that keeps its rows.

  Args:
    strategy: to be replayed.
    table: the outcome of every candidate.
    evaluations: different candidates that may be looked up.
    seed: of the search.
  Returns:
    The outcomes in the order of the evaluations. Fewer than asked for, if 50 proposals for each of them were not
    enough, as for a policy that has made up its mind.
  Raises:
    ValueError: more evaluations than candidates, or none.
  """
  if not 0 < evaluations <= len(table):
    raise ValueError(f'evaluations={evaluations}: the table has {len(table)} candidates.')
  state, seen = strategy.init(seed), dict[Candidate, Outcome]()
  for _ in range(PROPOSALS_PER_EVALUATION * evaluations):
    candidate, state = strategy.propose(state)
    state = strategy.observe(state, candidate, table[candidate])
    seen.setdefault(candidate, table[candidate])
    if len(seen) == evaluations:
      break
  return list(seen.values())
