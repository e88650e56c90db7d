"""The rows of a table: one a cell and seed, read from results on disk and kept in rows.jsonl. Never written by hand."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from experiments.engine.errors import TableError
from experiments.engine.tables import Cell

# Curves in the report are pictures: more points than pixels say nothing.
_CURVE_POINTS = 120


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file as a whole or not at all.

  Args:
    path: its folder is made if absent.
    text: what it holds.
  Raises:
    OSError: the disk is full or the folder unwritable; the old file is left as it was.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with partial.open('w', encoding='utf-8') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def dump(rows: Sequence[Mapping[str, Any]]) -> str:
  """Rows as JSON lines with sorted keys: equal rows are equal bytes.

  Args:
    rows: in the order of the cells, then of the seeds.
  Returns:
    One line a row.
  """
  return ''.join(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=True) + '\n' for row in rows)


def write(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes rows.jsonl, unless it holds these rows already.

  Args:
    path: the file.
    rows: in the order of the cells, then of the seeds.
  Raises:
    OSError: it cannot be written.
  """
  text = dump(rows)
  if not path.is_file() or path.read_text(encoding='utf-8') != text:
    write_text(path, text)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Rows of an earlier run; none when the file is absent.

  Args:
    path: a rows.jsonl.
  Returns:
    The rows.
  Raises:
    TableError: the file is no JSON lines; names the file and the line.
  """
  if not path.is_file():
    return []
  rows = []
  for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError as error:
      raise TableError(
        f'{path}:{number}: not a row ({error}); delete the file, it is written again from the results.'
      ) from error
  return rows


def curves(path: pathlib.Path, *, words: Sequence[str]) -> dict[str, list[list[float]]]:
  """The training curves of one unit, thinned for drawing.

  Args:
    path: metrics.jsonl of the unit, one record a line with 'split', 'step' or 'epoch', and figures.
    words: which figures are kept, such as ('loss', 'accuracy').
  Returns:
    '<split>/<word>' to points [epoch or step, value]; of steps that a resumed run repeated, the last counts.
  """
  if not path.is_file():
    return {}
  found: dict[str, dict[float, float]] = {}
  for line in path.read_text(encoding='utf-8').splitlines():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      continue  # a line that a kill cut short; the resumed run wrote it again
    at = record.get('epoch', record.get('step'))
    for word in words:
      if at is not None and isinstance(record.get(word), (int, float)):
        found.setdefault(f'{record.get("split", "train")}/{word}', {})[float(at)] = float(f'{record[word]:.6g}')
  result = {}
  for name, points in sorted(found.items()):
    ordered = sorted(points.items())
    stride = -(-len(ordered) // _CURVE_POINTS)
    kept = ordered[::-1][::stride][::-1]  # from the end, so that the last point is always there
    result[name] = [[x, y] for x, y in kept]
  return result


def make(
  cell: Cell,
  *,
  seed: int,
  identity: str,
  unit: ModuleType,
  root: pathlib.Path,
  result: dict[str, Any] | None,
  error: str | None,
  metric: str,
  before: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
  """One row.

  Args:
    cell: its cell.
    seed: its seed.
    identity: id of the work unit.
    unit: the unit module; its NUMERICS tells whether the result is stale.
    root: folder of the units.
    result: what the unit wrote, or None.
    error: why there is no result, if the unit failed in this run.
    metric: of the table.
    before: id to earlier row: curves of unchanged results are taken from there.
  Returns:
    labels, seed, id, base, overrides, published, status ('done', 'failed', 'not run'), stale, error, result, curves;
    layer and beside where the cell has them.
  """
  old = before.get(identity)
  if result is None and not cell.run and old is not None:
    result = old['result']  # trained elsewhere and committed; the id says that it is this very unit
  drawn: dict[str, Any] = {}
  if result is not None:
    if old is not None and old['result'] == result:
      drawn = old['curves']
    else:
      drawn = curves(root / identity / 'metrics.jsonl', words=tuple(dict.fromkeys(('loss', metric.rsplit('/', 1)[-1]))))
  figure = cell.figure
  return {
    'labels': cell.labels,
    'seed': seed,
    'id': identity,
    'base': cell.base,
    'overrides': _plain(cell.overrides),
    'published': None
    if figure is None
    else {
      'value': figure.value,
      'std': figure.std,
      'n': figure.n,
      'source': figure.source,
      'confidence': figure.confidence,
    },
    'status': 'done' if result is not None else 'failed' if error else 'not run',
    'stale': result is not None and result.get('numerics') != unit.NUMERICS,
    'error': None if result is not None else error,
    'result': result,
    'curves': drawn,
    **({'layer': cell.layer} if cell.layer else {}),
    **({'beside': dict(cell.beside)} if cell.beside else {}),
  }


def _plain(value: Any) -> Any:
  """Overrides as JSON has them: tuples become lists, anything else but scalars its text."""
  if isinstance(value, Mapping):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
