"""What a teacher costs: a student's step alone, distilled, with logits computed before, and a forward pass.

The four take turns, so that whatever else the machine does falls on all of them; figures are medians of wall time.
`bound` is the teacher's forward pass plus 1.1 student steps, with precomputed logits 1.05 student steps; `ratio` is the
median over the rounds of a step's time over the bound of the same round: 1 or less keeps it.

Example:
  python -m experiments.benchmarks.distillation_overhead --rounds=30
"""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from lightjax import models
from lightjax.core.transform import chain
from lightjax.distill import learners, losses, taps
from lightjax.distill.terms import Term
from lightjax.train import devices
from lightjax.train.step import Distillation

_STUDENT = flags.DEFINE_string('student', 'resnet20', 'Network, see lightjax.models.')
_TEACHER = flags.DEFINE_string('teacher', 'resnet56', 'Network, see lightjax.models.')
_SIZE = flags.DEFINE_integer('size', 32, 'Height and width of the images, pixels.')
_BATCH = flags.DEFINE_integer('batch_size', 64, 'Images a step.')
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'Rounds in which each is timed once.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


def taken(shape: tuple[int, int, int, int]) -> dict[str, Callable[[], None]]:
  """Each thing that is timed, ready to run and to wait for."""
  student, teacher = models.create(_STUDENT.value), models.create(_TEACHER.value)
  images = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
  variables = jax.jit(lambda key: teacher.init(key, images[:1], train=False))(jax.random.key(0, impl='rbg'))
  forward = jax.jit(teacher.apply)
  term = Term('logits', losses.temperature, {'temperature': 4.0}, 0.9, learners.none(), (taps.OUTPUT,), (taps.OUTPUT,))

  def taught(numbers: Any, images: Any, index: Any, names: Any) -> dict[str, Any]:
    return {taps.OUTPUT: teacher.apply(numbers, images)}

  online = Distillation(taught, (term,), 0.1)
  stored = Distillation(lambda logits, images, index, names: {taps.OUTPUT: logits[index]}, (term,), 0.1)
  return {
    'teacher forward': _waiting(forward, variables, images),
    'student step': steps.training_step(student, chain(), shape),
    'distilled step': steps.training_step(student, chain(), shape, distillation=online, teacher=variables),
    'distilled step, precomputed': steps.training_step(
      student, chain(), shape, distillation=stored, teacher=forward(variables, images)),
  }


def _waiting(function: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
  def run() -> None:
    jax.block_until_ready(function(*arguments))

  return run


def main() -> int:
  """Run the command."""
  devices.configure(cpu_devices=1)
  runs = taken((_BATCH.value, _SIZE.value, _SIZE.value, 3))
  for run in runs.values():
    for _ in range(3):
      run()
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(_ROUNDS.value):
    for name, run in runs.items():
      began = time.perf_counter()
      run()
      seconds[name].append(time.perf_counter() - began)
  rounds = list(zip(seconds['teacher forward'], seconds['student step'], strict=True))
  bounds = {'distilled step': [forward + 1.1 * step for forward, step in rounds],
            'distilled step, precomputed': [1.05 * step for _, step in rounds]}
  rows: list[dict[str, Any]] = []
  print(f'{_TEACHER.value} teaches {_STUDENT.value}, batch {_BATCH.value}, {_ROUNDS.value} rounds')
  for name, each in seconds.items():
    row: dict[str, Any] = {'what': name, 'ms': 1e3 * statistics.median(each)}
    if name in bounds:
      row |= {'bound ms': 1e3 * statistics.median(bounds[name]),
              'ratio': statistics.median(one / bound for one, bound in zip(each, bounds[name], strict=True))}
    rows.append(row)
    more = f'  bound {row["bound ms"]:8.1f} ms, {row["ratio"]:.2f} of it' if name in bounds else ''
    print(f'{name:>28}  {row["ms"]:8.1f} ms{more}')
  if _OUTPUT.value:
    steps.write(_OUTPUT.value, rows, teacher=_TEACHER.value, student=_STUDENT.value)
  return 0


if __name__ == '__main__':
  commands.launch(main)
