"""Train one run from a config: resumes what was stopped, returns at once what is done.

Any field can be overridden: --config.compress.prune.sparsity=0.95. What the run needs first (a teacher, a network to
start from) is trained in DIR/units.

Example:
  python -m experiments.run --config=experiments/configs/lenet300.py --workdir=runs/dense --config.epochs=5
"""
from __future__ import annotations

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from experiments import commands, configuration, unit

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'A file such as experiments/configs/lenet300.py; --config.FIELD=VALUE changes it.')
flags.DEFINE_string(
  'workdir', None, 'Folder of the run: checkpoints, metrics, artifact, result.')
_SMOKE = flags.DEFINE_bool('smoke', False, 'A run of seconds on synthetic images, to see that the config works.')
flags.mark_flags_as_required(['config', 'workdir'])


def main() -> int:
  """Run the command."""
  config = _CONFIG.value
  file, _, _ = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')
  config.name = config.name or pathlib.Path(file).stem
  config = configuration.smoke(config) if _SMOKE.value else config
  folder = pathlib.Path(flags.FLAGS.workdir)
  commands.configure_devices(config)
  with commands.progress_bar(config.name) as progress:
    result = unit.run_in(folder, config, folder / 'units', progress)
  for name, value in result['metrics'].items():
    print(f'{name:>24}  {value}')
  print(f'written: {folder}/ result.json, artifact.ljx, metrics.jsonl, checkpoints/')
  return 0


if __name__ == '__main__':
  sys.modules['experiments.run'] = sys.modules['__main__']
  commands.launch(main)
