"""A table that fills while one looks: results are read from disk, whoever writes them, on this machine or another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import rich.console
import rich.live

from experiments.engine import rendering


class Look(NamedTuple):
  """What there is at one moment: the report, and how many of the rows that are to be trained have a result."""

  report: rendering.Report
  done: int
  wanted: int


def watch(
  look: Callable[[], Look],
  *,
  console: rich.console.Console,
  seconds: float,
  pause: Callable[[float], Any] = time.sleep,
) -> None:
  """Shows the table again and again, until nothing is missing; Ctrl-C ends it and stops nobody's work.

  Args:
    look: reads what is there now.
    console: on a terminal the table stays in its place; elsewhere it is printed when another row is done.
    seconds: between two looks.
    pause: how to wait.
  """
  seen = look()
  if not console.is_terminal:
    shown = -1
    while True:
      if seen.done != shown:
        console.print(_picture(seen, console.width))
        shown = seen.done
      if seen.done >= seen.wanted:
        return
      pause(seconds)
      seen = look()
  with rich.live.Live(_picture(seen, console.width), console=console, auto_refresh=False) as live:
    while seen.done < seen.wanted:
      pause(seconds)
      seen = look()
      live.update(_picture(seen, console.width), refresh=True)


def _picture(seen: Look, width: int) -> rich.console.Group:
  return rich.console.Group(
    rendering.terminal(seen.report, width=width), f'{seen.done} of {seen.wanted} rows done'
  )
