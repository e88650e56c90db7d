"""Replays search strategies on a space that was evaluated as a whole: regret and hypervolume over seeds.

The table is JSON lines, one for each candidate of the space: 'options', the choices by name, and the figures that
--quality and --cost name. Every strategy gets the same number of evaluations; what it proposes twice costs nothing.

Example:
  python -m experiments.search --space=mobile28 --replay=rows.jsonl --workdir=runs/replay
"""
from __future__ import annotations

import math
import pathlib
import statistics as averages
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.table
from absl import flags

from experiments import commands
from experiments.engine import rows, statistics
from experiments.engine.errors import TableError
from lightjax.core import specs
from lightjax.search import Outcome, Space, measures, replays, rewards, spaces, strategies

_QUALITY = flags.DEFINE_string('quality', 'accuracy', 'Figure of a row that is to be large.')
_COST = flags.DEFINE_string('cost', 'latency_ms', 'Figure of a row that is to be small.')
_STRATEGIES = flags.DEFINE_list(
  'strategies', ['random', 'evolution', 'nsga2', 'controller'], 'Names of lightjax.search.strategies, or my_file:mine.')
_REWARD = flags.DEFINE_string(
  'reward', '', "Of the strategies that maximize one number: 'soft(target=2.0)', 'hard(target=2.0)', 'quality'; 'soft' "
  'with the median cost of the space as target where it is not given.')
_EVALUATIONS = flags.DEFINE_integer('evaluations', 60, 'Candidates that a search may evaluate.')


class Search(NamedTuple):
  """One replayed search.

  Attributes:
    strategy: its name.
    seed: of the search.
    regret: of the reward after each evaluation; a search that stopped early keeps its last value.
    hypervolume: after all evaluations, as a ratio of that of the whole space.
    evaluated: candidates that it looked up.
  """
  strategy: str
  seed: int
  regret: list[float]
  hypervolume: float
  evaluated: int


def replay(
  space: Space, table: Mapping[Any, Outcome], *, names: Sequence[str], reward: rewards.Reward, evaluations: int,
  seeds: int,
) -> list[Search]:
  """Every strategy with every seed.

  Args:
    space: that was evaluated.
    table: candidate to outcome, of the whole space.
    names: of strategies, as a command line gives them.
    reward: what strategies of one number maximize, and what regret is of.
    evaluations: of each search.
    seeds: searches of each strategy.
  Returns:
    The searches, strategy by strategy. The reference of hypervolumes is the worst quality and the largest cost.
  Raises:
    SpecError: an unknown strategy, or more evaluations than candidates.
  """
  reference = Outcome(min(each.quality for each in table.values()), max(each.cost for each in table.values()))
  best, area = max(map(reward, table.values())), measures.hypervolume(list(table.values()), reference=reference)
  found = []
  for name in names:
    strategy = specs.call(
      specs.resolve(name, strategies, field='strategies'), {}, space, field=f'strategies.{name}', reward=reward)
    for seed in range(seeds):
      seen = specs.call(
        replays.replay, {'evaluations': evaluations, 'seed': seed}, strategy, table, field='replay')
      regret = measures.regret([reward(each) for each in seen], best=best).tolist()
      regret += regret[-1:] * (evaluations - len(regret))
      volume = measures.hypervolume(seen, reference=reference)
      found.append(Search(name, seed, regret, volume / area if area else math.nan, len(seen)))
  return found


def grid(searches: Sequence[Search], title: str) -> rich.table.Table:
  """Mean and 95 % interval of both figures, and whether they are better than those of random search."""
  table = rich.table.Table(
    'strategy', 'regret', 'vs random', 'hypervolume', 'vs random', 'evaluated', title=title, box=None)
  by_name: dict[str, list[Search]] = {}
  for each in searches:
    by_name.setdefault(each.strategy, []).append(each)
  for name, group in by_name.items():
    cells = []
    for figure, is_higher_better in ((_final_regret, False), (_hypervolume, True)):
      values = [figure(each) for each in group]
      around = statistics.compare(values, 0.0, is_higher_better=is_higher_better)
      cells.append(f'{around.difference:.4f} ({around.low:.4f} to {around.high:.4f})')
      if name == 'random' or 'random' not in by_name:
        cells.append('')
        continue
      theirs = statistics.summarize([figure(each) for each in by_name['random']])
      against = statistics.compare(
        values, theirs.mean, is_higher_better=is_higher_better, std=theirs.std, n=theirs.n)
      cells.append(f'{against.difference:+.4f} ({against.low:+.4f} to {against.high:+.4f}), {against.verdict}')
    table.add_row(name, *cells, f'{averages.mean(each.evaluated for each in group):g}')
  return table


def _final_regret(search: Search) -> float:
  return search.regret[-1]


def _hypervolume(search: Search) -> float:
  return search.hypervolume


def main() -> int:
  """Run the command."""
  space = spaces.load(flags.FLAGS.space)
  source = pathlib.Path(flags.FLAGS.replay)
  if not source.is_file():
    raise specs.SpecError(f'--replay={source}: no such file.')
  try:
    lines = rows.read(source)
  except TableError as error:
    raise specs.SpecError(str(error)) from None
  fields = {'quality': _QUALITY.value, 'cost': _COST.value}
  table = specs.call(replays.outcomes, fields, space, lines, field=f'--replay={source}')
  middle = float(np.median([each.cost for each in table.values()]))
  text = _REWARD.value or f'soft(target={middle!r})'
  reward = specs.resolve_call(text, rewards, field='reward')
  searches = replay(
    space, table, names=_STRATEGIES.value, reward=reward, evaluations=_EVALUATIONS.value, seeds=flags.FLAGS.seeds)
  console = rich.console.Console()
  if not console.is_terminal:
    console = rich.console.Console(width=200)
  about = f'{_EVALUATIONS.value} of {space.count} evaluated, {flags.FLAGS.seeds} seeds, reward {text}'
  console.print(grid(searches, f'{space.name}: {about}'))
  place = pathlib.Path(flags.FLAGS.workdir) / 'searches.jsonl'
  rows.write(place, [each._asdict() for each in searches])
  print(f'written: {place}')
  return 0


if __name__ == '__main__':
  flags.DEFINE_string('space', 'mobile28', "A function of lightjax.search.spaces, or 'my_file:my_space'.")
  flags.DEFINE_integer('seeds', 20, 'Searches of each strategy.')
  flags.DEFINE_string('replay', None, 'Rows of the whole space, JSON lines.')
  flags.DEFINE_string('workdir', None, 'Folder for the rows of the searches.')
  flags.mark_flags_as_required(['workdir', 'replay'])
  commands.launch(main)
