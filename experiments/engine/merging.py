"""Units that were trained on several machines, brought together: a result that is there is never overwritten."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from experiments.engine.errors import TableError

# Figures that a machine measures: they differ between two runs of the same unit, and say nothing against either.
_MEASURED = re.compile(r'(^|/)(seconds|step_ms|latency_ms|speedup)$')


class Conflict(NamedTuple):
  """One figure of one unit of which two machines have different values."""

  id: str
  name: str
  seed: int
  figure: str
  ours: Any
  theirs: Any
  source: pathlib.Path


class Merged(NamedTuple):
  """What became of the units of all sources, by id: `blocked` have a folder here without a result."""

  copied: list[str]
  same: list[str]
  blocked: list[str]
  conflicts: list[Conflict]


def merge(into: pathlib.Path, sources: Sequence[pathlib.Path], *, unit: ModuleType) -> Merged:
  """Copies the finished units of other work folders into one, each whole or not at all.

  Args:
    into: a work folder; its units are left as they are.
    sources: work folders, one after another.
    unit: the unit module (result), which says whether a unit is finished and undamaged.
  Returns:
    What was copied, what was there with the same figures, what a folder without a result keeps out, and conflicts.
  Raises:
    TableError: a source is no work folder, or `into` itself.
    OSError: a folder cannot be read or written.
  """
  root = into / 'units'
  for source in sources:
    if not (source / 'units').is_dir():
      raise TableError(f'{source}: no work folder (it has no units/); want what --workdir of a table was.')
    if (source / 'units').resolve() == root.resolve():
      raise TableError(f'{source}: is merged into itself.')
  root.mkdir(parents=True, exist_ok=True)
  merged = Merged([], [], [], [])
  for source in sources:
    for folder in sorted((source / 'units').iterdir()):
      theirs = None if folder.name.startswith('.') else unit.result(folder.parent, folder.name)
      if theirs is None:
        continue
      ours = unit.result(root, folder.name)
      if ours is None:
        done = _copy(folder, root, unit=unit)
        (merged.copied if done else merged.blocked).append(folder.name)
        continue
      differing = [
        Conflict(folder.name, str(ours.get('name')), ours.get('seed', 0), figure, one, other, source)
        for figure, one, other in _differences(ours, theirs)
      ]
      merged.conflicts.extend(differing)
      if not differing:
        merged.same.append(folder.name)
  return merged


def _copy(folder: pathlib.Path, root: pathlib.Path, *, unit: ModuleType) -> bool:
  """False if a folder of that name is there, which a process may be at."""
  target, partial = root / folder.name, root / f'.incoming_{folder.name}'
  if target.exists():
    return False
  shutil.rmtree(partial, ignore_errors=True)
  shutil.copytree(folder, partial)
  if unit.result(root, partial.name) is None:
    raise OSError(f'{folder} was damaged on its way to {partial}')
  try:
    partial.rename(target)
  except OSError:
    if not target.exists():
      raise
    shutil.rmtree(partial)  # one began to train it meanwhile
    return False
  return True


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
  """Figures that differ between two results of one unit, those apart that are measured on a machine."""
  for figure in dict.fromkeys((*ours['metrics'], *theirs['metrics'])):
    one, other = ours['metrics'].get(figure), theirs['metrics'].get(figure)
    if not _MEASURED.search(figure) and json.dumps(one) != json.dumps(other):  # as text: NaN equals NaN
      yield figure, one, other
  if ours.get('numerics') != theirs.get('numerics'):
    yield 'numerics', ours.get('numerics'), theirs.get('numerics')
