"""The plots of a report, as SVG texts that follow the page's colours: accuracy against cost, curves, layers."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.engine.errors import TableError
from experiments.engine.labels import Point, place
from experiments.engine.lines import FRACTIONS, Line, Report, mean_metric
from experiments.engine.lines import title as title_of

# Okabe and Ito's colours, safe for the colour-blind, of middle lightness: legible on white and on dark grey.
_COLOURS = ('#0b84c4', '#e07b00', '#0aa37a', '#cf5f9e', '#8a6fd1', '#c9a000', '#d1495b', '#5aa9d6')
_MARKERS = (('o', '●'), ('s', '■'), ('^', '▲'), ('D', '◆'), ('v', '▼'), ('P', '✚'))
_DASHES = ('-', (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)))
# Drawn in this colour, then replaced by the text colour of the page, light or dark.
_INK = '#123456'
_WIDTH, _HEIGHT = 6.4, 4.0


class Plot(NamedTuple):
  """One figure of the page."""

  title: str
  svg: str
  is_wide: bool = False
  caption: str = ''


class Key(NamedTuple):
  """One entry of the legend."""

  name: str
  colour: str
  glyph: str


def _series(made: Sequence[Line]) -> dict[str, int]:
  """Rows that share their first label are one series."""
  names = dict.fromkeys(str(next(iter(line.labels.values()), '')) for line in made)
  return {name: index for index, name in enumerate(names)}


def _of(line: Line, series: Mapping[str, int]) -> int:
  return series[str(next(iter(line.labels.values()), ''))]


def _style(index: int) -> tuple[str, str, str]:
  marker, glyph = _MARKERS[(index // len(_COLOURS) + index) % len(_MARKERS)]
  return _COLOURS[index % len(_COLOURS)], marker, glyph


def legend(made: Sequence[Line]) -> list[Key]:
  """The series of all plots, drawn once for the page.

  Args:
    made: lines.
  Returns:
    One entry a first label.
  """
  entries = []
  drawn = {_of(line, _series(made)) for line in made if line.summary is not None}
  for name, index in _series(made).items():
    if index not in drawn:
      continue
    colour, _, glyph = _style(index)
    entries.append(Key(name, colour, glyph))
  return entries


_STYLE: dict[Any, Any] = {
  'svg.fonttype': 'none',
  'svg.hashsalt': 'lightjax',
  'font.family': 'DejaVu Sans',
  'font.size': 10,
  'text.color': _INK,
  'axes.edgecolor': _INK,
  'axes.labelcolor': _INK,
  'xtick.color': _INK,
  'ytick.color': _INK,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.linewidth': 0.8,
  'grid.color': _INK,
  'grid.alpha': 0.12,
  'grid.linewidth': 0.8,
}


def _new(width: float, height: float) -> Any:
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout='constrained')
  backend_agg.FigureCanvasAgg(figure)  # measures texts
  return figure


def _svg(figure: Any, name: str) -> str:
  """The figure as an element for an HTML page: no XML head, ids of its own, ink in the page's colour."""
  file = io.StringIO()
  figure.savefig(file, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
  text = file.getvalue()
  text = text[text.index('<svg') :].replace(_INK, 'currentColor')
  text = re.sub(r"font: ([0-9.]+)px '[^']*'[^;\"]*", r'font-size: \1px', text)
  text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
  text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
  text = re.sub(r'url\(#([^)]+)\)', rf'url(#{name}-\1)', text)
  return re.sub(r'<svg ', f'<svg role="img" aria-label="{name}" ', text, count=1)


def _short(value: float) -> str:
  """1.2K, 34M: for axes."""
  for limit, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if abs(value) >= limit:
      return f'{value / limit:.3g}{letter}'
  return f'{value:.3g}'


def _axis_of_costs(axes: Any, values: Sequence[float], name: str) -> None:
  from matplotlib import ticker

  low, high = min(values), max(values)
  if low > 0 and high / low > 8:
    axes.set_xscale('log')
    axes.set_xlim(low / (high / low) ** 0.08, high * (high / low) ** 0.12)
    decades = math.log10(high / low)
    axes.xaxis.set_major_locator(
      ticker.LogLocator(10, subs=(1, 2, 5) if decades < 2.5 else (1, 3) if decades < 4 else (1,))
    )
    axes.xaxis.set_minor_locator(ticker.NullLocator())
  else:
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.margins(x=0.12)
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))
  axes.set_xlabel(name)


