"""A network as a picture: a table of its operations and, beside it, a line through all those that share channels."""
from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from lightjax.core import trees
from lightjax.graph import ChannelGraph, Group, Operation, Trace

ROW, LANE, MARGIN, BAR = 22, 26, 16, 90
CHARACTER = 6.6  # width of one at the font size 11, pixels; that of DejaVu Sans, which is wide
COLOURS = ('#4477aa', '#ee6677', '#228833', '#aa3377', '#66ccee', '#ccbb44')  # Paul Tol's bright scheme
PINNED = '#999999'
HEADINGS = ('module', 'kind', 'output', 'MACs')


class Line(NamedTuple):
  """A group of channels as it is drawn.

  Attributes:
    group: the group.
    dots: row and role of each of its kernels, from top to bottom.
  """
  group: Group
  dots: tuple[tuple[int, str], ...]


def svg(network: Trace, channels: ChannelGraph, *, title: str) -> str:
  """The picture.

  A row is an operation, with a bar for its share of the MACs; rows of one stage are on one ground. A line is a group of
  channels with their number on top: a dot where they are made, a square where each is filtered by itself, a ring where
  they are read; grey and dashed if they are pinned.

  Args:
    network: the trace.
    channels: its coupling.
    title: of the picture.
  Returns:
    A plain SVG document.
  """
  cells = [_cells(operation) for operation in network.operations]
  widths = [CHARACTER * max(map(len, column)) + MARGIN for column in zip(HEADINGS, *cells, strict=True)]
  lines = _lines(network, channels)
  lanes = _lanes([(line.dots[0][0], line.dots[-1][0]) for line in lines])
  left = MARGIN + sum(widths) + BAR + MARGIN  # where the lanes begin
  total = f'{len(cells)} operations, {network.macs:,} MACs, {len(channels.groups)} groups of channels'
  right = left + LANE * (max(lanes, default=0) + 1)
  width = max(right, 2 * MARGIN + CHARACTER * (len(title) + len(total) + 2), _LEGEND) + MARGIN
  top = 3.5 * ROW
  height = top + ROW * len(cells) + MARGIN
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
    f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">',
    f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    f'<text x="{MARGIN}" y="20"><tspan font-weight="bold">{escape(title)}:</tspan> {total}</text>', *_legend()]
  ground, stage = False, None
  largest = max((operation.macs for operation in network.operations), default=1)
  for row, operation in enumerate(network.operations):
    if operation.module.partition('/')[0] != stage:
      ground, stage = not ground, operation.module.partition('/')[0]
    if ground:
      parts.append(
        f'<rect x="{MARGIN / 2}" y="{top + ROW * row:.1f}" width="{right - MARGIN / 2:.1f}" height="{ROW}" '
        'fill="#f2f2f2"/>')
    parts += _row(cells[row], widths, top + ROW * (row + 0.5), operation.macs / largest)
  parts += _row(HEADINGS, widths, top - ROW / 2, 0.0, ' font-weight="bold"')
  for line, lane, colour in zip(lines, lanes, _colours(lanes), strict=True):
    parts += _drawn(line, left + LANE * (lane + 0.5), top, colour)
  return '\n'.join((*parts, '</svg>')) + '\n'


def _cells(operation: Operation) -> tuple[str, ...]:
  kind = f'{operation.kind}/{operation.groups}' if operation.groups > 1 else operation.kind
  shape = '×'.join(map(str, operation.output_shape[1:]))
  return operation.module or '(the network)', kind, shape, f'{operation.macs:,}'


def _row(cells: Sequence[str], widths: Sequence[float], middle: float, share: float, style: str = '') -> list[str]:
  """Text in columns, numbers to the right, and a bar."""
  parts, x = [], float(MARGIN)
  for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
    is_number = number == len(cells) - 1
    place = f'x="{x + width - MARGIN:.1f}" text-anchor="end"' if is_number else f'x="{x:.1f}"'
    parts.append(f'<text {place} y="{middle + 4:.1f}"{style}>{escape(cell)}</text>')
    x += width
  if share:
    parts.append(
      f'<rect x="{x:.1f}" y="{middle - 5:.1f}" width="{max(1.0, BAR * share):.1f}" height="10" fill="#88a8c8"/>')
  return parts


