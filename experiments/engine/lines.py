"""From rows to the lines of a table: a cell over its seeds, its comparison, and the texts that every form prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.engine import statistics
from experiments.engine.errors import TableError, nearest
from experiments.engine.progress import duration
from experiments.engine.tables import Table

# Shown as percents; everything else by its own unit.
FRACTIONS = ('accuracy', 'error', 'top1', 'top5', 'precision', 'recall', 'f1', 'agreement', 'density', 'rate')
_COUNTS = ('params', 'nonzeros', 'macs', 'bytes')
_TITLES = {
  'params': 'parameters',
  'nonzeros': 'non-zeros',
  'macs': 'MACs',
  'seconds': 'training time',
  'step_ms': 'time of a step (ms)',
  'latency_ms': 'latency (ms)',
}
RECALLED, STALE = '‡', '†'
NOTES = {
  RECALLED: 'Recalled from memory: not checked against the paper.',
  STALE: 'Stale: from older numerics of this code; run again before comparing.',
}


class Line(NamedTuple):
  """One cell of the table, over its seeds; `state` is 'done', 'failed' or 'not run', `note` says what is missing."""

  number: int
  labels: Mapping[str, Any]
  values: dict[int, float]
  summary: statistics.Summary | None
  figure: Mapping[str, Any] | None
  comparison: statistics.Comparison | None
  columns: dict[str, float | None]
  state: str
  note: str
  is_stale: bool
  rows: tuple[Mapping[str, Any], ...]

  @property
  def is_recalled(self) -> bool:
    """Whether the published figure is from memory, or from nowhere in particular."""
    return self.figure is not None and not str(self.figure['confidence']).startswith(('checked', 'counted'))

  @property
  def name(self) -> str:
    """The labels as one text."""
    return ', '.join(f'{value}' for value in self.labels.values())


class Report(NamedTuple):
  """Everything that is rendered: the table's declaration, its rows, its base configs."""

  table: Table
  rows: Sequence[Mapping[str, Any]]
  bases: Mapping[str, Mapping[str, str]]
  is_smoke: bool = False


def _mean(values: Sequence[Any]) -> float | None:
  numbers = [float(value) for value in values if isinstance(value, (int, float))]
  return math.fsum(numbers) / len(numbers) if numbers else None


def figures(row: Mapping[str, Any]) -> Mapping[str, Any]:
  """The metrics of a row that is done: of the network, or of the layer that its cell names.

  Args:
    row: as `rows.make` makes it.
  Returns:
    Metric to number.
  Raises:
    TableError: there is no such layer; names those that there are.
  """
  if not row.get('layer'):
    return row['result']['metrics']
  for layer in row['result']['layers']:
    if layer['path'] == row['layer']:
      return layer
  known = [layer['path'] for layer in row['result']['layers']]
  raise TableError(f'cell {row["labels"]}: the network has no layer {row["layer"]!r}; {nearest(row["layer"], known)}.')


def mean_metric(line: Line, metric: str) -> float | None:
  """Mean over the seeds that are done, of any metric.

  Args:
    line: the cell.
    metric: such as 'bytes'.
  Returns:
    The mean, or None when no result has it.
  """
  return _mean([figures(row).get(metric) for row in line.rows if row['status'] == 'done'])


