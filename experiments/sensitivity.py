"""How much of each layer can go: accuracy of a trained network on the validation split against the ratio pruned.

One layer at a time is masked, all others stay as they were trained; nothing is trained again. Beside the table and the
plot it writes `ratios.json`, for each layer the largest ratio whose loss of accuracy stays within --tolerance, which a
config hands to a budget:

  from lightjax.prune import budgets
  config.compress.prune.budget = f'by_path({budgets.read("runs/scan/ratios.json")!r})'

Example:
  python -m experiments.sensitivity --config=experiments/configs/lenet300.py --workdir=runs/scan
"""
from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import rich.console
import rich.table
from absl import flags
from ml_collections import config_flags

from experiments import building, commands, configuration, training, unit
from lightjax.core import rngs, schedules, specs, trees
from lightjax.core.transform import Context
from lightjax.prune import budgets, criteria, patterns, prune

_RATIOS = flags.DEFINE_list('ratios', ['0.5', '0.7', '0.8', '0.9', '0.95', '0.98'], 'Ratios pruned, 0..1.')
_CRITERION = flags.DEFINE_string('criterion', 'magnitude', 'A name of lightjax.prune.criteria, or my_file:mine.')
_PATTERN = flags.DEFINE_string('pattern', 'unstructured', "A name of lightjax.prune.patterns, or 'n_of_m(2, 4)'.")
_TOLERANCE = flags.DEFINE_float('tolerance', 0.01, 'Loss of accuracy, 0..1, that ratios.json allows in each layer.')


class Scan(NamedTuple):
  """What a scan found.

  Attributes:
    dense: accuracy of the network as it is, 0..1.
    ratios: pruned, ascending.
    accuracies: path to one accuracy a ratio.
  """
  dense: float
  ratios: tuple[float, ...]
  accuracies: dict[str, tuple[float, ...]]

  def within(self, tolerance: float) -> dict[str, float]:
    """Path to the largest ratio up to which no accuracy is lower than the dense one by more than the tolerance."""
    found = {}
    for path, accuracies in self.accuracies.items():
      sound = [accuracy >= self.dense - tolerance for accuracy in accuracies]
      count = sound.index(False) if False in sound else len(sound)
      found[path] = self.ratios[count - 1] if count else 0.0
    return found


def scan(
  config: ml_collections.ConfigDict, root: pathlib.Path, *, ratios: Sequence[float], criterion: str, pattern: str,
  progress: unit.Progress,
) -> Scan:
  """Mask each kernel of a trained network at each ratio, and evaluate it on the validation split.

  Args:
    config: of the network; its unit is trained where it is missing.
    root: folder of units.
    ratios: to prune, 0..1.
    criterion: as a config names it; what it asks for is computed on the run's first batches.
    pattern: likewise.
    progress: called with {'step', 'steps', 'phase', ...}.
  Returns:
    The accuracies; all are evaluated by one compiled function.
  Raises:
    SpecError: a ratio outside 0..1, an unknown name, no validation split, a kernel that the pattern does not divide.
  """
  if not ratios or not all(0.0 <= ratio <= 1.0 for ratio in ratios):
    raise specs.SpecError(f'ratios={list(ratios)}: want one or more numbers 0..1.')
  scorer = specs.resolve(criterion, criteria, field='criterion')
  tiles = specs.resolve_call(pattern, patterns, field='pattern')
  unit.run(config, root, progress)
  built = training.program(config, training.finished(root, config)[2])
  if not len(built.splits.validation):
    raise specs.SpecError('data.validation=0: a scan needs a validation split, and the test set is not for choosing.')
  variables, own = jax.tree.map(jnp.asarray, training.finished(root, config)[:2])
  images, labels = built.splits.train.take(np.arange(min(len(built.splits.train), 512)))
  inputs = built.normalize(jnp.asarray(images))
  loss_of = building.loss_function(config)

  def loss(variables: Any) -> Any:
    return loss_of(built.compressed.evaluate(variables, inputs), jnp.asarray(labels), 0.0).mean()

  def accuracy(variables: Any) -> float:
    return built.evaluate('validation', variables, own)['accuracy']

  def masked(path: str, ratio: float) -> Any:
    method = prune(scorer, tiles, budgets.uniform, schedules.constant(ratio), every=1)
    context = Context(
      built.compressed.layouts, (path,), key=rngs.root(config.seed), loss=loss, apply=built.compressed.evaluate,
      batch=(inputs,))
    return method.project(variables, specs.call(method.init, {}, variables, context, field=path))

  ordered = tuple(sorted(set(ratios)))
  paths = [path for path in trees.flatten(variables) if path in built.compressed.layouts]
  found = {}
  for number, path in enumerate(paths):
    progress({'step': number, 'steps': len(paths), 'phase': 'scanning'})
    found[path] = tuple(accuracy(masked(path, ratio)) for ratio in ordered)
  return Scan(accuracy(variables), ordered, found)


