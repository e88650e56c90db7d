"""The repository as a whole: what its files may hold, how long they may be, and that the README counts right."""
import fnmatch
import os
import pathlib
import re

import pytest

from lightjax import measure, models

ROOT = pathlib.Path(__file__).parent.parent
# Data and what code writes: nobody reads it line by line.
GENERATED = ('experiments/results/*', 'experiments/templates/*', 'lightjax/data/bundled/*', 'tests/golden/*', '*.csv')
# A home or work folder of some machine at the start of a path.
PRIVATE_PATH = re.compile(r'(?<![\w.])/(home|Users)/\w')


def repository():
  """Every file but those that .gitignore names, by its path from the root."""
  ignored = ['.git', *(line.strip('/') for line in (ROOT / '.gitignore').read_text().split())]
  found = {}
  for folder, folders, files in os.walk(ROOT):
    folders[:] = [name for name in folders if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)]
    found |= {(pathlib.Path(folder) / name).relative_to(ROOT).as_posix(): pathlib.Path(folder) / name for name in files}
  return found


def texts():
  """The files that people write and read, with their text."""
  for name, path in repository().items():
    content = path.read_bytes()
    if not any(fnmatch.fnmatch(name, pattern) for pattern in GENERATED) and b'\0' not in content:
      yield name, content.decode()


def test_the_repository_is_found():
  names = set(repository())
  assert {'README.md', 'setup.cfg', 'launch/test', 'lightjax/__init__.py', 'tests/test_project.py'} <= names
  assert not any(name.startswith(('.git/', '.venv/')) or '__pycache__' in name for name in names)
  assert 'lightjax/core/transform.py' in dict(texts())


def test_no_file_mentions_a_private_path():
  found = [f'{name}:{number}: {line.strip()}' for name, text in texts()
           for number, line in enumerate(text.splitlines(), 1) if PRIVATE_PATH.search(line)]
  assert not found, '\n'.join(found)


@pytest.mark.parametrize('line, is_private', [
  ('cd /ho' + 'me/someone', True), ("open('/Us" + "ers/someone/data.npz')", True),
  ('launch/quickstart --workdir=/somewhere', False), ('stage1/work/kernel', False), ('https://host/shared/page', False),
])
def test_private_paths_are_told_from_others(line, is_private):
  assert bool(PRIVATE_PATH.search(line)) == is_private


def test_lines_have_at_most_120_characters():
  # The row of a table in Markdown cannot be wrapped.
  found = [f'{name}:{number}: {len(line)} characters' for name, text in texts()
           for number, line in enumerate(text.splitlines(), 1)
           if len(line) > 120 and not (name.endswith('.md') and line.startswith('|'))]
  assert not found, '\n'.join(found)


def test_no_file_is_above_ten_megabytes():
  assert [name for name, path in repository().items() if path.stat().st_size > 10 * 2**20] == []


def test_library_files_have_at_most_420_lines():
  lengths = {name: text.count('\n') for name, text in texts() if re.fullmatch(r'lightjax/.*\.py', name)}
  assert len(lengths) > 50
  assert {name: length for name, length in lengths.items() if length > 420} == {}


def test_no_module_is_named_after_nothing():
  vague = re.compile(r'(.*/)?_?(utils?|helpers?|common|misc)(\.py|/.*)')
  assert [name for name in repository() if vague.fullmatch(name)] == []


def counts(page):
  """The rows of the table under the heading 'Counts': network, size of one example, parameters, MACs.

  | `resnet20` | 32x32x3 | 272,474 | 40,813,184 |
  """
  section = re.search(r'^#+ Counts\n(.*?)(?=^#|\Z)', page, re.MULTILINE | re.DOTALL)
  rows = [] if section is None else re.findall(
    r'^\| *`(\w+)` *\| *(\d+(?:x\d+)*) *\| *([\d,]+) *\| *([\d,]+) *\|', section.group(1), re.MULTILINE)
  lines = [] if section is None else re.findall(r'^\|.*\d.*\|', section.group(1), re.MULTILINE)
  assert len(rows) == len(lines), f'a row of Counts is none of network, size, params, MACs: {lines}'
  return [(name, tuple(map(int, size.split('x'))), *(int(figure.replace(',', '')) for figure in figures))
          for name, size, *figures in rows]


def measured(name, shape):
  found = measure.count(models.create(name), shape)
  return name, shape, found.params, found.macs


def test_the_counts_of_the_readme_are_those_of_measure():
  for row in counts((ROOT / 'README.md').read_text()):
    assert row == measured(*row[:2])


def test_a_table_of_counts_is_read_row_by_row():
  page = ('# Counts\n\n| network | example | params | MACs |\n|---|---|---:|---:|\n'
          '| `lenet300` | 28x28x1 | 266,610 | 266,200 |\n\n# Next\n\n| 1 | 2 |\n')
  assert counts(page) == [('lenet300', (28, 28, 1), 266_610, 266_200)]
  assert counts(page) == [measured('lenet300', (28, 28, 1))]
  assert counts('# Other\n') == []
  with pytest.raises(AssertionError, match='a row of Counts is none of'):
    counts(page.replace('28x28x1', 'images'))