def lines(report: Report) -> list[Line]:
  """The rows, cell by cell.

  Args:
    report: with rows in the order of cells and seeds.
  Returns:
    One line a cell, in the order of the table file.
  Raises:
    TableError: a result lacks the table's metric; names the metrics that it has.
  """
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for row in report.rows:
    groups.setdefault(repr(sorted(row['labels'].items())), []).append(row)
  made = []
  metric = report.table.metric
  for number, group in enumerate(groups.values(), 1):
    done = [row for row in group if row['status'] == 'done']
    for row in done:
      if metric not in figures(row):
        raise TableError(f'METRIC {metric!r}: unit {row["id"]} has only {", ".join(sorted(figures(row)))}.')
    values = {row['seed']: float(figures(row)[metric]) for row in done}
    summary = statistics.summarize(list(values.values())) if values else None
    figure = group[0]['published']
    comparison = None
    if summary is not None and figure is not None and not report.is_smoke:
      comparison = statistics.compare(
        list(values.values()),
        figure['value'],
        is_higher_better=report.table.is_higher_better,
        std=figure['std'],
        n=figure['n'],
      )
    failed = [row for row in group if row['status'] == 'failed']
    note = ''
    if failed:
      note = (
        f'{len(failed)} of {len(group)} seeds failed: {failed[0]["error"]}'
        if len(group) > 1
        else str(failed[0]['error'])
      )
    elif done and len(done) < len(group):
      note = f'{len(done)} of {len(group)} seeds run'
    made.append(
      Line(
        number=number,
        labels=group[0]['labels'],
        values=values,
        summary=summary,
        figure=figure,
        comparison=comparison,
        columns={
          column: _mean([figures(row).get(column) for row in done]) for column in report.table.columns
        },
        state='done' if done else 'failed' if failed else 'not run',
        note=note,
        is_stale=any(row['stale'] for row in done),
        rows=tuple(group),
      )
    )
  return made


def _word(metric: str) -> str:
  return metric.rsplit('/', 1)[-1]


def title(metric: str) -> str:
  """A metric as a column's heading.

  Args:
    metric: such as 'test/accuracy'.
  Returns:
    Words, with the unit of fractions.

  Example:
    >>> title('test/accuracy'), title('macs')
    ('test accuracy (%)', 'MACs')
  """
  unit = ' (%)' if _word(metric) in FRACTIONS else ''
  return _TITLES.get(metric, metric.replace('/', ' ').replace('_', ' ')) + unit


def number(value: float | None, metric: str) -> str:
  """A figure in the unit of its metric.

  Args:
    value: as stored: fractions 0..1, counts, seconds; None for 'there is none'.
    metric: its name.
  Returns:
    Percent with two decimals, integers with thousands separators, durations, or four significant digits.

  Example:
    >>> number(0.98361, 'test/accuracy'), number(266610, 'params'), number(185, 'seconds'), number(None, 'bytes')
    ('98.36', '266,610', '3 min 05 s', '')
  """
  if value is None or math.isnan(value):
    return ''
  word = _word(metric)
  if word in FRACTIONS:
    return f'{100 * value:.2f}'
  if word in _COUNTS:
    return f'{round(value):,}'
  return duration(value) if word == 'seconds' else f'{value:.4g}'


def ours(line: Line, metric: str, *, plus: str = '±') -> str:
  """'mean ± std (n)', or why there is none.

  Args:
    line: the cell.
    metric: of the table.
    plus: the sign between.
  Returns:
    The text; a single seed has no std.
  """
  if line.summary is None:
    return line.state
  spread = '' if math.isnan(line.summary.std) else f' {plus} {number(line.summary.std, metric)}'
  return f'{number(line.summary.mean, metric)}{spread} ({line.summary.n})'


def difference(line: Line, metric: str, *, minus: str = '−') -> str:
  """Ours minus theirs with its interval, in the metric's unit.

  Args:
    line: the cell.
    metric: of the table.
    minus: the sign of negative figures.
  Returns:
    '+0.21 [−0.10, +0.52]'; without interval for too few seeds; '' without a published figure.
  """
  if line.comparison is None:
    return ''
  scale, digits = (
    (100, '.2f') if _word(metric) in FRACTIONS else (1, ',.0f') if _word(metric) in _COUNTS else (1, '.4g')
  )
  point, low, high = (f'{scale * value:+{digits}}'.replace('-', minus) for value in line.comparison[:3])
  return point if math.isnan(line.comparison.low) else f'{point} [{low}, {high}]'


