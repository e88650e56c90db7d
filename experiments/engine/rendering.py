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
from experiments.engine.rows import dump, write_text

TEMPLATES = pathlib.Path(__file__).parent.parent / 'templates'


def terminal(report: Report, *, width: int) -> rich.table.Table:
  """The table for a terminal: columns that it has no room for are left out, from the right; numbers are never broken.

  Args:
    report: what to show.
    width: of the terminal, in characters.
  Returns:
    A rich table.
  """
  made = lines(report)
  shown = grid(report, made)
  widths = [3 + max(len(text) for text in column) for column in zip(shown.headings, *shown.body, strict=True)]
  labels = len({key for line in made for key in line.labels})
  # Labels may wrap, to half of their width.
  needed = [max(12, size // 2) if index < labels else size for index, size in enumerate(widths)]
  kept = len(widths)
  while kept > labels + 1 and sum(needed[:kept]) + 6 > width:
    kept -= 1
  below = footnotes(made)
  if kept < len(widths):
    below.append(f'No room for {", ".join(shown.headings[kept:])}: see the files.')
  colours = {'better': 'green', 'worse': 'red', 'failed': 'red', 'not run': 'dim'}
  caption = rich.text.Text('\n'.join(below)) if below else None
  table = rich.table.Table(
    title=_heading(report),
    box=rich.box.SIMPLE_HEAD,
    title_justify='left',
    title_style='bold',
    caption=caption,
    caption_justify='left',
  )
  table.add_column('#', justify='right', style='dim')
  for index, (heading, side) in enumerate(zip(shown.headings[:kept], shown.alignment, strict=False)):
    table.add_column(heading, justify='left' if side == 'l' else 'right', no_wrap=index >= labels)
  for line, row in zip(made, shown.body, strict=True):
    table.add_row(str(line.number), *(rich.text.Text(text, style=colours.get(text, '')) for text in row[:kept]))
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


def _digest(report: Report) -> str:
  """What the page depends on: rows, declaration, base configs, and the code that renders them."""
  code = sorted(path for path in (*TEMPLATES.iterdir(), *pathlib.Path(__file__).parent.glob('*.py')) if path.is_file())
  parts = [
    dump(report.rows),
    repr(report.table._replace(path=pathlib.Path())),
    repr(report.bases),
    str(report.is_smoke),
    *(path.read_text(encoding='utf-8') for path in code),
  ]
  return hashlib.sha256('\x00'.join(parts).encode()).hexdigest()[:16]


def write(report: Report, folder: pathlib.Path) -> list[pathlib.Path]:
  """Renders into a folder, unless what is there is the same.

  Args:
    report: what to render.
    folder: gets table.md, table.tex and index.html.
  Returns:
    The three files.
  Raises:
    TableError: jinja2 or matplotlib is not installed.
    OSError: the folder cannot be written.
  """
  paths = [folder / name for name in ('table.md', 'table.tex', 'index.html')]
  digest = _digest(report)
  if all(path.is_file() for path in paths):
    with paths[-1].open(encoding='utf-8') as file:
      if f'content="{digest}"' in file.read(1000):
        return paths
  for path, text in zip(paths, (markdown(report), latex(report), page(report, digest=digest)), strict=True):
    write_text(path, text)
  return paths
