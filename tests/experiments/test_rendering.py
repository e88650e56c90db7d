"""Numbers as they are printed, and what stands on the page."""

import io
import re
import xml.etree.ElementTree

import pytest
import rich.console

from experiments import table
from experiments.engine import lines, rendering, rows, tables
from experiments.engine.errors import TableError

CELLS = [
  ({'criterion': 'magnitude', 'sparsity': 0.0}, {'method': 'a'}),
  ({'criterion': 'magnitude', 'sparsity': 0.9}, {'method': 'a', 'sparsity': 0.9}),
  ({'criterion': 'x_1 & y|z', 'sparsity': 0.9}, {'method': 'b', 'sparsity': 0.9}),
  ({'criterion': 'bad', 'sparsity': 0.5}, {'behaviour': 'fail'}),
  ({'criterion': 'big', 'sparsity': 0.5}, {'method': 'c'}, {'run': False}),
]
PUBLISHED = """PUBLISHED = [
  Figure(0.97, source='Han 2015, table 1', confidence='checked').labelled(criterion='magnitude', sparsity=0.0),
  Figure(0.5, source='someone', confidence='recalled').labelled(criterion='magnitude', sparsity=0.9)]"""


@pytest.fixture
def folder(tmp_path, write_table, fake_unit):
  console = rich.console.Console(file=io.StringIO(), width=160)
  table.make_table(write_table(CELLS, more=PUBLISHED), unit=fake_unit, jobs=1, workdir=tmp_path, console=console)
  return tmp_path / 'tables' / 'fake'


def test_all_forms_say_the_same(folder):
  made = rows.read(folder / 'rows.jsonl')
  values = [row['result']['metrics']['test/accuracy'] for row in made[:3]]
  mean, std = sum(values) / 3, (sum((v - sum(values) / 3) ** 2 for v in values) / 2) ** 0.5
  cell = f'{100 * mean:.2f} ± {100 * std:.2f} (3)'
  markdown, latex, page = ((folder / name).read_text() for name in ('table.md', 'table.tex', 'index.html'))
  assert cell in markdown and cell in page and cell.replace('±', r'$\pm$') in latex
  for text in (markdown, latex, page):
    assert (
      '266,610' in text and 'not run' in text and 'failed' in text and 'ValueError: sparsity 1.5 is above 1' in text
    )
  assert '50.00 ‡' in markdown and '50.00 ‡' in page and r'50.00 $^\ddagger$' in latex
  assert 'Recalled from memory' in markdown and 'Recalled from memory' in page and 'Recalled from memory' in latex


def test_a_row_may_have_the_figures_of_a_layer_with_published_ones_in_brackets(tmp_path, write_table, fake_unit):
  cells = [
    ({'layer': name}, {'method': 'a'}, {'layer': path, 'beside': {'nonzeros': 31.0}, 'published': 0.03})
    for name, path in (('first', 'dense1/kernel'), ('last', 'dense2/kernel'))]
  more = "METRIC, COLUMNS, HIGHER_IS_BETTER = 'nonzeros', ('nonzeros', 'bits'), False"
  path = write_table(cells, more=more)
  console = rich.console.Console(file=io.StringIO(), width=160)
  table.make_table(path, unit=fake_unit, jobs=1, workdir=tmp_path, console=console)
  folder = tmp_path / 'tables' / 'fake'
  made = rows.read(folder / 'rows.jsonl')
  assert len({row['id'] for row in made}) == 3 and len(made) == 6  # three seeds, each trained once
  markdown = (folder / 'table.md').read_text()
  for row in made:
    (layer,) = [layer for layer in row['result']['layers'] if layer['path'] == row['layer']]
    assert f'{layer["nonzeros"]:,} [31]' in markdown
  assert 'In brackets: the published figure.' in markdown
  report = lines.Report(tables.load(path), [{**row, 'layer': 'fc3/kernel'} for row in made], {})
  with pytest.raises(TableError, match="no layer 'fc3/kernel'"):
    lines.lines(report)


