"""One table: trains what is missing, skips what is done, renders Markdown, LaTeX and an HTML page.

  python -m experiments.table --table=NAME --jobs=2
  python -m experiments.table --table=path/to/my_table.py --workdir=runs --results=experiments/results
  python -m experiments.table --table=NAME --part=0/4   # every fourth row, for one of four machines
  python -m experiments.table --table=NAME --watch      # beside those that train: the table as it fills

Interrupted (Ctrl-C, SIGTERM, kill -9), the same command resumes. Ends with 0; 1 when a row failed; 2 on a mistake in
the command or in the table file; 128 + signal when it was stopped (129, 130 after Ctrl-C, 143): the workers save first
(a second Ctrl-C does not wait for them), and whoever started it may start it again.
"""

from __future__ import annotations

import pathlib
import re
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import rich.console
from absl import app, flags, logging

from experiments.engine import progress, rendering, rows, scheduling, tables, watching
from experiments.engine.errors import TableError

TABLE = flags.DEFINE_string(
  'table', None, 'Name of a file in experiments/tables, or a path to a table file of your own.'
)
JOBS = flags.DEFINE_integer('jobs', 1, 'Worker processes; cores (and GPUs) are divided between them.')
SEEDS = flags.DEFINE_list('seeds', None, 'Seeds to train now, instead of all that the table declares.')
WORKDIR = flags.DEFINE_string('workdir', 'runs', 'Where units and tables are kept.')
RESULTS = flags.DEFINE_string('results', None, 'Write rows and rendered table to RESULTS/NAME as well.')
SMOKE = flags.DEFINE_bool(
  'smoke', False, 'The variant that runs in seconds on bundled data, first seed only; its figures mean nothing.'
)
DATA_DIR = flags.DEFINE_string('data_dir', '', 'Where the images lie: idx files, or the data_dir of TFDS.')
PART = flags.DEFINE_string(
  'part', None, 'I/N: train every Nth row, from the Ith (0 to N-1), and write no table; --notrain then shows the whole.'
)
RETRIES = flags.DEFINE_integer('retries', 2, 'How often a unit whose process died is tried again.')
WATCH = flags.DEFINE_bool('watch', False, 'Train nothing; show what is there until all rows are done.')
TRAIN = flags.DEFINE_bool('train', True, 'Train what is missing; --notrain only shows what is there.')


_WATCH_SECONDS = 2.0


class Stopped(KeyboardInterrupt):
  """SIGTERM or SIGHUP: ends like Ctrl-C, with the exit code 128 + signal."""


class Work(NamedTuple):
  """What a table asks for: the id of every cell and seed, what is on disk, and what must be run."""

  identities: dict[tuple[int, int], str]
  found: dict[str, dict[str, Any]]
  units: dict[str, scheduling.Unit]


def find_work(
  table: tables.Table,
  *,
  unit: ModuleType,
  root: pathlib.Path,
  shown: Sequence[int],
  trained: Sequence[int],
  smoke: bool,
  data_dir: str,
  part: tuple[int, int] = (0, 1),
) -> Work:
  """Builds every config and looks which results exist.

  Args:
    table: the table.
    unit: the module of the work units.
    root: folder of the units.
    shown: seeds that get a row.
    trained: seeds among them that are run if they are missing.
    smoke: take the smoke variant of every config.
    data_dir: where the images lie on this machine.
    part: (I, N): of the rows only every Nth is run, from the Ith on.
  Returns:
    The work; rows in the order of the cells, then of the seeds.
  Raises:
    TableError: a config that cannot be built; names the cell.
  """
  work = Work({}, {}, {})
  index, parts = part
  for number, cell in enumerate(table.cells):
    for seed in shown:
      name = f'{" ".join(map(str, cell.labels.values()))}, seed {seed}'
      config = tables.build(table, cell, seed=seed, smoke=smoke, data_dir=data_dir)
      try:
        if cell.run and seed in trained and len(work.identities) % parts == index:
          identity = scheduling.collect(
            unit, config, root=root, name=name, group=number, units=work.units, results=work.found
          )
        else:
          identity = unit.identify(config)
          result = unit.result(root, identity)
          if result is not None:
            work.found[identity] = result
      except (ValueError, TypeError, LookupError) as error:
        raise TableError(f'{table.path.name}, {name}: {error}') from error
      work.identities[number, seed] = identity
  return work


