"""The compiler of this environment is sound, and a run refuses one that is not."""
import configparser
import pathlib

import jaxlib
import pytest

from lightjax.train import health

SETTINGS = pathlib.Path(__file__).parents[2] / 'setup.cfg'


def test_this_compiler_is_sound():
  assert health.wrong_rows() == 0
  health.check_compiler()


def test_a_wrong_compiler_is_refused_with_its_version_and_the_remedies(monkeypatch):
  monkeypatch.setattr(health, 'wrong_rows', lambda: 7232)
  with pytest.raises(health.CompilerError, match='7232') as caught:
    health.check_compiler()
  assert jaxlib.__version__ in str(caught.value)
  assert 'jaxlib!=0.10.2' in str(caught.value) and 'XLA_FLAGS=' in str(caught.value)


def test_the_requirements_exclude_the_build_that_is_known_to_be_wrong():
  settings = configparser.ConfigParser()
  settings.read(SETTINGS)
  requirements = settings['options']['install_requires'].splitlines()
  for name in ('jax ', 'jaxlib '):
    (line,) = [line for line in requirements if line.startswith(name)]
    assert '!=0.10.2' in line