def table(found: Scan, tolerance: float) -> rich.table.Table:
  """Accuracy in percent, a row a layer, and the ratio that the tolerance allows."""
  grid = rich.table.Table(title=f'validation accuracy (%) with one layer pruned; as trained: {100 * found.dense:.2f}')
  for name in ('parameter', *map(str, found.ratios), f'within {100 * tolerance:g} points'):
    grid.add_column(name, justify='left' if name == 'parameter' else 'right')
  allowed = found.within(tolerance)
  for path, accuracies in found.accuracies.items():
    grid.add_row(path, *(f'{100 * accuracy:.2f}' for accuracy in accuracies), f'{allowed[path]:g}')
  return grid


def plot(found: Scan, path: pathlib.Path) -> None:
  """Accuracy against ratio, a line a layer, as SVG."""
  try:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
  except ImportError as error:
    raise specs.SpecError('the plot needs matplotlib: pip install "lightjax[report]".') from error
  figure = Figure(figsize=(6.4, 4.0), layout='constrained')
  FigureCanvasSVG(figure)
  axes = figure.add_subplot()
  for name, accuracies in found.accuracies.items():
    axes.plot(found.ratios, [100 * accuracy for accuracy in accuracies], marker='o', markersize=3, label=name)
  axes.axhline(100 * found.dense, color='grey', linewidth=0.8, linestyle='--', label='as trained')
  axes.set(xlabel='ratio pruned in this layer', ylabel='validation accuracy (%)')
  axes.legend(fontsize='small', ncols=1 + len(found.accuracies) // 12)
  figure.savefig(path, format='svg', metadata={'Date': None})


def main() -> int:
  """Run the command."""
  config = configuration.smoke(flags.FLAGS.config) if flags.FLAGS.smoke else flags.FLAGS.config
  file, _, _ = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')
  name, folder = config.name or pathlib.Path(file).stem, pathlib.Path(flags.FLAGS.workdir)
  try:
    ratios = [float(ratio) for ratio in _RATIOS.value]
  except ValueError as error:
    raise specs.SpecError(f'--ratios={",".join(_RATIOS.value)}: want numbers such as 0.5,0.9.') from error
  commands.configure_devices(config)
  with commands.progress_bar(name) as progress:
    found = scan(
      config, folder / 'units', ratios=ratios, criterion=_CRITERION.value, pattern=_PATTERN.value, progress=progress)
  rich.console.Console().print(table(found, _TOLERANCE.value))
  unit.write(folder / 'sensitivity.json', json.dumps(found._asdict(), indent=1))
  unit.write(folder / 'ratios.json', json.dumps(found.within(_TOLERANCE.value), indent=1))
  plot(found, folder / 'sensitivity.svg')
  print(f'written: {folder}/ sensitivity.json, ratios.json, sensitivity.svg')
  return 0


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'Config of the network; trained first where it is not yet.')
  flags.DEFINE_string('workdir', None, 'Folder of the scan; the network is trained in its `units`.')
  flags.DEFINE_bool('smoke', False, 'A run of seconds on synthetic images.')
  flags.mark_flags_as_required(['config', 'workdir'])
  commands.launch(main)
