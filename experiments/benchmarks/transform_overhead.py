"""What a transform costs: training step of ResNet-20 plain, pruned, and quantized, side by side in one run.

The steps take turns, so that whatever else the machine does falls on all of them; figures are medians of wall time,
and the ratios are to the plain step of the same round.

Example:
  python -m experiments.benchmarks.transform_overhead --rounds=30
"""
from __future__ import annotations

import statistics
import time

import jax
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from lightjax import models, prune, quantize
from lightjax.core import schedules
from lightjax.core.transform import Transform, chain, where
from lightjax.train import devices

_MODEL = flags.DEFINE_string('model', 'resnet20', 'Network, see lightjax.models.')
_SIZE = flags.DEFINE_integer('size', 32, 'Height and width of the images, pixels.')
_BATCH = flags.DEFINE_integer('batch_size', 64, 'Images a step.')
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'Rounds in which each step is timed once.')
_DEVICES = flags.DEFINE_integer('devices', 1, 'Virtual CPU devices that share a batch; 0: one a core.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


def methods() -> dict[str, Transform]:
  """What is compared: the mask moves in every twentieth step, so that its cost is in the figures."""
  cubic = schedules.cubic(0.0, 0.9, begin=0, end=100_000)
  pruning = prune.prune(
    prune.criteria.magnitude, prune.patterns.unstructured, prune.budgets.global_, cubic, every=20)
  int8 = where((('.*', chain(quantize.weights(bits=8), quantize.activations(bits=8))),), skip=('not_kernel',))
  return {
    'plain': chain(),
    'cubic pruning': where((('.*', pruning),), skip=('not_kernel',)),
    'W8A8 QAT': int8,
    'cubic pruning + W8A8 QAT': chain(where((('.*', pruning),), skip=('not_kernel',)), int8),
  }


def main() -> int:
  """Run the command."""
  devices.configure(cpu_devices=_DEVICES.value or None)
  model, shape = models.create(_MODEL.value), (_BATCH.value, _SIZE.value, _SIZE.value, 3)
  over = _DEVICES.value or len(jax.devices())
  taken = {name: steps.training_step(model, method, shape, device_count=over) for name, method in methods().items()}
  for take in taken.values():
    for _ in range(3):
      take()
  seconds: dict[str, list[float]] = {name: [] for name in taken}
  for _ in range(_ROUNDS.value):
    for name, take in taken.items():
      began = time.perf_counter()
      take()
      seconds[name].append(time.perf_counter() - began)
  plain = seconds['plain']
  rows = []
  print(f'{_MODEL.value}, batch {_BATCH.value}, {_SIZE.value}x{_SIZE.value}, {_ROUNDS.value} rounds')
  for name, each in seconds.items():
    ratio = statistics.median(one / base for one, base in zip(each, plain, strict=True))
    rows.append({'method': name, 'ms': 1e3 * statistics.median(each), 'ratio': ratio})
    print(f'{name:>26}  {rows[-1]["ms"]:8.1f} ms  {ratio:.2f} x plain')
  if _OUTPUT.value:
    steps.write(_OUTPUT.value, rows, model=_MODEL.value)
  return 0


if __name__ == '__main__':
  commands.launch(main)