def test_special_characters_are_escaped(folder):
  markdown, latex, page = ((folder / name).read_text() for name in ('table.md', 'table.tex', 'index.html'))
  assert r'x_1 & y\|z' in markdown
  assert r'x\_1 \& y|z' in latex and r'test accuracy (\%)' in latex
  assert 'x_1 &amp; y|z' in page and 'Some &amp; text' in page


def test_the_latex_table_has_as_many_cells_in_every_row(folder):
  latex = (folder / 'table.tex').read_text()
  columns = len(re.search(r'\\begin\{tabular\}\{([lr]+)\}', latex)[1])
  body = [line for line in latex.splitlines() if line.endswith(r'\\')]
  assert len(body) == 1 + len(CELLS)
  assert all(len(re.findall(r'(?<!\\)&', line)) == columns - 1 for line in body)


def test_the_markdown_table_has_as_many_cells_in_every_row(folder):
  body = [line for line in (folder / 'table.md').read_text().splitlines() if line.startswith('|')]
  assert len(body) == 2 + len(CELLS)
  assert len({len(re.findall(r'(?<!\\)\|', line)) for line in body}) == 1


def test_the_page_loads_nothing_and_its_plots_are_sound(folder):
  page = (folder / 'index.html').read_text()
  assert (
    not re.search(r'(src|href)="(?!#)', page)
    and '@import' not in page
    and 'url(http' not in page
    and '<script' not in page
  )
  plots = re.findall(r'<svg.*?</svg>', page, flags=re.S)
  captions = re.findall(r'<figcaption>([^<]*)', page)
  assert len(plots) == len(captions)
  assert {
    'Accuracy against bytes',
    'Accuracy against MACs',
    'Validation accuracy while training',
    'Sparsity by layer (%)',
    'Bits by layer',
  } <= set(captions)
  ids = [
    element.get('id')
    for plot in plots
    for element in xml.etree.ElementTree.fromstring(plot).iter()
    if element.get('id')
  ]
  assert len(ids) == len(set(ids))
  assert not any('#123456' in plot for plot in plots)


def test_rendering_is_deterministic(folder, tmp_path):
  report = rendering.Report(
    table=tables.load(str(tmp_path / 'fake.py')), rows=rows.read(folder / 'rows.jsonl'), bases={}
  )
  assert rendering.page(report) == rendering.page(report)


def test_a_metric_that_results_lack_names_those_they_have(folder, tmp_path):
  declared = tables.load(str(tmp_path / 'fake.py'))._replace(metric='test/loss')
  with pytest.raises(Exception, match=r"METRIC 'test/loss'.*validation/accuracy"):
    lines.lines(rendering.Report(table=declared, rows=rows.read(folder / 'rows.jsonl'), bases={}))


def test_a_smoke_table_compares_with_nothing_and_says_so(tmp_path, write_table, fake_unit):
  out = io.StringIO()
  table.make_table(
    write_table(CELLS[:2], more=PUBLISHED),
    unit=fake_unit,
    jobs=1,
    workdir=tmp_path,
    smoke=True,
    console=rich.console.Console(file=out, width=160),
  )
  page = (tmp_path / 'tables' / 'fake-smoke' / 'index.html').read_text()
  assert 'figures mean nothing' in page and 'figures mean nothing' in out.getvalue()
  assert 'class="verdict' not in page


@pytest.mark.parametrize(
  ('value', 'metric', 'text'),
  [
    (0.98765, 'test/accuracy', '98.77'),
    (1234567.0, 'bytes', '1,234,567'),
    (59.6, 'seconds', '1 min 00 s'),
    (3599.7, 'seconds', '1 h 00 min'),
    (0.000123456, 'test/loss', '0.0001235'),
    (None, 'macs', ''),
    (float('nan'), 'macs', ''),
  ],
)
def test_numbers(value, metric, text):
  assert lines.number(value, metric) == text


def test_curves_keep_the_last_of_repeated_steps_and_the_last_point(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(
    ''.join(f'{{"step": {step}, "split": "train", "loss": {step + run}}}\n' for run in (0, 0.5) for step in range(1000))
    + '{"step": 1000, "spl'
  )
  points = rows.curves(path, words=('loss', 'accuracy'))['train/loss']
  assert points[-1] == [999.0, 999.5] and len(points) <= 120
  assert all(y == x + 0.5 for x, y in points)
