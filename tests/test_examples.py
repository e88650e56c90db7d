"""The examples of README.md and WORKSPACE.md run as they are written."""
import os
import pathlib
import re
import subprocess
import sys

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


def test_the_recipe_for_a_criterion_ends_in_a_table(tmp_path):
  criterion, table, channel_importance, _, scale, _, _, stage = blocks('WORKSPACE.md', 'python')
  (tmp_path / 'my_criteria.py').write_text(criterion)
  (tmp_path / 'my_table.py').write_text(table)
  (tmp_path / 'my_stage.py').write_text(stage)
  (tmp_path / 'my_importance.py').write_text(channel_importance)
  (tmp_path / 'my_scales.py').write_text(scale)
  one_run, whole_table, scan, removal, quantized, _, _ = blocks('WORKSPACE.md', 'sh')
  config = INSTALLED / 'experiments' / 'configs' / 'lenet300.py'
  command = one_run.replace('experiments/configs/lenet300.py', str(config))
  command = command.replace('PYTHONPATH=. python', sys.executable)
  run(['bash', '-c', f'{command.strip()} --smoke'], tmp_path)
  assert (tmp_path / 'runs' / 'mine' / 'result.json').exists()
  run(['bash', '-c', whole_table.replace('PYTHONPATH=. python', sys.executable).strip() + ' --smoke'], tmp_path)
  page = (tmp_path / 'runs' / 'tables' / 'my_table-smoke' / 'table.md').read_text()
  assert 'my_criteria:squared_saliency' in page and 'magnitude' in page
  scan = scan.replace('experiments/configs/lenet300.py', str(config)).replace('python', sys.executable, 1)
  assert 'ratios.json' in run(['bash', '-c', f'{scan.strip()} --smoke'], tmp_path)
  removal = removal.replace('experiments/configs', str(config.parent)).replace('PYTHONPATH=. python', sys.executable)
  assert 'speedup' in run(['bash', '-c', f'{removal.strip()} --smoke'], tmp_path)
  quantized = quantized.replace('experiments/configs', str(config.parent)).replace('runs/mine', 'runs/quantized')
  quantized = quantized.replace('PYTHONPATH=. python', sys.executable)
  assert 'stored/logit difference' in run(['bash', '-c', f'{quantized.strip()} --smoke'], tmp_path)
