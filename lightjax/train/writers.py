"""Where metrics go: one JSON a line, and TensorBoard's event files."""
from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

__all__ = ['Metrics']


class Metrics:
  """`metrics.jsonl` of a run, and `tensorboard/` beside it where tensorboardX is installed and asked for.

  The number of lines is part of a checkpoint: a resumed run cuts off what was written after it, so that no step is
  reported twice.

  Args:
    folder: of the run.
    lines: how many to keep of those that are there.
    tensorboard: write event files too.
  Raises:
    OSError: there are fewer lines than that, or the folder cannot be written.
  """

  def __init__(self, folder: pathlib.Path, *, lines: int = 0, tensorboard: bool = False):
    self.path = folder / 'metrics.jsonl'
    written = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
    if len(written) < lines:
      raise OSError(
        f'{self.path} has {len(written)} lines where the checkpoint counts {lines}; restore it, or remove the folder')
    self._file = open(self.path, 'a', buffering=1)  # noqa: SIM115 -- closed by `close`
    self._file.truncate(sum(map(len, written[:lines])))  # in one step: a kill in between loses no line
    self.lines = lines
    self._events: Any = None
    if tensorboard:
      import tensorboardX
      self._events = tensorboardX.SummaryWriter(str(folder / 'tensorboard'), purge_step=None)

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Add one line; numbers that are not finite are written as null, as JSON has none.

    Args:
      step: steps completed.
      row: 'split' and metrics.
    """
    clean = {
      key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
    self._file.write(json.dumps({'step': step, **clean}) + '\n')
    self.lines += 1
    if self._events is not None:
      for key, value in clean.items():
        if isinstance(value, (int, float)):
          self._events.add_scalar(f'{row.get("split", "run")}/{key}', value, step)

  def close(self) -> None:
    """Flush and close."""
    self._file.close()
    if self._events is not None:
      self._events.close()