def _against(report: Report, made: Sequence[Line], cost: str) -> Plot | None:
  """The metric against one cost; None when the cost does not vary."""
  metric = report.table.metric
  points = []
  for line in made:
    value = mean_metric(line, cost)
    if line.summary is not None and value is not None:
      points.append((value, line))
  if len({value for value, _ in points}) < 2:
    return None
  scale = 100 if metric.rsplit('/', 1)[-1] in FRACTIONS else 1
  figure = _new(_WIDTH, _HEIGHT)
  axes = figure.add_subplot()
  axes.grid(True)
  axes.set_axisbelow(True)
  series = _series(made)
  labels: list[list[Point]] = []
  for index in series.values():
    colour, marker, _ = _style(index)
    own = sorted(((x, line) for x, line in points if _of(line, series) == index), key=lambda point: point[0])
    xs, ys = [x for x, _ in own], [scale * line.summary.mean for _, line in own]  # type: ignore[union-attr]
    spreads = [scale * line.summary.std for _, line in own]  # type: ignore[union-attr]
    spread = [0.0 if math.isnan(each) else each for each in spreads]
    axes.errorbar(
      xs,
      ys,
      yerr=spread if any(spread) else None,
      color=colour,
      marker=marker,
      markersize=6,
      linestyle='-' if len(set(xs)) > 1 else 'none',
      linewidth=1.4,
      elinewidth=1,
      capsize=2.5,
      alpha=0.95,
    )
    rest = [', '.join(str(value) for value in list(line.labels.values())[1:]) for _, line in own]
    labels.append([Point(*point, colour) for point in zip(xs, ys, spread, rest, strict=True)])
  _axis_of_costs(axes, [value for value, _ in points], title_of(cost))
  axes.set_ylabel(title_of(metric))
  axes.margins(y=0.14)
  place(axes, figure, labels)
  name = metric.rsplit('/', 1)[-1]
  return Plot(f'{name.capitalize()} against {title_of(cost)}', _svg(figure, f'against-{cost}'))


def _mean_curve(line: Line, name: str) -> list[tuple[float, float]]:
  """Mean over seeds at every point that all seeds with a curve have."""
  curves = [dict(map(tuple, row['curves'][name])) for row in line.rows if name in row['curves']]
  if not curves:
    return []
  common = sorted(set.intersection(*(set(curve) for curve in curves)))
  return [(x, math.fsum(curve[x] for curve in curves) / len(curves)) for x in common]


