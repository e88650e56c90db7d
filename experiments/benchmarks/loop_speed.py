"""Examples a second of a whole run: steps, evaluation, metrics and checkpoints, from the first report to the last.

Example:
  python -m experiments.benchmarks.loop_speed --config=experiments/configs/lenet300.py --config.epochs=40
"""
from __future__ import annotations

import pathlib
import tempfile
import time
from typing import Any

from ml_collections import config_flags

from experiments import commands, configuration, unit
from lightjax.core import specs

_CONFIG = config_flags.DEFINE_config_file(
  'config', str(configuration.FOLDER / 'lenet300.py'), 'Config file; any field: --config.field=value.')


def main() -> int:
  """Run the command."""
  config = _CONFIG.value
  commands.configure_devices(config)
  seen: list[tuple[float, int]] = []

  def report(state: dict[str, Any]) -> None:
    if state['phase'] == 'training':
      seen.append((time.perf_counter(), state['step']))

  with tempfile.TemporaryDirectory() as folder:
    unit.run_in(pathlib.Path(folder) / 'run', config, pathlib.Path(folder) / 'units', report)
  if len(seen) < 2:
    raise specs.SpecError(f'epochs={config.epochs}: the run is over before there are two reports; make it longer.')
  (began, first), (ended, last) = seen[0], seen[-1]
  speed = (last - first) * config.batch_size / (ended - began)
  what = f'{config.model.name}, batch {config.batch_size}'
  print(f'{what}: {speed:,.0f} examples/s over {last - first} steps of the whole loop')
  return 0


if __name__ == '__main__':
  commands.launch(main)