def _published(line: Line, metric: str, *, plus: str = '±') -> str:
  if line.figure is None:
    return ''
  spread = f' {plus} {number(line.figure["std"], metric)}' if line.figure['std'] is not None else ''
  count = f' ({line.figure["n"]})' if line.figure['n'] is not None else ''
  return number(line.figure['value'], metric) + spread + count


def _beside(line: Line, column: str) -> str:
  theirs = line.rows[0].get('beside', {}).get(column)
  return '' if theirs is None else f' [{number(theirs, column)}]'


class Grid(NamedTuple):
  """The table as texts: heading and alignment ('l' or 'r') a column, and a row of texts a line."""

  headings: list[str]
  alignment: str
  body: list[list[str]]


def grid(report: Report, made: Sequence[Line], *, plus: str = '±', minus: str = '−') -> Grid:
  """What all forms of the table print: labels, ours, published, difference, verdict, columns.

  Columns without any content are left out.

  Args:
    report: for metric and columns.
    made: its lines.
    plus: sign between mean and std.
    minus: sign of negative figures.
  Returns:
    The grid, with the marks of stale and recalled figures.
  """
  metric = report.table.metric
  labels = list(dict.fromkeys(key for line in made for key in line.labels))
  headings = [*labels, title(metric), 'published', 'difference [95 %]', 'verdict', *map(title, report.table.columns)]
  alignment = 'l' * len(labels) + 'rrrl' + 'r' * len(report.table.columns)
  body = []
  for line in made:
    body.append(
      [
        *(str(line.labels.get(label, '')) for label in labels),
        ours(line, metric, plus=plus) + (f' {STALE}' if line.is_stale else ''),
        _published(line, metric, plus=plus) + (f' {RECALLED}' if line.is_recalled else ''),
        difference(line, metric, minus=minus),
        line.comparison.verdict if line.comparison else '',
        *(number(line.columns[column], column) + _beside(line, column) for column in report.table.columns),
      ]
    )
  kept = [index for index in range(len(headings)) if index <= len(labels) or any(row[index] for row in body)]
  return Grid(
    [headings[index] for index in kept],
    ''.join(alignment[index] for index in kept),
    [[row[index] for index in kept] for row in body],
  )


def footnotes(made: Sequence[Line]) -> list[str]:
  """What stands below the table: the marks that occur, and what is missing from which row.

  Args:
    made: lines.
  Returns:
    Sentences.
  """
  brackets = any(row.get('beside') for line in made for row in line.rows)
  used = {RECALLED: any(line.is_recalled for line in made), STALE: any(line.is_stale for line in made)}
  texts = ['In brackets: the published figure.'] if brackets else []
  return texts + [f'{mark} {text}' for mark, text in NOTES.items() if used[mark]] + [
    f'{line.number}. {line.name}: {line.note}.' for line in made if line.note
  ]


def sources(made: Sequence[Line]) -> list[str]:
  """Where the published figures are from, each once, with how sure they are.

  Args:
    made: lines.
  Returns:
    Texts.
  """
  found = dict.fromkeys(
    (line.figure['source'], line.figure['confidence'])
    for line in made
    if line.figure is not None and line.figure['source']
  )
  return [f'{source} ({confidence})' for source, confidence in found]


def environment(report: Report) -> dict[str, list[str]]:
  """Hardware and versions of the results, each variant once.

  Args:
    report: its rows.
  Returns:
    'device', 'jax', 'jaxlib', ... to the values seen.
  """
  seen: dict[str, dict[str, None]] = {}
  for row in report.rows:
    if row['status'] == 'done':
      seen.setdefault('device', {})[str(row['result'].get('device', 'unknown'))] = None
      for key, value in sorted(row['result'].get('versions', {}).items()):
        seen.setdefault(key, {})[str(value) or 'unset'] = None
  return {key: list(values) for key, values in seen.items()}
