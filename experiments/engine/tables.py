"""What a table file is: a docstring, BASE, SEEDS, METRIC, and cells() that yields labels and overrides.

Optional: COLUMNS (metrics shown besides), PUBLISHED (figures with labels), HIGHER_IS_BETTER (of a metric of one's own).
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from experiments.engine import statistics
from experiments.engine.errors import TableError, nearest
from experiments.engine.published import Figure, attach

FOLDER = pathlib.Path(__file__).parent.parent
COLUMNS = ('params', 'nonzeros', 'macs', 'bytes', 'seconds')
_OPTIONS = ('base', 'run', 'published', 'layer', 'beside')
_SCALARS = (str, int, float, bool, type(None))


class Cell(NamedTuple):
  """One row of a table: what it is called, what it changes in its base config, and the figure beside it.

  `run` is False for a cell that is declared and complete but not trained here; it shows a result when one is there.
  With a `layer` the row has the figures of that parameter in place of the network's. `beside` are published figures for
  columns: name to number, in our unit.
  """

  labels: dict[str, Any]
  overrides: dict[str, Any]
  base: str
  run: bool
  figure: Figure | None
  layer: str = ''
  beside: Mapping[str, float] = {}


class Table(NamedTuple):
  """A table file, read."""

  name: str
  path: pathlib.Path
  title: str
  text: str
  base: str
  seeds: tuple[int, ...]
  metric: str
  is_higher_better: bool
  columns: tuple[str, ...]
  cells: tuple[Cell, ...]


def _load(path: pathlib.Path) -> ModuleType:
  """Runs a Python file as a module; whatever goes wrong inside becomes one line with its place."""
  name = f'_lightjax_file_{path.stem}_{abs(hash(str(path)))}'
  spec = importlib.util.spec_from_file_location(name, path)
  if spec is None or spec.loader is None:
    raise TableError(f'{path}: not a Python file.')
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  _guarded(path, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
  return module


def _guarded(path: pathlib.Path, call: Callable[[], Any]) -> Any:
  try:
    return call()
  except TableError as error:
    raise TableError(f'{path.name}: {error}') from error
  except Exception as error:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f'{path}:{lines[-1]}' if lines else str(path)
    raise TableError(f'{where}: {type(error).__name__}: {error}') from error


def names() -> list[str]:
  """Names of all tables in experiments/tables, sorted."""
  return sorted(path.stem for path in (FOLDER / 'tables').glob('*.py') if not path.stem.startswith('_'))


def find(name: str) -> pathlib.Path:
  """The file of a table: experiments/tables/NAME.py, or a path to one's own.

  Args:
    name: a name without suffix, or a path that ends in .py.
  Returns:
    The absolute path.
  Raises:
    TableError: there is no such table; names the nearest.
  """
  if name.endswith('.py'):
    path = pathlib.Path(name).resolve()
    if not path.is_file():
      raise TableError(f'--table={name}: no such file.')
    return path
  path = FOLDER / 'tables' / f'{name}.py'
  if not path.is_file():
    raise TableError(f'--table={name}: unknown table; {nearest(name, names())}. A path to a .py file is welcome too.')
  return path


def _figure(value: Any) -> Figure | None:
  if value is None or isinstance(value, Figure):
    return value
  if isinstance(value, (int, float)):
    return Figure(float(value))
  if isinstance(value, Mapping):
    return Figure(**value)
  raise TableError(f'published={value!r}: want a number, a Figure, or a dict of its fields.')


def _cell(item: Any, base: str) -> Cell:
  if not isinstance(item, tuple) or len(item) not in (2, 3):
    raise TableError(f'cells() yields (labels, overrides) or (labels, overrides, options), not {item!r}.')
  labels, overrides = dict(item[0]), dict(item[1])
  options = dict(item[2]) if len(item) == 3 else {}
  for key in options:
    if key not in _OPTIONS:
      raise TableError(f'cell {labels}: unknown option {key!r}; {nearest(key, _OPTIONS)}.')
  for key, value in labels.items():
    if not isinstance(value, _SCALARS):
      raise TableError(f'cell {labels}: the label {key!r} is a {type(value).__name__}; want a text or a number.')
  return Cell(
    labels, overrides, options.get('base', base), bool(options.get('run', True)), _figure(options.get('published')),
    options.get('layer', ''), dict(options.get('beside', {})),
  )


def load(name: str) -> Table:
  """Reads a table file.

  Args:
    name: a table's name or a path, see `find`.
  Returns:
    The table with its cells, each with its base and published figure.
  Raises:
    TableError: no such table, a missing or malformed declaration, an error inside the file (with file and line), or
      two cells with the same labels.
  """
  path = find(name)
  module = _load(path)
  for wanted in ('BASE', 'SEEDS', 'METRIC', 'cells'):
    if not hasattr(module, wanted):
      raise TableError(f'{path.name}: declares no {wanted}; a table has BASE, SEEDS, METRIC and cells().')
  text = inspect.cleandoc(module.__doc__ or path.stem)
  title, _, rest = text.partition('\n')

  def read() -> list[Cell]:
    cells = [_cell(item, module.BASE) for item in module.cells()]
    if not cells:
      raise TableError('cells() yields nothing.')
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
      key = tuple(sorted((label, repr(value)) for label, value in cell.labels.items()))
      if key in seen:
        raise TableError(f'two cells are labelled {cell.labels}.')
      seen.add(key)
    figures = attach(list(getattr(module, 'PUBLISHED', ())), [cell.labels for cell in cells])
    return [cell._replace(figure=cell.figure or figure) for cell, figure in zip(cells, figures, strict=True)]

  cells = _guarded(path, read)
  up = getattr(module, 'HIGHER_IS_BETTER', None)
  return Table(
    name=path.stem,
    path=path,
    title=title.rstrip('.'),
    text=rest.strip(),
    base=module.BASE,
    seeds=tuple(module.SEEDS),
    metric=module.METRIC,
    is_higher_better=statistics.higher_is_better(module.METRIC) if up is None else bool(up),
    columns=tuple(getattr(module, 'COLUMNS', COLUMNS)),
    cells=tuple(cells),
  )


@functools.cache
def _base(folder: pathlib.Path, base: str) -> ml_collections.ConfigDict:
  from experiments import configuration  # imports jax, which --help and mistakes in a table file do not need

  return _guarded(folder / base.partition(':')[0], lambda: configuration.load(base, relative_to=folder))


def bases(table: Table) -> dict[str, dict[str, str]]:
  """Every base config of a table, resolved, for its report.

  Args:
    table: the table.
  Returns:
    Name of the base to {dotted field: text of the value}.
  """
  from experiments import configuration

  names = dict.fromkeys(cell.base for cell in table.cells)
  flat = {base: configuration.flatten(_base(table.path.parent, base)) for base in names}
  return {base: {field: repr(value) for field, value in fields.items()} for base, fields in flat.items()}


def build(
  table: Table, cell: Cell, *, seed: int, smoke: bool = False, data_dir: str = ''
) -> ml_collections.ConfigDict:
  """The complete config of one cell and seed.

  Args:
    table: the table.
    cell: one of its cells.
    seed: goes to `config.seed`.
    smoke: make it a run of seconds.
    data_dir: where the images lie on this machine, for `config.data.dir`.
  Returns:
    A locked config of its own.
  Raises:
    TableError: no such base, or an override that does not fit it; names the cell and the nearest field.
  """
  from experiments import configuration

  try:
    base = _base(table.path.parent, cell.base)
    here = [('seed', seed), ('data.dir', data_dir or base.data.dir)]
    config = configuration.override(base, [*cell.overrides.items(), *here])
    return configuration.smoke(config) if smoke else config
  except (ValueError, TypeError, LookupError) as error:
    raise TableError(f'{table.path.name}, cell {cell.labels}: {error}') from error
