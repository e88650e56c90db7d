"""How many channels each group of a run's network keeps, found by a search before its first step (`config.search`).

Every candidate that was evaluated is a row of `search/rows.jsonl` in the run's folder, written before the next one is
begun; a search that was stopped, however, repeats its proposals and finds their rows there. The best candidate within
the budget is what the run then trains (the paper's long fine-tuning), evaluates on the test split and stores.
"""
from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import building, candidates
from experiments.candidates import Kept, Masked, Network
from experiments.engine import rows
from experiments.engine.errors import TableError
from lightjax.core import specs
from lightjax.core.typing import Variables
from lightjax.prune import surgery
from lightjax.prune.surgery import Removal
from lightjax.search import Candidate, Outcome, Strategy, replays, rewards, strategies
from lightjax.train import checkpoints

Progress = Callable[[dict[str, Any]], None]
FOLDER = 'search'


def asked(config: ml_collections.ConfigDict) -> bool:
  """Whether a config searches."""
  return bool(config.search.strategy)


def rehearse(
  config: ml_collections.ConfigDict, built: building.Program, variables: Variables,
) -> tuple[Removal, Variables]:
  """Look at all that a config says of its search, and remove nothing.

  Raises:
    SpecError: as `find`, but for a latency that can't be reached.
  """
  searched = candidates.network(config, built, variables)
  is_counted = config.remove.cost != 'latency'
  cost = candidates.cost(searched, pathlib.Path()) if is_counted else lambda candidate: float(1 + sum(candidate))
  _strategy(searched, cost)
  if not len(built.splits.validation):
    raise specs.SpecError('data.validation=0: a search needs a validation split, the test set is not for choosing.')
  return surgery.plan(searched.coupling, {}), variables


def find(
  config: ml_collections.ConfigDict, built: building.Program, variables: Variables, folder: pathlib.Path,
  progress: Progress,
) -> tuple[Removal, Variables]:
  """Search, or go on with a search; one that is done is found again from its rows.

  Args:
    config: complete.
    built: program of the network that loses channels.
    variables: that the search starts from.
    folder: of the run.
    progress: called with {'step', 'steps', 'phase'}.
  Returns:
    What is left of the network, and the whole network's variables with what was trained of the candidate, masked.
  Raises:
    SpecError: a field names nothing, or the budget can't be met.
    OSError: the rows are damaged, or of another search.
    ArithmeticError: the training of a candidate diverged.
  """
  place = folder / FOLDER
  place.mkdir(parents=True, exist_ok=True)
  searched = candidates.network(config, built, variables)
  cost = candidates.cost(searched, place / 'latency.json')
  strategy, target = _strategy(searched, cost)
  line = _Line(searched, Masked(searched), place)
  try:
    found = rows.read(place / 'rows.jsonl')
  except TableError as error:
    raise OSError(str(error)) from error
  known = {searched.space.candidate(row['options']): row for row in found}
  state, seen, repeated = strategy.init(config.seed), dict[Candidate, Any](), 0
  while repeated < replays.PROPOSALS_PER_EVALUATION and len(seen) < (config.search.evaluations or np.inf):
    candidate, state = strategy.propose(state)
    repeated = repeated + 1 if candidate in seen else 0
    if candidate not in known:
      progress({'step': len(seen), 'steps': max(config.search.evaluations, len(seen) + 1), 'phase': 'searching'})
      known[candidate] = {'number': len(known), 'options': searched.space.options(candidate), **line.evaluated(
        candidate), 'predicted': cost(candidate)}
      rows.write(place / 'rows.jsonl', list(known.values()))
    row = seen[candidate] = known[candidate]
    state = strategy.observe(state, candidate, Outcome(row['accuracy'], row['predicted']))
    base = strategy.base(state)
    if base is not None and base != line.last:
      line.accept(base)
      _measure(line, place, known, base)
  if len(seen) < len(known):
    raise OSError(f'{place}/rows.jsonl holds rows of another search; remove {place} to begin again')
  within = [candidate for candidate, row in seen.items() if row['predicted'] <= target]
  if not within:
    raise specs.SpecError(
      f'search: none of {len(seen)} candidates costs {target:,.6g} or less; raise '
      f'remove.ratio={config.remove.ratio} or search.evaluations={config.search.evaluations}.')
  best = max(within, key=lambda candidate: (seen[candidate]['accuracy'], -seen[candidate]['predicted']))
  trained, kept = line.trained(best, seen[best]['base'])
  _measure(line, place, known, best)
  return surgery.plan(searched.coupling, kept), trained


