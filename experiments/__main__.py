"""Lists what there is: every command, table and config with one line, taken from their docstrings."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import rich.console
import rich.table

FOLDER = pathlib.Path(__file__).parent


def first_line(path: pathlib.Path) -> str:
  """The first line of a module's docstring, without importing it.

  Args:
    path: a Python file.
  Returns:
    The line, '' if there is none.
  """
  docstring = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
  return docstring.splitlines()[0] if docstring else ''


def commands(folder: pathlib.Path = FOLDER) -> Iterator[tuple[str, str]]:
  """Every module that can be run as a command.

  Args:
    folder: of the package.
  Yields:
    ('python -m experiments.NAME', its line), sorted.
  """
  for path in sorted([*folder.glob('*.py'), *folder.glob('benchmarks/*.py')]):
    if not path.name.startswith('_') and "if __name__ == '__main__'" in path.read_text(encoding='utf-8'):
      yield f'python -m {".".join(path.relative_to(folder.parent).with_suffix("").parts)}', first_line(path)


def main() -> None:
  """Prints the three lists."""
  console = rich.console.Console()
  lists = {'commands (each has --help)': list(commands())}
  for kind in ('tables', 'configs'):
    lists[kind] = [
      (path.stem, first_line(path)) for path in sorted((FOLDER / kind).glob('*.py')) if not path.name.startswith('_')
    ]
  for title, entries in lists.items():
    if not entries:
      continue
    grid = rich.table.Table(
      title=title, title_justify='left', title_style='bold', box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    grid.add_column(no_wrap=True, style='cyan')
    grid.add_column()
    for name, line in entries:
      grid.add_row(name, line)
    console.print(grid, highlight=False)
    console.print()


if __name__ == '__main__':
  main()
