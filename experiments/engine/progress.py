"""What is seen while a table is trained: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import rich.console
import rich.live
import rich.markup
import rich.progress_bar
import rich.table

from experiments.engine import worker
from experiments.engine.scheduling import Event, Unit

_PLAIN_SECONDS = 10.0


def duration(seconds: float) -> str:
  """Seconds as a person says them.

  Args:
    seconds: at least 0.
  Returns:
    '42 s', '3 min 05 s', '2 h 10 min'.

  Example:
    >>> duration(4.25), duration(185), duration(7800)
    ('4.2 s', '3 min 05 s', '2 h 10 min')
  """
  if seconds < 10:
    return f'{seconds:.1f} s'
  whole = round(seconds)
  if whole < 60:
    return f'{whole} s'
  if whole < 3600:
    return f'{whole // 60} min {whole % 60:02d} s'
  return f'{whole // 3600} h {whole % 3600 // 60:02d} min'


class _Seat:
  """What one worker is at."""

  def __init__(self, unit: Unit):
    self.unit = unit
    self.began = time.monotonic()
    self.figures: dict[str, Any] = {}
    self.phase_began: tuple[Any, float, float] | None = None  # phase, its first step seen, and when

  def update(self, figures: dict[str, Any]) -> None:
    self.figures = figures
    phase, step = figures.get('phase'), figures.get('step', 0)
    if self.phase_began is None or self.phase_began[0] != phase or step < self.phase_began[1]:
      self.phase_began = (phase, step, time.monotonic())

  def eta(self) -> str:
    step, steps = self.figures.get('step', 0), self.figures.get('steps', 0)
    if self.phase_began is None or step <= self.phase_began[1] or not steps:
      return ''
    pace = (time.monotonic() - self.phase_began[2]) / (step - self.phase_began[1])
    return duration(max(0.0, (steps - step) * pace))

  def words(self) -> dict[str, str]:
    figures = self.figures
    steps = f'{figures["step"]:,}/{figures["steps"]:,}' if figures.get('steps') else ''
    loss = f'{figures["loss"]:.4g}' if isinstance(figures.get('loss'), (int, float)) else ''
    return {
      'phase': str(figures.get('phase', 'starting')),
      'steps': steps,
      'loss': loss,
      'eta': self.eta(),
      'time': duration(time.monotonic() - self.began),
    }


class Progress:
  """Listens to the scheduler and shows where it stands."""

  def __init__(self, console: rich.console.Console, *, total: int, workers: int, root: pathlib.Path):
    self.console, self.total, self.workers, self.root = console, total, workers, root
    self.done = self.failed = 0
    self.began = self.printed = time.monotonic()
    self.seats: dict[int, _Seat] = {}
    self.live: rich.live.Live | None = None

  @contextlib.contextmanager
  def showing(self) -> Iterator[None]:
    """Shows the live picture while the block runs (on a terminal)."""
    if not self.console.is_terminal:
      yield
      return
    with rich.live.Live(
      get_renderable=self._picture, console=self.console, refresh_per_second=4, transient=True
    ) as self.live:
      yield
    self.live = None

  def __call__(self, event: Event | None) -> None:
    """One event of the scheduler, or None for 'time has passed'."""
    if event is None:
      if self.live is None and time.monotonic() - self.printed > _PLAIN_SECONDS:
        self._lines()
      return
    if event.kind == 'progress' and event.worker in self.seats:
      self.seats[event.worker].update(event.detail)
      return
    if event.kind == 'start' and event.worker is not None:
      self.seats[event.worker] = _Seat(event.unit)
      return
    seat = self.seats.pop(event.worker, None) if event.worker is not None else None
    if event.kind == 'done':
      self.done += 1
      took = f', {duration(time.monotonic() - seat.began)}' if seat else ''
      self._say(f'done    {event.unit.name}{took}', 'green')
    elif event.kind == 'retry':
      self._say(f'again   {event.unit.name}: {event.detail}', 'yellow')
    elif event.kind == 'failed':
      self.failed += 1
      self._say(f'FAILED  {event.unit.name}: {event.detail}; log: {worker.log_path(self.root, event.unit.id)}', 'red')
    elif event.kind == 'dropped':
      self.failed += 1
      self._say(f'dropped {event.unit.name}: {event.detail}', 'yellow')

  def _count(self) -> str:
    width = len(str(self.total))
    failed = f', {self.failed} failed' if self.failed else ''
    return f'[{self.done:{width}}/{self.total}{failed}]'

  def _say(self, text: str, style: str) -> None:
    self.console.print(f'{self._count()} {text}', style=style, markup=False, highlight=False, soft_wrap=True)

  def _lines(self) -> None:
    self.printed = time.monotonic()
    for index, seat in sorted(self.seats.items()):
      words = seat.words()
      parts = [f'worker {index}', seat.unit.name, words['phase']]
      parts += [
        f'{name} {words[key]}' for name, key in (('step', 'steps'), ('loss', 'loss'), ('eta', 'eta')) if words[key]
      ]
      self._say('  '.join(parts), 'none')

  def _picture(self) -> rich.table.Table:
    grid = rich.table.Table(box=None, padding=(0, 2, 0, 0), header_style='dim')
    for name in ('worker', 'unit', 'phase', 'step', 'loss', 'time', 'ETA'):
      grid.add_column(
        name,
        justify='left' if name in ('worker', 'unit', 'phase') else 'right',
        no_wrap=True,
        overflow='ellipsis',
        ratio=1 if name == 'unit' else None,
      )
    for index in range(self.workers):
      seat = self.seats.get(index)
      if seat is None:
        grid.add_row(str(index), '[dim]idle[/]')
        continue
      words = seat.words()
      grid.add_row(
        str(index),
        rich.markup.escape(seat.unit.name),
        rich.markup.escape(words['phase']),
        words['steps'],
        words['loss'],
        words['time'],
        words['eta'],
      )
    failed = f'  [red]{self.failed} failed[/]' if self.failed else ''
    outer = rich.table.Table.grid(padding=(0, 1))
    bar = rich.table.Table.grid(padding=(0, 2))
    bar.add_row(
      rich.progress_bar.ProgressBar(total=max(self.total, 1), completed=self.done, width=40),
      f'{self.done}/{self.total} units{failed}',
      f'[dim]{duration(time.monotonic() - self.began)}[/]',
    )
    outer.add_row(grid)
    outer.add_row(bar)
    return outer
