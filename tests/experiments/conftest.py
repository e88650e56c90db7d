"""A folder with a table of fake units, the module that runs them, and the config of a real run of a second."""

import importlib
import pathlib

import pytest

TINY = pathlib.Path(__file__).with_name('tiny_config.py')


@pytest.fixture
def fake_unit(monkeypatch):
  """The fake unit module, importable by name here and in workers."""
  monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))
  return importlib.import_module('fake_unit')


@pytest.fixture
def write_table(tmp_path, fake_unit):
  """Writes a table file beside its base config; returns its path."""
  (tmp_path / 'fake_base.py').write_text(fake_unit.CONFIG)

  def write(cells, *, seeds=(0, 1, 2), more='', name='fake'):
    lines = ''.join(f'  yield {", ".join(map(repr, cell))}\n' for cell in cells)
    path = tmp_path / f'{name}.py'
    path.write_text(
      f'"""A title.\n\nSome & text: 100 %.\n"""\nfrom experiments.engine.published import Figure, published\n'
      f"BASE, SEEDS, METRIC = 'fake_base.py', {seeds!r}, 'test/accuracy'\n{more}\ndef cells():\n{lines}"
    )
    return str(path)

  return write


@pytest.fixture
def tiny():
  """Makes the config of `tiny_config.py` with some fields changed: a run of a second."""
  from experiments import configuration

  def make(**changes):
    fields = [(field.replace('__', '.'), value) for field, value in changes.items()]
    return configuration.override(configuration.load(str(TINY)), fields)

  return make
