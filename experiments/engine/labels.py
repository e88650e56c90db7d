"""Labels beside the points of a plot, none over another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple


class Point(NamedTuple):
  """A labelled point of a plot, in the units of its axes; `spread` is the half length of its error bar."""

  x: float
  y: float
  spread: float
  text: str
  colour: str


_OFFSETS = (
  (0, 8, 'center', 'bottom'),
  (0, -8, 'center', 'top'),
  (8, 0, 'left', 'center'),
  (-8, 0, 'right', 'center'),
  (6, 6, 'left', 'bottom'),
  (-6, 6, 'right', 'bottom'),
  (6, -6, 'left', 'top'),
  (-6, -6, 'right', 'top'),
  (0, 16, 'center', 'bottom'),
  (0, -16, 'center', 'top'),
)


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
  solid: list[tuple[float, float]] = []
  drawn: list[tuple[float, float]] = []
  for points in series:
    pixels = [axes.transData.transform((point.x, point.y)) for point in points]
    for point, (x, y) in zip(points, pixels, strict=True):
      top = axes.transData.transform((point.x, point.y + point.spread))[1] - y
      solid += [(x, y + top * step / 4) for step in range(-4, 5)]
    for (x0, y0), (x1, y1) in itertools.pairwise(pixels):
      drawn += [(x0 + (x1 - x0) * step / 40, y0 + (y1 - y0) * step / 40) for step in range(3, 38)]
  taken: list[Any] = []

  def is_free(box: Any, obstacles: Sequence[tuple[float, float]]) -> bool:
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 + 20 and frame.y0 <= box.y0 and box.y1 <= frame.y1 + 10
    return (
      inside
      and not any(box.overlaps(other) for other in taken)
      and not any(box.x0 - 3 < x < box.x1 + 3 and box.y0 - 3 < y < box.y1 + 3 for x, y in obstacles)
    )

  for point in itertools.chain.from_iterable(series):
    for obstacles, (dx, dy, horizontal, vertical) in itertools.product((solid + drawn, solid), _OFFSETS):
      label = axes.annotate(
        point.text,
        (point.x, point.y),
        (dx, dy),
        textcoords='offset points',
        ha=horizontal,
        va=vertical,
        fontsize=8.5,
        color=point.colour,
      )
      box = label.get_window_extent(renderer)
      if is_free(box, obstacles):
        taken.append(box)
        break
      label.remove()
