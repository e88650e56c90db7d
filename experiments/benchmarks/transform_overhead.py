"""What a transform costs: training step of ResNet-20 plain, pruned, sparse, and quantized, side by side in one run.

The steps take turns, so that whatever else the machine does falls on all of them; figures are medians of wall time,
and the ratios are to the plain step of the same round. A method whose mask moves every so often is timed twice, with
steps that move it and steps that do not; its ratio is that of a step with its share of a move.

Example:
  python -m experiments.benchmarks.transform_overhead --rounds=30
"""
from __future__ import annotations

import re
import statistics
import time
from typing import Any

import jax
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from lightjax import models, prune, quantize
from lightjax.core import schedules
from lightjax.core.transform import Transform, chain, where
from lightjax.train import devices

_MODEL = flags.DEFINE_string('model', 'resnet20', 'Network, see lightjax.models.')
_ONLY = flags.DEFINE_string('only', '.*', 'Regular expression: only methods whose name it matches, and the plain step.')
_SIZE = flags.DEFINE_integer('size', 32, 'Height and width of the images, pixels.')
_BATCH = flags.DEFINE_integer('batch_size', 64, 'Images a step.')
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'Rounds in which each step is timed once.')
_DEVICES = flags.DEFINE_integer('devices', 1, 'Virtual CPU devices that share a batch; 0: one a core.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


EVERY = {'cubic pruning': 20, 'RigL': 100}  # steps between two moves of the mask; RigL's is the paper's
LAST = 100_000


def methods() -> dict[str, Transform]:
  """What is compared; '..., moving' moves its mask in every step."""

  def cubic(every: int) -> Transform:
    schedule = schedules.cubic(0.0, 0.9, begin=0, end=LAST)
    return everywhere(prune.prune(
      prune.criteria.magnitude, prune.patterns.unstructured, prune.budgets.global_, schedule, every=every))

  def rigl(every: int) -> Transform:
    return everywhere(prune.prune(
      prune.criteria.magnitude, prune.patterns.unstructured, prune.budgets.erk,
      schedules.periodic(0.9, begin=0, end=LAST), every=every, first=prune.criteria.random,
      growth=prune.Growth(prune.criteria.gradient_magnitude, 0.3, LAST)))

  int8 = everywhere(chain(quantize.weights(bits=8), quantize.activations(bits=8)))
  # Statistics frozen or not, the step is the same program.
  folded = everywhere(chain(quantize.folded(quantize.weights(bits=8), freeze=LAST), quantize.activations(bits=8)))
  return {
    'plain': chain(),
    'cubic pruning': cubic(LAST), 'cubic pruning, moving': cubic(1),
    'RigL': rigl(LAST), 'RigL, moving': rigl(1),
    'W8A8 QAT': int8, 'W8A8 QAT, BatchNorm folded': folded,
    'W4A8 QAT': everywhere(chain(quantize.weights(bits=4), quantize.activations(bits=8))),
    'W4A4 QAT, LSQ': everywhere(chain(
      quantize.weights(bits=4, scale=quantize.scales.lsq), quantize.activations(bits=4, scale=quantize.scales.lsq))),
    'cubic pruning + W8A8 QAT': chain(cubic(EVERY['cubic pruning']), int8),
  }


def everywhere(method: Transform) -> Transform:
  """The method on every kernel."""
  return where((('.*', method),), skip=('not_kernel',))


def main() -> int:
  """Run the command."""
  devices.configure(cpu_devices=_DEVICES.value or None)
  model, shape = models.create(_MODEL.value), (_BATCH.value, _SIZE.value, _SIZE.value, 3)
  over = _DEVICES.value or len(jax.devices())
  taken = {name: steps.training_step(model, method, shape, device_count=over) for name, method in methods().items()
           if name == 'plain' or re.search(_ONLY.value, name)}
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
  rows: list[dict[str, Any]] = []
  print(f'{_MODEL.value}, batch {_BATCH.value}, {_SIZE.value}x{_SIZE.value}, {_ROUNDS.value} rounds')
  for name, each in seconds.items():
    if name.endswith(', moving'):
      continue
    ratios, milliseconds = _medians(each, plain)
    row = {'method': name, 'ms': milliseconds, 'ratio': ratios}
    if name in EVERY:
      moving_ratio, moving = _medians(seconds[f'{name}, moving'], plain)
      share = 1 / EVERY[name]
      row |= {
        'ms': (1 - share) * milliseconds + share * moving, 'ratio': (1 - share) * ratios + share * moving_ratio,
        'every': EVERY[name], 'moving ratio': moving_ratio}
    rows.append(row)
    more = f', {row["moving ratio"]:.2f} in a step that moves the mask, every {row["every"]}' if name in EVERY else ''
    print(f'{name:>26}  {row["ms"]:8.1f} ms  {row["ratio"]:.2f} x plain{more}')
  if _OUTPUT.value:
    steps.write(_OUTPUT.value, rows, model=_MODEL.value)
  return 0


def _medians(seconds: list[float], plain: list[float]) -> tuple[float, float]:
  """(ratio to the plain step of the same round, milliseconds)."""
  ratio = statistics.median(one / base for one, base in zip(seconds, plain, strict=True))
  return ratio, 1e3 * statistics.median(seconds)


if __name__ == '__main__':
  commands.launch(main)