def _curve(report: Report, made: Sequence[Line], name: str) -> Plot | None:
  """One quantity over training, a line a cell: the series' colour, dashes tell its cells apart."""
  from matplotlib import ticker

  drawn = [(line, points) for line in made if len(points := _mean_curve(line, name)) > 1]
  if not drawn:
    return None
  word = name.rsplit('/', 1)[-1]
  scale = 100 if word in FRACTIONS else 1
  figure = _new(_WIDTH, _HEIGHT)
  axes = figure.add_subplot()
  axes.grid(True)
  axes.set_axisbelow(True)
  series = _series(made)
  count = dict.fromkeys(series.values(), 0)
  for line, points in drawn:
    index = _of(line, series)
    axes.plot(
      [x for x, _ in points],
      [scale * y for _, y in points],
      color=_style(index)[0],
      linewidth=1.5,
      linestyle=_DASHES[count[index] % len(_DASHES)],
      alpha=0.9,
    )
    count[index] += 1
  values = sorted(scale * y for _, points in drawn for _, y in points)
  if word == 'loss' and values[0] > 0 and values[-1] / values[0] > 30:
    axes.set_yscale('log')
  elif word in FRACTIONS and values[-1] - values[0] > 25:
    # The first epochs of a slow start would press all that matters into a line.
    low = values[len(values) // 20]
    axes.set_ylim(low - 0.05 * (values[-1] - low), values[-1] + 0.05 * (values[-1] - low))
  axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
  axes.set_xlabel('epoch')
  axes.set_ylabel(title_of(name))
  axes.margins(x=0.02)
  return Plot(
    f'{name.replace("/", " ").capitalize()} while training',
    _svg(figure, f'curve-{name.replace("/", "-")}'),
    caption='dashes: later rows of a series' if max(count.values()) > 1 else '',
  )


def _shorten(path: str, length: int = 26) -> str:
  return path if len(path) <= length else f'…{path[1 - length :]}'


class _Quantity(NamedTuple):
  """What a picture of layers shows: `plain` is its value without compression, `top` the end of the scale."""

  name: str
  title: str
  of: Callable[[Mapping[str, Any]], float]
  plain: float
  top: float


_SPARSITY = _Quantity(
  name='sparsity',
  title='Sparsity by layer (%)',
  plain=0.0,
  top=100.0,
  of=lambda layer: 100 * (1 - layer['nonzeros'] / max(layer['parameters'], 1)),
)
_BITS = _Quantity(name='bits', title='Bits by layer', plain=32.0, top=32.0, of=lambda layer: float(layer['bits']))


def _layers(made: Sequence[Line], quantity: _Quantity) -> list[Plot]:
  """Cells by layers as colours, mean over seeds: one picture a network, without what nothing touches."""
  groups: dict[tuple[str, ...], list[tuple[str, list[float]]]] = {}
  for line in made:
    if any(row.get('layer') for row in line.rows):  # the same network over again
      continue
    lists = [row['result']['layers'] for row in line.rows if row['status'] == 'done' and row['result'].get('layers')]
    if not lists:
      continue
    paths = tuple(layer['path'] for layer in lists[0])
    same = [layers for layers in lists if tuple(layer['path'] for layer in layers) == paths]
    by_layer = zip(*([quantity.of(layer) for layer in layers] for layers in same), strict=True)
    means = [math.fsum(column) / len(column) for column in by_layer]
    if any(value != quantity.plain for value in means):
      groups.setdefault(paths, []).append((line.name, means))
  plots = []
  for number, (paths, cells) in enumerate(groups.items()):
    touched = [index for index in range(len(paths)) if any(means[index] != quantity.plain for _, means in cells)]
    values = [[means[index] for index in touched] for _, means in cells]
    columns = [_shorten(paths[index]) for index in touched]
    plots.append(
      _heat(values, [name for name, _ in cells], columns, quantity=quantity, name=f'{quantity.name}-{number}')
    )
  return plots


def _heat(
  values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], *, quantity: _Quantity, name: str
) -> Plot:
  from matplotlib import colors, ticker

  has_text = len(columns) <= 24
  figure = _new(2 * _WIDTH, 1.3 + 0.30 * len(rows) + (0.9 if len(columns) <= 32 else 0.2))
  axes = figure.add_subplot()
  # From nearly nothing to full colour by opacity alone: right on a light page and on a dark one.
  blue = colors.to_rgb(_COLOURS[0])
  ramp = colors.LinearSegmentedColormap.from_list('ramp', [(*blue, 0.04), (*blue, 1.0)])
  mesh = axes.pcolormesh(
    [list(row) for row in values], cmap=ramp, vmin=0, vmax=quantity.top, edgecolors='none', linewidth=0
  )
  axes.invert_yaxis()
  axes.set_yticks([index + 0.5 for index in range(len(rows))], [_shorten(row, 40) for row in rows], fontsize=9)
  if len(columns) <= 32:
    axes.set_xticks(
      [index + 0.5 for index in range(len(columns))],
      columns,
      fontsize=9 if has_text else 6.5,
      **({} if len(columns) <= 6 else {'rotation': 35, 'ha': 'right', 'rotation_mode': 'anchor'}),
    )
  else:
    axes.xaxis.set_major_locator(ticker.MaxNLocator(10, integer=True))
  axes.tick_params(length=0)
  for side in axes.spines.values():
    side.set_visible(False)
  if has_text:
    for (y, row), x in itertools.product(enumerate(values), range(len(columns))):
      axes.text(
        x + 0.5,
        y + 0.5,
        f'{row[x]:.3g}',
        ha='center',
        va='center',
        fontsize=8.5,
        color='#ffffff' if row[x] > 0.6 * quantity.top else _INK,
      )
  else:
    figure.colorbar(mesh, ax=axes, pad=0.01, aspect=30).outline.set_visible(False)
  return Plot(quantity.title, _svg(figure, name), is_wide=True, caption='compressed layers, from input to output')


def draw(report: Report, made: Sequence[Line]) -> list[Plot]:
  """All plots for which the rows have something to show.

  Args:
    report: for the metric.
    made: its lines.
  Returns:
    Plots in the order of the page.
  Raises:
    TableError: matplotlib is not installed.
  """
  try:
    import matplotlib
  except ImportError as error:
    raise TableError('the report needs matplotlib: pip install "lightjax[report]" (rows.jsonl is written).') from error
  names = dict.fromkeys(name for line in made for row in line.rows for name in row['curves'])
  with matplotlib.rc_context(_STYLE):
    found = [_against(report, made, cost) for cost in ('bytes', 'macs', 'latency_ms')]
    found += [_curve(report, made, name) for name in sorted(names, key=lambda name: (name.endswith('loss'), name))]
    return [plot for plot in found if plot is not None] + _layers(made, _SPARSITY) + _layers(made, _BITS)
