"""The examples of README.md and WORKSPACE.md run as they are written."""
import os
import pathlib
import re
import subprocess
import sys

import pytest

import experiments
from lightjax import artifact

ROOT = pathlib.Path(__file__).parent.parent
INSTALLED = pathlib.Path(experiments.__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
  return re.findall(rf'```{language}\n(.*?)```', (ROOT / page).read_text(), flags=re.DOTALL)


def run(command: list[str], folder: pathlib.Path, **environment: str) -> str:
  paths = os.pathsep.join([str(folder), str(INSTALLED)])
  done = subprocess.run(
    command, cwd=folder, env={**os.environ, 'PYTHONPATH': paths, **environment}, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr + done.stdout
  return done.stdout


def test_the_example_of_the_readme_stores_a_sparse_integer_network(tmp_path):
  (example,) = blocks('README.md', 'python')
  (tmp_path / 'example.py').write_text(example)
  printed = run([sys.executable, 'example.py'], tmp_path)
  assert 'prune(magnitude)' in printed  # the table says which rule took which parameter
  stored = artifact.load(tmp_path / 'network.ljx')
  kernels = stored.encoded.parameters
  # The first and second kernel: the last dense layer is left alone by default.
  assert sum(int((each.codes == 0).sum()) for each in kernels.values()) >= round(0.8 * (16 * 64 + 64 * 32))


@pytest.fixture
def follow(tmp_path):
  """Runs, as a run of seconds, the one recipe that says something; returns what it prints."""
  for block in blocks('WORKSPACE.md', 'python'):
    if (named := re.match(r'# (my_\w+\.py)\n', block)) is not None:
      (tmp_path / named[1]).write_text(block)
    elif 'def cells' in block:
      (tmp_path / 'my_table.py').write_text(block)
  configs = INSTALLED / 'experiments' / 'configs'

  def follow(what):
    (command,) = (block for block in blocks('WORKSPACE.md', 'sh') if what in block)
    command = re.sub(r'(PYTHONPATH=\. )?python ', f'{sys.executable} ', command.strip())
    return run(['bash', '-c', command.replace('experiments/configs', str(configs)) + ' --smoke'], tmp_path)

  return follow


def test_the_recipes_of_a_criterion_and_a_table_run(follow, tmp_path):
  follow('my_criteria:squared_saliency')
  assert (tmp_path / 'runs' / 'mine' / 'result.json').exists()
  follow('my_table.py')
  page = (tmp_path / 'runs' / 'tables' / 'my_table-smoke' / 'table.md').read_text()
  assert 'my_criteria:squared_saliency' in page and 'magnitude' in page


@pytest.mark.parametrize('recipe,printed', [
  ('experiments.sensitivity', 'ratios.json'),
  ('my_importance:largest', 'speedup'),
  pytest.param('my_ranks:half', 'speedup', marks=pytest.mark.exhaustive),
  pytest.param('my_scales:three_quarters', 'stored/logit difference', marks=pytest.mark.exhaustive),
  pytest.param('my_binarizer:centred', 'stored/logit difference', marks=pytest.mark.exhaustive),
  ('my_loss:absolute', 'teacher/test/accuracy')])
def test_the_recipes_run_with_functions_of_ones_own(follow, recipe, printed):
  assert printed in follow(recipe)
