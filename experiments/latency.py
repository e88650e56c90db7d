"""Measures the operations of a space on this machine, and how well their sums predict whole networks.

The table of each batch size holds every distinct operation with its latency, quartiles and bytes moved, the device and
the versions. The same command goes on where it was stopped, and measures again what another machine measured.

Example:
  python -m experiments.latency --space=mobile28 --workdir=runs/latency
"""
from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from experiments.engine import rows
from lightjax import models
from lightjax.core import specs
from lightjax.search import Candidate, Space, latency, spaces
from lightjax.train import devices

_BATCHES = flags.DEFINE_list('batches', ['1', '32'], 'Images in a call, one table each.')
_CANDIDATES = flags.DEFINE_integer('candidates', 0, 'Random candidates whose operations are measured; 0 for all.')
_WHOLE = flags.DEFINE_integer('whole', 40, 'Random candidates among them that are measured as whole networks.')
_CALIBRATION = flags.DEFINE_integer('calibration', 10, 'Of these, how many the calibration is fitted to.')


def table_of(
  space: Space, candidates: Sequence[Candidate], image: jax.ShapeDtypeStruct, place: pathlib.Path, *, whole: int,
  calibration: int, rounds: int,
) -> dict[str, Any]:
  """Measure operations and some whole networks at one batch size.

  Args:
    space: of networks.
    candidates: whose operations are measured, in random order.
    image: a batch.
    place: file of the table, gone on with if it is of this machine.
    whole: candidates measured as whole networks, the first ones.
    calibration: of these, the first ones, which the error is not measured on.
    rounds: of each.
  Returns:
    What the file holds.
  """
  finder = latency.Operations()
  networks = {candidate: models.create(**space.spec(candidate)) for candidate in candidates}
  found = {candidate: finder.of(network, image) for candidate, network in networks.items()}
  about = {'space': space.name, 'input': list(image.shape), 'processor': steps.processor(), 'cores': devices.cores(),
           'versions': devices.versions()}
  known = {}
  if place.is_file():
    before = json.loads(place.read_text(encoding='utf-8'))
    if all(before.get(name) == value for name, value in about.items()):
      known = {key: latency.Measured(**row) for key, row in before['operations'].items()}

  def keep(table: dict[str, latency.Measured], **more: Any) -> dict[str, Any]:
    record = {**about, 'operations': {key: row._asdict() for key, row in table.items()}, **more}
    rows.write_text(place, json.dumps(record, indent=1))
    return record

  operations = [each for of_one in found.values() for each in of_one]
  table = latency.measure(operations, rounds=rounds, known=known, keep=keep)
  chosen = list(candidates[:whole])
  seen = latency.whole({str(each): networks[each] for each in chosen}, image, rounds=rounds)
  sums = [latency.predict(found[each], table) for each in chosen]
  measured = [seen[str(each)] for each in chosen]
  line = latency.calibrate(sums[:calibration], measured[:calibration])
  predicted = [latency.predict(found[each], table, line) for each in chosen]
  errors = np.abs(np.array([sums, predicted]) / measured - 1)[:, calibration:]
  lines = [
    {'options': space.options(each), 'sum_ms': total, 'predicted_ms': guess, 'measured_ms': real,
     'bytes_moved': sum(operation.bytes_moved for operation in found[each]), 'is_calibration': number < calibration}
    for number, (each, total, guess, real) in enumerate(zip(chosen, sums, predicted, measured, strict=True))]
  return keep(
    table, calibration=line._asdict(), median_error_of_sums=float(np.median(errors[0])),
    median_error=float(np.median(errors[1])), networks=lines)


def main() -> int:
  """Run the command."""
  space = spaces.load(flags.FLAGS.space)
  size, batches = flags.FLAGS.image, _BATCHES.value
  if len(size) != 3 or not all(each.isdigit() and int(each) for each in (*size, *batches)):
    raise specs.SpecError(
      f'--image={",".join(size)} --batches={",".join(batches)}: want numbers, such as 28,28,1 and 1,32.')
  everything = list(space)
  order = np.random.default_rng(0).permutation(len(everything))[:_CANDIDATES.value or None]
  candidates = [everything[place] for place in order]
  if not 2 <= _CALIBRATION.value < _WHOLE.value <= len(candidates):
    raise specs.SpecError(
      f'--calibration={_CALIBRATION.value} --whole={_WHOLE.value}: of {len(candidates)} candidates want two or more to '
      'calibrate on, and more to measure the error on.')
  devices.configure(cpu_devices=1)
  grid = rich.table.Table('batch', 'operations', 'networks', 'median error of sums', 'calibrated', 'scale', 'offset ms')
  for batch in map(int, batches):
    image = jax.ShapeDtypeStruct((batch, *map(int, size)), 'float32')
    place = pathlib.Path(flags.FLAGS.workdir) / f'{space.name}_batch{batch}.json'
    record = table_of(
      space, candidates, image, place, whole=_WHOLE.value, calibration=_CALIBRATION.value, rounds=flags.FLAGS.rounds)
    line = record['calibration']
    grid.add_row(
      str(batch), str(len(record['operations'])), str(_WHOLE.value - _CALIBRATION.value),
      f'{record["median_error_of_sums"]:.1%}', f'{record["median_error"]:.1%}', f'{line["scale"]:.3f}',
      f'{line["offset_ms"]:.3f}')
  rich.console.Console().print(grid)
  print(f'written: {flags.FLAGS.workdir}/')
  return 0


if __name__ == '__main__':
  flags.DEFINE_string('space', 'mobile28', "A function of lightjax.search.spaces, or 'my_file:my_space'.")
  flags.DEFINE_list('image', ['28', '28', '1'], 'Height, width and channels of an image.')
  flags.DEFINE_integer('rounds', 30, 'Measured calls of each operation and network.')
  flags.DEFINE_string('workdir', None, 'Folder of the tables.')
  flags.mark_flags_as_required(['workdir'])
  commands.launch(main)
