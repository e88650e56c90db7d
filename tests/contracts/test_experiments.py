"""The examples in docstrings of the experiments run, as those of the library do."""
import doctest
import importlib
import pathlib

import pytest

import experiments

FOLDER = pathlib.Path(experiments.__file__).parent
# Programs define their flags when they are imported, two of them the same: only what has an example is imported.
MODULES = sorted(
  'experiments.' + '.'.join(path.relative_to(FOLDER).with_suffix('').parts)
  for path in FOLDER.rglob('*.py') if '>>> ' in path.read_text())


@pytest.mark.parametrize('name', MODULES)
def test_examples_in_docstrings_run(name):
  failures, runner = [], doctest.DocTestRunner(verbose=False)
  for example in doctest.DocTestFinder().find(importlib.import_module(name)):
    runner.run(example, out=failures.append)
  assert not failures, ''.join(failures)
  assert runner.summarize(verbose=False).attempted > 0


def test_examples_are_found():
  assert {'experiments.engine.statistics', 'experiments.engine.published'} <= set(MODULES)
