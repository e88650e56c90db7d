"""Labels beside the points of a plot, none over another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Point(NamedTuple):
  """A labelled point of a plot, in the units of its axes; `spread` is the half length of its error bar."""

  x: float
  y: float
  spread: float
  text: str
  colour: str


# Where a label may stand, in points: its left edge at a positive dx, its right edge at a negative one, its middle at 0.
_OFFSETS = ((0, 8), (0, -8), (8, 0), (-8, 0), (6, 6), (-6, 6), (6, -6), (-6, -6), (0, 16), (0, -16))


def place(axes: Any, figure: Any, series: Sequence[Sequence[Point]]) -> None:
  """Writes every label where it covers no label, point, error bar or line; where there is no such place, over a line.

  A label that finds no place at all is left out: the table has it.

  Args:
    axes: with everything drawn and its limits set.
    figure: of the axes.
    series: the points of every line, in order.
  """
  figure.draw_without_rendering()
  renderer = figure.canvas.get_renderer()
  frame = axes.get_window_extent(renderer)
  pixel = figure.dpi / 72
  solid: list[tuple[float, float]] = []
  drawn: list[tuple[float, float]] = []
  for points in series:
    pixels = [axes.transData.transform((point.x, point.y)) for point in points]
    for point, (x, y) in zip(points, pixels, strict=True):
      top = axes.transData.transform((point.x, point.y + point.spread))[1] - y
      solid += [(x, y + top * step / 4) for step in range(-4, 5)]
    for (x0, y0), (x1, y1) in itertools.pairwise(pixels):
      drawn += [(x0 + (x1 - x0) * step / 40, y0 + (y1 - y0) * step / 40) for step in range(3, 38)]
  obstacles = np.array([*solid, *drawn, (np.nan, np.nan)])
  taken = np.empty((0, 4))

  for point in itertools.chain.from_iterable(series):
    label = axes.annotate(
      point.text, (point.x, point.y), (0, 0), textcoords='offset points', fontsize=8.5, color=point.colour
    )
    width, height = label.get_window_extent(renderer).size
    x, y = axes.transData.transform((point.x, point.y))
    for count, (dx, dy) in itertools.product((len(obstacles), len(solid)), _OFFSETS):
      left = x + dx * pixel - width * (1 - _sign(dx)) / 2
      low = y + dy * pixel - height * (1 - _sign(dy)) / 2
      box = np.array((left, low, left + width, low + height))
      inside = frame.x0 <= box[0] and box[2] <= frame.x1 + 20 and frame.y0 <= box[1] and box[3] <= frame.y1 + 10
      inner = ((obstacles[:count] > box[:2] - 3) & (obstacles[:count] < box[2:] + 3)).all(1).any()
      over = ((taken[:, :2] < box[2:]) & (taken[:, 2:] > box[:2])).all(1).any()
      if inside and not inner and not over:
        taken = np.vstack([taken, box])
        label.set(ha='left', va='bottom', position=((left - x) / pixel, (low - y) / pixel))
        break
    else:
      label.remove()


def _sign(value: float) -> float:
  return (value > 0) - (value < 0)
