"""Examples a second of a whole run: steps, evaluation, metrics and checkpoints, from the first report to the last.

Example:
  python -m experiments.benchmarks.loop_speed --config=lenet300.py --epochs=20
"""
from __future__ import annotations

import pathlib
import tempfile
import time
from typing import Any

from absl import flags

from experiments import commands, configuration, unit

_CONFIG = flags.DEFINE_string('config', 'lenet300.py', 'Config of the run, a path or a name in experiments/configs.')
_EPOCHS = flags.DEFINE_integer('epochs', 20, 'Length of the run.')
_DEVICES = flags.DEFINE_integer('devices', 1, 'Virtual CPU devices that share a batch; 0: one a core.')


def main() -> int:
  """Run the command."""
  config = configuration.load(_CONFIG.value)
  config = configuration.override(config, [('epochs', _EPOCHS.value), ('devices', _DEVICES.value)])
  commands.configure_devices(config)
  seen: list[tuple[float, int]] = []

  def report(state: dict[str, Any]) -> None:
    if state['phase'] == 'training':
      seen.append((time.perf_counter(), state['step']))

  with tempfile.TemporaryDirectory() as folder:
    unit.run_in(pathlib.Path(folder) / 'run', config, pathlib.Path(folder) / 'units', report)
  (began, first), (ended, last) = seen[0], seen[-1]
  speed = (last - first) * config.batch_size / (ended - began)
  what = f'{config.name}, batch {config.batch_size}'
  print(f'{what}: {speed:,.0f} examples/s over {last - first} steps of the whole loop')
  return 0


if __name__ == '__main__':
  commands.launch(main)