def _lines(network: Trace, channels: ChannelGraph) -> list[Line]:
  """The groups that kernels make or read, by their first rows."""
  rows: dict[str, int] = {}
  for row, operation in enumerate(network.operations):
    if operation.parameter is not None:
      rows.setdefault(operation.parameter, row)
  lines = []
  for group in channels.groups:
    found: dict[int, str] = {}
    for member in group.members:  # producers first: a kernel that makes and reads the channels makes them
      row = rows.get(trees.without_collection(member.path), -1)
      if row >= 0 and member.role in _MARKS:
        found.setdefault(row, member.role)
    if found:
      lines.append(Line(group, tuple(sorted(found.items()))))
  return sorted(lines, key=lambda line: line.dots[0][0])


def _lanes(spans: Sequence[tuple[int, int]]) -> list[int]:
  """For each span of rows, in the order of their firsts, the first lane that is free there."""
  ends: list[int] = []
  lanes = []
  for first, last in spans:
    lane = next((index for index, end in enumerate(ends) if end < first), len(ends))
    ends[lane:lane + 1] = [last]
    lanes.append(lane)
  return lanes


def _colours(lanes: Sequence[int]) -> list[str]:
  """For each group, by its lane, one that differs from what is before it there and beside it."""
  last: dict[int, str] = {}
  colours = []
  for number, lane in enumerate(lanes):
    near = {last.get(lane + side) for side in (-1, 0, 1)}
    turn = number % len(COLOURS)
    last[lane] = next(colour for colour in (*COLOURS[turn:], *COLOURS[:turn]) if colour not in near)
    colours.append(last[lane])
  return colours


def _drawn(line: Line, x: float, top: float, colour: str) -> list[str]:
  group = line.group
  colour, dashes = (PINNED, ' stroke-dasharray="3 3"') if group.pinned else (colour, '')
  centres = [top + ROW * (row + 0.5) for row, _ in line.dots]
  title = f'{group.name}: {group.size} channels' + (f', pinned: {group.pinned}' if group.pinned else '')
  return [
    f'<g stroke="{colour}" stroke-width="2"><title>{escape(title)}</title>',
    f'<line x1="{x:.1f}" y1="{centres[0]:.1f}" x2="{x:.1f}" y2="{centres[-1]:.1f}"{dashes}/>',
    *(_MARKS[role](x, y, colour) for (_, role), y in zip(line.dots, centres, strict=True)),
    f'<text x="{x:.1f}" y="{centres[0] - 6:.1f}" font-size="9" text-anchor="middle" stroke="none">'
    f'{group.size}</text></g>']


def _dot(x: float, y: float, colour: str) -> str:
  return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'


def _ring(x: float, y: float, colour: str) -> str:
  return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="white"/>'


def _square(x: float, y: float, colour: str) -> str:
  return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"/>'


_MARKS = {'producer': _dot, 'depthwise': _square, 'consumer': _ring}
_MEANINGS = (('producer', 'made'), ('depthwise', 'filtered one by one'), ('consumer', 'read'))
_LEGEND = 560  # its width, pixels


def _legend() -> list[str]:
  """What marks and lines mean."""
  y, x = 1.7 * ROW, float(MARGIN)
  parts = [f'<text x="{x}" y="{y + 4:.1f}">channels:</text>']
  x += 70
  for role, meaning in _MEANINGS:
    parts.append(f'<g stroke="{COLOURS[0]}" stroke-width="2">{_MARKS[role](x, y, COLOURS[0])}</g>')
    parts.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}">{meaning}</text>')
    x += 34 + 0.9 * CHARACTER * len(meaning)
  for colour, dashes, meaning in ((COLOURS[0], '', 'go together'), (PINNED, ' stroke-dasharray="3 3"', 'pinned')):
    parts.append(
      f'<line x1="{x:.1f}" y1="{y}" x2="{x + 18:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"{dashes}/>')
    parts.append(f'<text x="{x + 24:.1f}" y="{y + 4:.1f}">{meaning}</text>')
    x += 48 + 0.9 * CHARACTER * len(meaning)
  return parts