def _strategy(searched: Network, cost: Callable[[Candidate], float]) -> tuple[Strategy, float]:
  """The config's strategy, and the cost that is to be reached."""
  config, fields = searched.config, searched.config.search
  if fields.steps < 0 or fields.evaluations < 0:
    raise specs.SpecError(f'search.steps={fields.steps}, search.evaluations={fields.evaluations}: numbers from 0 on.')
  if not 0 < config.remove.ratio <= 1:
    raise specs.SpecError(f'remove.ratio={config.remove.ratio} lies in 0..1.')
  target = config.remove.ratio * cost(tuple(size - 1 for size in searched.space.sizes))
  given = {
    'cost': cost, 'target': target, 'layers': candidates.layers(searched),
    'reward': specs.resolve_call(fields.reward, rewards, field='search.reward')}
  text = fields.strategy if '(' in fields.strategy else f'{fields.strategy}()'
  made = specs.resolve_call(text, strategies, field='search.strategy', given=(searched.space,), always=given)
  if not isinstance(made, Strategy):
    raise specs.SpecError(f'search.strategy={fields.strategy!r} returns {type(made).__name__}; want a Strategy.')
  if not fields.evaluations and made.base(made.init(config.seed)) is None:
    raise specs.SpecError(
      f'search.evaluations=0 with search.strategy={fields.strategy!r}, which has no end of its own; set a number.')
  return made, target


def _measure(line: _Line, place: pathlib.Path, known: dict[Candidate, dict[str, Any]], candidate: Candidate) -> None:
  """Add the measured latency to the row of a candidate that was taken, once."""
  row = known[candidate]
  if 'measured_ms' not in row:
    row |= candidates.measured(line.searched, *line.trained(candidate, row['base']))
    rows.write(place / 'rows.jsonl', list(known.values()))


class _Line:
  """The bases of a search, each trained from the one before: the network that it starts from, then what was accepted.

  A base is a function of the one before, so that it is trained again where no checkpoint has it.
  """

  def __init__(self, searched: Network, masked: Masked, place: pathlib.Path):
    self.searched, self._masked, self._place = searched, masked, place / 'bases'
    everything = {name: np.ones(len(each), bool) for name, each in searched.scores.items()}
    self._bases: list[Candidate] = [tuple(size - 1 for size in searched.space.sizes)]
    self._known: dict[int, tuple[Variables, Kept]] = {0: (searched.variables, everything)}
    self._scores = {0: searched.scores}

  @property
  def last(self) -> Candidate:
    """The newest base."""
    return self._bases[-1]

  def accept(self, candidate: Candidate) -> None:
    """A candidate of the newest base becomes the next one."""
    self._bases.append(candidate)

  def evaluated(self, candidate: Candidate) -> dict[str, Any]:
    """A candidate trained from the newest base: 'base', its number, 'accuracy' and 'seconds'."""
    begun, base = time.monotonic(), len(self._bases) - 1
    variables, kept = self._train(candidate, base)
    accuracy = self._masked.accuracy(variables, kept)
    return {'base': base, 'accuracy': accuracy, 'seconds': round(time.monotonic() - begun, 3)}

  def trained(self, candidate: Candidate, base: int) -> tuple[Variables, Kept]:
    """The variables of a candidate of a base, masked, and the channels that it keeps."""
    following = self._bases[base + 1:base + 2]
    return self._base(base + 1) if following == [candidate] else self._train(candidate, base)

  def _train(self, candidate: Candidate, base: int) -> tuple[Variables, Kept]:
    variables, left = self._base(base)
    if base not in self._scores:
      self._scores = {0: self.searched.scores, base: self.searched.within(variables, left)}
    kept = self.searched.kept(candidate, self._scores[base])
    steps = self.searched.config.search.steps
    return self._masked.train(variables, kept, base * steps), kept

  def _base(self, number: int) -> tuple[Variables, Kept]:
    if number not in self._known:
      found = self._stored(number)
      if found is None:
        found = self._train(self._bases[number], number - 1)
        checkpoints.save(self._place, number, found, keep=2)
      self._known = {each: self._known[each] for each in (0, number - 1) if each in self._known} | {number: found}
    return self._known[number]

  def _stored(self, number: int) -> tuple[Variables, Kept] | None:
    if number not in checkpoints.steps(self._place):
      return None
    try:
      found: tuple[Variables, Kept] = checkpoints.restore(self._place, number, self._known[0])
    except checkpoints.DamagedCheckpointError:
      return None  # trained again
    variables, kept = found
    return jax.tree.map(jnp.asarray, variables), kept



def figures(folder: pathlib.Path) -> dict[str, float]:
  """What the search of a run took: 'search/candidates', and 'search/seconds' for training and evaluating them."""
  found = rows.read(folder / FOLDER / 'rows.jsonl')
  return {'search/candidates': len(found), 'search/seconds': round(sum(row['seconds'] for row in found), 3)}