def refresh(work: Work, *, unit: ModuleType, root: pathlib.Path) -> None:
  """Reads the results that have come since the last look; those that were found before are not read again.

  Args:
    work: its `found` is changed in place.
    unit: the module of the work units.
    root: folder of the units.
  """
  for identity in dict.fromkeys((*work.units, *work.identities.values())):
    if identity not in work.found:
      result = unit.result(root, identity)
      if result is not None:
        work.found[identity] = result


def make_table(
  name: str,
  *,
  unit: ModuleType,
  jobs: int,
  workdir: pathlib.Path,
  console: rich.console.Console,
  seeds: Sequence[int] | None = None,
  results: pathlib.Path | None = None,
  smoke: bool = False,
  train: bool = True,
  data_dir: str = '',
  part: tuple[int, int] | None = None,
  retries: int = 2,
  watch: float | None = None,
) -> int:
  """Trains and renders one table.

  Args:
    name: of the table, or a path to its file.
    unit: the module of the work units (identify, prerequisites, run, result, NUMERICS); workers import it by name.
    jobs: number of worker processes.
    workdir: units go to `<workdir>/units/<id>`, the table to `<workdir>/tables/<name>`.
    console: where progress and the table are printed.
    seeds: trained now; default all of the table's (its first, in a smoke run).
    results: a second place for the table, to be committed.
    smoke: run the smoke variant of every config.
    train: train what is missing.
    data_dir: where the images lie on this machine.
    part: (I, N): train every Nth row from the Ith on, and write no table: other parts are trained elsewhere.
    retries: how often a unit whose process died is tried again.
    watch: seconds between two looks at what others train; this process then trains and writes nothing.
  Returns:
    Exit code: 0, or 1 when a unit failed.
  Raises:
    TableError: a mistake of the user.
    OSError: a folder cannot be written.
    KeyboardInterrupt: after the workers saved and the rows of what is done were written.
  """
  table = tables.load(name)
  chosen = tuple(seeds) if seeds is not None else table.seeds[:1] if smoke else table.seeds
  shown = chosen if smoke else tuple(dict.fromkeys((*table.seeds, *chosen)))
  shares = scheduling.plan(jobs)
  root = workdir / 'units'
  label = f'{table.name}-smoke' if smoke else table.name
  folders = [workdir / 'tables' / label] + ([results / label] if results is not None else [])
  if part is not None and results is not None:
    raise TableError('--results with --part: a part is no table; train the parts, then --notrain --results=...')
  for folder in (root, *folders):
    folder.mkdir(parents=True, exist_ok=True)
  before = {row['id']: row for folder in reversed(folders) for row in rows.read(folder / 'rows.jsonl') if row['result']}
  trained = chosen if train and watch is None else ()
  work = find_work(
    table, unit=unit, root=root, shown=shown, trained=trained, smoke=smoke, data_dir=data_dir, part=part or (0, 1)
  )
  wanted = set(work.identities.values())
  others = len(work.units.keys() - wanted)
  console.print(
    f'{table.title}: {len(wanted)} rows ({len(table.cells)} cells), {len(wanted & work.found.keys())} done, '
    f'{len(work.units) - others} to train' + (f', {others} other units first' if others else ''),
    style='bold',
    markup=False,
    highlight=False,
    soft_wrap=True,
  )
  errors: dict[str, str] = {}

  def read_rows() -> list[dict[str, Any]]:
    refresh(work, unit=unit, root=root)
    return [
      rows.make(
        table.cells[number],
        seed=seed,
        identity=identity,
        unit=unit,
        root=root,
        result=work.found.get(identity),
        error=errors.get(identity),
        metric=table.metric,
        before=before,
      )
      for (number, seed), identity in work.identities.items()
    ]

  def write_rows() -> list[dict[str, Any]]:
    made = read_rows()
    for folder in folders if part is None else ():
      rows.write(folder / 'rows.jsonl', made)
    return made

  def report(made: Sequence[dict[str, Any]]) -> rendering.Report:
    return rendering.Report(table=table, rows=made, bases=tables.bases(table), is_smoke=smoke)

  if watch is not None:
    awaited = {
      identity for (number, seed), identity in work.identities.items() if table.cells[number].run and seed in chosen
    }

    def look() -> watching.Look:
      made = read_rows()
      before.update({row['id']: row for row in made if row['result']})  # their curves are not read again
      return watching.Look(report(made), len(awaited & work.found.keys()), len(awaited))

    watching.watch(look, console=console, seconds=watch)
    return 0

  if work.units:
    for index, share in enumerate(shares):
      console.print(f'worker {index}: {share.text}', style='dim', highlight=False)
    seen = progress.Progress(console, total=len(work.units), workers=len(shares), root=root)
    try:
      with seen.showing():
        errors = scheduling.execute(work.units, unit=unit, root=root, shares=shares, listen=seen, retries=retries)
    except KeyboardInterrupt:
      write_rows()
      done = len(work.units.keys() & work.found.keys())
      console.print(f'stopped: {done} of {len(work.units)} units done; the same command resumes.')
      raise

  if part is None:
    full = report(write_rows())
    console.print(rendering.terminal(full, width=console.width))
    for folder in folders:
      for path in (folder / 'rows.jsonl', *rendering.write(full, folder)):
        console.print(f'wrote {path}', highlight=False, soft_wrap=True)
  if errors:
    console.print(f'{len(errors)} units failed; the same command tries them again.', style='red')
  return 1 if errors else 0


