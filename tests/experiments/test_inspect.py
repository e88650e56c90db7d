"""`experiments.inspect FILE`: every byte of a file, by layer and part."""
import os
import subprocess
import sys

import numpy as np
import pytest

from lightjax import artifact


@pytest.fixture
def path(tmp_path):
  rng = np.random.default_rng(0)
  book = np.array([-1.0, 0.5, 2.0], np.float32)
  kernel = np.where(rng.random((60, 50)) < 0.1, book[rng.geometric(0.6, (60, 50)) % 3], np.float32(0))
  artifact.save(tmp_path / 'network.ljx', network={'name': 'one'}, variables={
    'params': {'fc': {'kernel': kernel, 'bias': np.arange(50, dtype=np.float32)}},
    'batch_stats': {'norm': {'mean': np.ones(4, np.float32)}}})
  return tmp_path / 'network.ljx'


def inspect(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.inspect', *map(str, arguments)], capture_output=True, text=True, check=False)


def test_layers_parts_and_header_add_up_to_the_file(path):
  done = inspect(path)
  assert done.returncode == 0, done.stderr
  rows = {line.split()[0]: line.replace(',', '').split() for line in done.stdout.splitlines() if line.strip()}
  sizes = artifact.load(path).sizes
  assert rows['file'][-2] == str(os.path.getsize(path)) == str(sizes.total)
  assert sum(int(rows[name][-2]) for name in ('fc', 'batch_stats/norm')) + int(rows['header'][-1]) == sizes.total
  positions, values, codebooks, scales, rest = map(int, rows['fc'][3:8])
  assert rest == 4 * 50 and codebooks == 1 + 4 * 3 and scales == 0 and positions > 100 and 20 < values < 100
  kernel, bias = (artifact.load(path).variables['params']['fc'][name] for name in ('kernel', 'bias'))
  assert rows['fc'][1:3] == ['3050', f'{(np.count_nonzero(kernel) + np.count_nonzero(bias)) / 3050:.1%}']


@pytest.mark.parametrize('arguments, code, message', [
  (['gone.ljx'], 1, 'No such file'), (['a', 'b'], 2, "unexpected argument 'b'"),
  (['a', '--model=lenet5'], 2, 'a network or a file'), ([], 2, 'or a stored file')])
def test_a_wrong_command_ends_in_one_line(arguments, code, message):
  done = inspect(*arguments)
  assert done.returncode == code and message in done.stderr and done.stderr.count('\n') == 1
