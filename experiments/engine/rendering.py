"""A table on the terminal, in Markdown, LaTeX (booktabs), and as one HTML page with plots."""

from __future__ import annotations

import hashlib
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import rich.box
import rich.table
import rich.text

from experiments.engine.errors import TableError
from experiments.engine.lines import (
  RECALLED,
  STALE,
  Line,
  Report,
  environment,
  footnotes,
  grid,
  lines,
  number,
  sources,
  title,
)
from experiments.engine.progress import duration
from experiments.engine.rows import write_text

TEMPLATES = pathlib.Path(__file__).parent.parent / 'templates'


def terminal(report: Report) -> rich.table.Table:
  """The table for a terminal.

  Args:
    report: what to show.
  Returns:
    A rich table.
  """
  made = lines(report)
  shown = grid(report, made)
  below = '\n'.join(footnotes(made))
  colours = {'better': 'green', 'worse': 'red', 'failed': 'red', 'not run': 'dim'}
  table = rich.table.Table(
    title=_heading(report),
    box=rich.box.SIMPLE_HEAD,
    title_justify='left',
    title_style='bold',
    caption=rich.text.Text(below) if below else None,
    caption_justify='left',
  )
  table.add_column('#', justify='right', style='dim')
  for heading, side in zip(shown.headings, shown.alignment, strict=True):
    table.add_column(heading, justify='left' if side == 'l' else 'right', overflow='fold')
  for line, row in zip(made, shown.body, strict=True):
    table.add_row(str(line.number), *(rich.text.Text(text, style=colours.get(text, '')) for text in row))
  return table


def _heading(report: Report) -> str:
  return report.table.title + (' (smoke run: its figures mean nothing)' if report.is_smoke else '')


def _escape_markdown(text: str) -> str:
  return text.replace('\\', '\\\\').replace('|', '\\|').replace('\n', ' ')


def _escape_latex(text: str) -> str:
  special = {
    '\\': r'\textbackslash{}',
    '&': r'\&',
    '%': r'\%',
    '$': r'\$',
    '#': r'\#',
    '_': r'\_',
    '{': r'\{',
    '}': r'\}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '±': r'$\pm$',
    '−': '$-$',
    STALE: r'$^\dagger$',
    RECALLED: r'$^\ddagger$',
    '→': r'$\to$',
    '×': r'$\times$',
    '≤': r'$\leq$',
    '≥': r'$\geq$',
    '\n': ' ',
  }
  return ''.join(special.get(character, character) for character in text)


def _environment() -> Any:
  try:
    import jinja2
  except ImportError as error:
    raise TableError(
      'the report needs jinja2 and matplotlib: pip install "lightjax[report]" (rows.jsonl is written).'
    ) from error
  made = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=lambda name: name is not None and name.endswith('.html.jinja'),
  )
  made.filters.update(markdown=_escape_markdown, latex=_escape_latex, number=number, title_of=title, duration=duration)
  return made


def _paragraphs(text: str) -> list[str]:
  return [' '.join(part.split()) for part in re.split(r'\n\s*\n', text) if part.strip()]


def _context(report: Report, made: Sequence[Line]) -> dict[str, Any]:
  seconds = [row['result']['metrics'].get('seconds') for row in report.rows if row['status'] == 'done']
  return {
    'report': report,
    'table': report.table,
    'heading': _heading(report),
    'paragraphs': _paragraphs(report.table.text),
    'lines': made,
    'grid': grid(report, made),
    'footnotes': footnotes(made),
    'sources': sources(made),
    'environment': environment(report),
    'metric': report.table.metric,
    'total_seconds': math.fsum(value for value in seconds if value is not None),
  }


def markdown(report: Report) -> str:
  """The table in Markdown, with sources, hardware and versions.

  Args:
    report: what to render.
  Returns:
    The file's text.
  Raises:
    TableError: jinja2 is not installed.
  """
  return str(_environment().get_template('table.md.jinja').render(_context(report, lines(report))))


def latex(report: Report) -> str:
  """The table in LaTeX, for booktabs.

  Args:
    report: what to render.
  Returns:
    The file's text: a table environment.
  Raises:
    TableError: jinja2 is not installed.
  """
  return str(_environment().get_template('table.tex.jinja').render(_context(report, lines(report))))


def page(report: Report, *, digest: str = '') -> str:
  """One self-contained HTML page: table, plots, seeds, configs, versions. It loads nothing from anywhere.

  Args:
    report: what to render.
    digest: written into the page's head, so that an unchanged page need not be rendered again.
  Returns:
    The file's text.
  Raises:
    TableError: jinja2 or matplotlib is not installed.
  """
  jinja = _environment()
  from experiments.engine import plots

  made = lines(report)
  return str(
    jinja.get_template('page.html.jinja').render(
      **_context(report, made), digest=digest, plots=plots.draw(report, made), legend=plots.legend(made)
    )
  )


def _digest(report: Report, rows_text: str) -> str:
  """What the page depends on: rows, declaration, base configs, and the code that renders them."""
  parts = [rows_text, repr(report.table._replace(path=pathlib.Path())), repr(report.bases), str(report.is_smoke)]
  parts += [
    path.read_text(encoding='utf-8')
    for path in sorted([*TEMPLATES.iterdir(), *pathlib.Path(__file__).parent.glob('*.py')])
    if path.is_file()
  ]
  return hashlib.sha256('\x00'.join(parts).encode()).hexdigest()[:16]


def write(report: Report, folder: pathlib.Path, *, rows_text: str) -> list[pathlib.Path]:
  """Renders into a folder, unless what is there is the same.

  Args:
    report: what to render.
    folder: gets table.md, table.tex and index.html beside rows.jsonl.
    rows_text: content of rows.jsonl.
  Returns:
    The files of the table; all exist.
  Raises:
    TableError: jinja2 or matplotlib is not installed.
    OSError: the folder cannot be written.
  """
  paths = [folder / name for name in ('rows.jsonl', 'table.md', 'table.tex', 'index.html')]
  digest = _digest(report, rows_text)
  if all(path.is_file() for path in paths):
    with paths[-1].open(encoding='utf-8') as file:
      if f'content="{digest}"' in file.read(1000):
        return paths
  write_text(paths[1], markdown(report))
  write_text(paths[2], latex(report))
  write_text(paths[3], page(report, digest=digest))
  return paths
