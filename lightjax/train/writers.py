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
  """

  def __init__(self, folder: pathlib.Path, *, lines: int = 0, tensorboard: bool = False):
    self.path = folder / 'metrics.jsonl'
    kept = self.path.read_text().splitlines(keepends=True)[:lines] if lines else []
    if len(kept) < lines:
      raise ValueError(
        f'{self.path} has {len(kept)} lines where the checkpoint counts {lines}; restore it or remove the folder.')
    self.path.write_text(''.join(kept))
    self.lines = lines
    self._file = open(self.path, 'a', buffering=1)  # noqa: SIM115 -- closed by `close`
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
