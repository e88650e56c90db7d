"""Bring the results of several machines together; of two that disagree, both are shown and ours stays.

  python -m experiments.merge --into=runs runs_of_one runs_of_another
  python -m experiments.table --table=NAME --notrain --workdir=runs

The arguments are work folders (--workdir of experiments.table). Units are copied whole, checkpoints included: a teacher
that was trained elsewhere can teach here. Ends with 0, or 1 when results conflict or a unit could not be copied.
"""
from __future__ import annotations

import pathlib
import sys

import rich.console
import rich.table
from absl import flags

from experiments import commands, unit
from experiments.engine import merging
from experiments.engine.errors import TableError

_INTO = flags.DEFINE_string('into', 'runs', 'The work folder that gets the results.')
_MOST_SOURCES = 1000


def main(*sources: str) -> int:
  """Run the command."""
  console = rich.console.Console()
  into = pathlib.Path(_INTO.value)
  try:
    if not sources:
      raise TableError('name the work folders to merge: python -m experiments.merge --into=runs FOLDER ...')
    merged = merging.merge(into, [pathlib.Path(source) for source in sources], unit=unit)
  except TableError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print(f'{into}: {len(merged.copied)} units copied, {len(merged.same)} were there with the same figures')
  for identity in merged.blocked:
    print(f'not copied: {into / "units" / identity} is there without a result; let it finish, or remove it')
  if merged.conflicts:
    table = rich.table.Table('unit', 'name', 'seed', 'figure', 'ours', 'theirs', 'from', title='conflicts; ours stays')
    for conflict in merged.conflicts:
      table.add_row(*map(str, conflict))
    console.print(table)
  return 1 if merged.conflicts or merged.blocked else 0


if __name__ == '__main__':
  commands.launch(main, most_arguments=_MOST_SOURCES)
