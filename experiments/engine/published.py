"""Figures that papers printed, read from experiments/published/*.csv, in the unit of our metrics."""

from __future__ import annotations

import csv
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.engine.errors import TableError, nearest

FOLDER = pathlib.Path(__file__).parent.parent / 'published'


class Figure(NamedTuple):
  """One published figure.

  `value`, and `std` with it, are in the unit of our own metric (accuracy 0..1, bytes, MACs). It belongs to the rows of
  a table that have all of its `labels`. `confidence` is 'counted' or 'checked...'; others are printed with a mark.
  """

  value: float
  std: float | None = None
  n: int | None = None
  labels: Mapping[str, Any] = {}
  source: str = ''
  confidence: str = 'recalled'
  columns: Mapping[str, str] = {}

  def labelled(self, **labels: Any) -> Figure:
    """The same figure for the rows of a table that have these labels.

    Args:
      **labels: label name to value, as the table's `cells()` yield them.
    Returns:
      A new figure.
    """
    return self._replace(labels=labels)


def to_unit(value: float, metric: str) -> float:
  """A figure as printed, in our unit: percents become fractions and errors become accuracies.

  Args:
    value: as printed.
    metric: what the CSV says of it, such as 'top-1 %', 'test err %' or 'test errors /10000'.
  Returns:
    Accuracy 0..1 for the metrics above, `value` itself for others (bytes, MACs, BLEU).

  Example:
    >>> to_unit(1.25, 'test err %'), to_unit(74.0, 'test errors /10000'), to_unit(75.0, 'top-1 %')
    (0.9875, 0.9926, 0.75)
  """
  if '/10000' in metric:
    scale = 1e4
  elif '%' in metric:
    scale = 100.0
  else:
    return value
  is_error = 'err' in metric.lower() or 'wer' in metric.lower()
  # Subtracting before dividing keeps 100 - 1.25 exact where 1 - 0.0125 is not.
  return (scale - value) / scale if is_error else value / scale


@functools.cache
def _rows(subject: str, folder: pathlib.Path) -> tuple[dict[str, str], ...]:
  path = folder / f'{subject}.csv'
  if not path.is_file():
    raise TableError(
      f'published({subject!r}): no such file; {nearest(subject, [p.stem for p in folder.glob("*.csv")])}.'
    )
  with path.open(encoding='utf-8', newline='') as file:
    return tuple(csv.DictReader(file))


def _equal(cell: str, wanted: Any) -> bool:
  if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
    try:
      return float(cell) == float(wanted)
    except ValueError:
      return False
  return cell == str(wanted)


# Columns that hold a figure without a `metric` column beside them, and what they are.
_METRICS = {
  'top1_err': 'err %',
  'top5_err': 'err %',
  'paper_top1': 'top-1 %',
  'paper_top5': 'top-5 %',
  'ref_top1': 'top-1 %',
  'ref_top5': 'top-5 %',
  'acc1': 'top-1 %',
  'acc5': 'top-5 %',
  'top5': 'top-5 %',
  'fp_value': 'top-1 %',
}


def published(subject: str, *, value: str = 'value', folder: pathlib.Path = FOLDER, **selection: Any) -> list[Figure]:
  """The figures of one subject whose columns equal `selection`.

  Args:
    subject: name of a CSV in experiments/published, such as 'kd'.
    value: the column that holds the figure.
    folder: where the CSVs are.
    **selection: column to the wanted text or number (1 also finds '1.0').
  Returns:
    Figures in the order of the file; rows in which `value` is empty or a text are left out.
  Raises:
    TableError: an unknown subject or column, or a selection that finds nothing.

  Example:
    >>> [figure.value for figure in published('deep_compression', value='top1_err', layer='Compressed',
    ...                                               network='LeNet-300-100')]
    [0.9842]
  """
  rows = _rows(subject, folder)
  for column in (*selection, value):
    if column not in rows[0]:
      raise TableError(f'published({subject!r}): no column {column!r}; {nearest(column, rows[0])}.')
  figures = []
  for row in rows:
    if not all(_equal(row[column], wanted) for column, wanted in selection.items()):
      continue
    try:
      number = float(row[value])
    except ValueError:
      continue
    metric = row.get('metric', '') if value == 'value' else _METRICS.get(value, '')
    figures.append(
      Figure(
        value=to_unit(number, metric),
        source=f'{row["paper"]}, table {row["table"]}' if 'table' in row else row.get('source', ''),
        confidence=row['confidence'],
        columns=row,
      )
    )
  if not figures:
    chosen = ', '.join(f'{column}={wanted!r}' for column, wanted in selection.items())
    raise TableError(f'published({subject!r}, {chosen}): no figure; look into {folder / subject}.csv.')
  return figures


def _pick(rows: Any, labels: Mapping[str, Any]) -> bool:
  return all(key in rows and rows[key] == wanted for key, wanted in labels.items())


def attach(figures: list[Figure], cells: list[dict[str, Any]]) -> list[Figure | None]:
  """Which published figure stands beside which cell: the one all of whose labels the cell has.

  Args:
    figures: of the table, with labels.
    cells: the labels of every cell.
  Returns:
    For every cell its figure or None.
  Raises:
    TableError: a figure without labels, one that belongs to no cell, or two for one cell.
  """
  found: list[Figure | None] = [None] * len(cells)
  for figure in figures:
    if not figure.labels:
      raise TableError(
        f'PUBLISHED: the figure {figure.value:g} ({figure.source}) has no labels; say .labelled(row=...).'
      )
    places = [index for index, cell in enumerate(cells) if _pick(cell, figure.labels)]
    if not places:
      raise TableError(
        f'PUBLISHED: {dict(figure.labels)} is the label of no cell; the first cell has {cells[0] if cells else {}}.'
      )
    for index in places:
      if found[index] is not None:
        raise TableError(f'PUBLISHED: two figures for the cell {cells[index]}; give them more labels.')
      found[index] = figure
  return found
