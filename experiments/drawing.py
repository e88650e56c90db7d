"""A network as a picture: operations from top to bottom, a line through all those that share channels."""
from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lightjax.core import trees
from lightjax.graph import ChannelGraph, Group, Trace

ROW, LANE, LEFT, TEXT = 22, 14, 16, 430
COLOURS = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377')  # Paul Tol's bright scheme
PINNED = '#999999'


def svg(network: Trace, channels: ChannelGraph) -> str:
  """The picture.

  A row is an operation, with a bar for its share of the MACs. A line is a group of channels: a filled dot where they
  are made, a ring where they are read; grey and dashed if they are pinned.

  Args:
    network: the trace.
    channels: its coupling.
  Returns:
    A plain SVG document.
  """
  rows: dict[str, int] = {}
  for index, operation in enumerate(network.operations):
    if operation.parameter is not None:
      rows.setdefault(operation.parameter, index)
  lines = [(group, dots) for group in channels.groups if (dots := _dots(group, rows))]
  lanes = _lanes([(min(row for row, _ in dots), max(row for row, _ in dots)) for _, dots in lines])
  width = LEFT + TEXT + LANE * (max(lanes, default=0) + 2)
  height = ROW * (len(network.operations) + 2)
  largest = max((operation.macs for operation in network.operations), default=1)
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
    'font-family="sans-serif" font-size="11">', f'<rect width="{width}" height="{height}" fill="white"/>',
    f'<text x="{LEFT}" y="15" font-weight="bold">{len(network.operations)} operations, {network.macs:,} MACs, '
    f'{len(channels.groups)} groups of channels (filled: made, ring: read, dashed: pinned)</text>']
  for index, operation in enumerate(network.operations):
    y = ROW * (index + 1)
    parts.append(
      f'<rect x="{LEFT}" y="{y + 3}" width="{(TEXT - 20) * operation.macs / largest:.1f}" height="{ROW - 6}" '
      'fill="#dde6f0"/>')
    shape = '×'.join(map(str, operation.output_shape[1:]))
    text = f'{operation.module or "(no module)"}  {operation.kind}  {shape}  {operation.macs:,}'
    parts.append(f'<text x="{LEFT + 4}" y="{y + 15}">{escape(text)}</text>')
  for number, ((group, dots), lane) in enumerate(zip(lines, lanes, strict=True)):
    parts += _line(group, dots, LEFT + TEXT + LANE * (lane + 1), COLOURS[number % len(COLOURS)])
  return '\n'.join((*parts, '</svg>')) + '\n'


def _dots(group: Group, rows: dict[str, int]) -> list[tuple[int, str]]:
  """Row and role of each kernel of a group; one that makes and reads the channels makes them."""
  found: dict[int, str] = {}
  for member in group.members:
    row = rows.get(trees.without_collection(member.path))
    if row is not None and member.role in ('producer', 'depthwise', 'consumer'):
      found.setdefault(row, member.role)
  return sorted(found.items())


def _lanes(spans: Sequence[tuple[int, int]]) -> list[int]:
  """For each span of rows the first lane that is free there."""
  ends: list[int] = []
  lanes = []
  for first, last in spans:
    lane = next((index for index, end in enumerate(ends) if end < first), len(ends))
    if lane == len(ends):
      ends.append(last)
    # Spans come in the order of their first producers, which may not be their first rows.
    ends[lane] = max(ends[lane], last)
    lanes.append(lane)
  return lanes


def _line(group: Group, dots: Sequence[tuple[int, str]], x: float, colour: str) -> list[str]:
  colour, dashes = (PINNED, ' stroke-dasharray="3 3"') if group.pinned else (colour, '')
  centres = [ROW * (row + 1) + ROW / 2 for row, _ in dots]
  title = f'{group.name}: {group.size} channels' + (f', pinned: {group.pinned}' if group.pinned else '')
  parts = [f'<g stroke="{colour}" stroke-width="2"><title>{escape(title)}</title>',
           f'<line x1="{x}" y1="{centres[0]}" x2="{x}" y2="{centres[-1]}"{dashes}/>']
  for (_, role), y in zip(dots, centres, strict=True):
    parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{"white" if role == "consumer" else colour}"/>')
  return [*parts, '</g>']