def _seeds(texts: Sequence[str] | None) -> list[int] | None:
  if texts is None:
    return None
  try:
    seeds = [int(text) for text in texts]
  except ValueError:
    raise TableError(f'--seeds={",".join(texts)}: want integers such as 0,1,2.') from None
  if not seeds:
    raise TableError('--seeds is empty: want integers such as 0,1,2.')
  return seeds


def _part(text: str | None) -> tuple[int, int] | None:
  if text is None:
    return None
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if found is None or int(found[1]) >= int(found[2]):
    raise TableError(f'--part={text}: want I/N with I from 0 to N-1, such as 0/4.')
  return int(found[1]), int(found[2])


def _parse(arguments: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(list(arguments))
  except flags.Error as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


def _on_signal(number: int, frame: Any) -> None:
  signal.signal(number, signal.SIG_IGN)
  raise Stopped(number)


def main(arguments: Sequence[str]) -> int:
  """Parses what absl left and turns every mistake of the user into one line."""
  logging.set_verbosity(logging.ERROR)  # matplotlib and orbax tell what nobody asked
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = 140  # a log file has no width of its own
  signal.signal(signal.SIGTERM, _on_signal)
  signal.signal(signal.SIGHUP, _on_signal)
  try:
    if len(arguments) > 1:
      raise TableError(f'{" ".join(arguments[1:])}: unexpected; flags are written --name=value.')
    if TABLE.value is None:
      raise TableError(f'--table=NAME is missing; tables: {", ".join(tables.names())}.')
    from experiments import unit

    return make_table(
      TABLE.value,
      unit=unit,
      jobs=JOBS.value,
      workdir=pathlib.Path(WORKDIR.value),
      console=console,
      seeds=_seeds(SEEDS.value),
      results=pathlib.Path(RESULTS.value) if RESULTS.value else None,
      smoke=SMOKE.value,
      train=TRAIN.value,
      data_dir=DATA_DIR.value,
      part=_part(PART.value),
      retries=RETRIES.value,
      watch=_WATCH_SECONDS if WATCH.value else None,
    )
  except TableError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except OSError as error:
    print(f'error: {error.filename or "output"}: {error.strerror or error}', file=sys.stderr)
    return 1
  except Stopped as stop:
    return 128 + stop.args[0]
  except KeyboardInterrupt:
    return 130


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
