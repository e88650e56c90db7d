"""Every benchmark runs as a command and prints its ratios or speeds."""
import re
import subprocess
import sys

import pytest

COMMANDS = {
  'transform_overhead': (
    ['--model=resnet8', '--size=8', '--batch_size=4', '--rounds=1', '--only=cubic pruning(, moving)?$'],
    r'cubic pruning +[\d.]+ ms  \d+\.\d\d x plain, \d+\.\d\d in a step that moves'),
  'compile_time': (['--only=lenet300', '--batch=2'], r'lenet300 +28 +[\d.]+ s +[\d.]+ s'),
  'packed_matmul': (['--sizes=64', '--rounds=4'], r'n = +64  float32 .* x as fast; with packing .* x'),
  'integer_inference': (['--networks=resnet8:8', '--batch_size=2', '--rounds=4'],
                        r'integers, int8 products +[\d.]+ ms +[\d.]+ x float32'),
  'surgery_time': (['--model=resnet8', '--size=8'], r'surgery +[\d.]+ s'),
  'distillation_overhead': (
    ['--student=resnet8', '--teacher=resnet8', '--size=8', '--batch_size=4', '--rounds=1'],
    r'distilled step, precomputed +[\d.]+ ms  bound +[\d.]+ ms, \d+\.\d\d of it'),
  'loop_speed': (['--config.epochs=60'], r'lenet300, batch 128: [\d,]+ examples/s'),
}


@pytest.mark.parametrize('name', COMMANDS)
def test_benchmark_prints_its_figures(name, tmp_path):
  flags, printed = COMMANDS[name]
  command = [sys.executable, '-m', f'experiments.benchmarks.{name}', *flags]
  done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert re.search(printed, done.stdout)
