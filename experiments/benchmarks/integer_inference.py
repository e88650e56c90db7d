"""Inference in integers against float32's, memory and time, side by side in one run.

  float32          the network itself, BatchNorm as it is
  float32, folded  its program, BatchNorm folded into the layers
  integers         the same in int8, with int32 sums: of int8 products by the compiler, or of float32 products, as many
                   as are exact; on CPU, whose int8 convolutions are plain loops, the second is the library's choice

The calls take turns; figures are medians of wall time, a ratio is that to float32. Weights are freshly drawn: what
integers do to the accuracy of trained ones is the table of experiments.quantize_real_weights.

Example:
  python -m experiments.benchmarks.integer_inference --networks=resnet20:32,mobilenet_v2:96 --rounds=10
"""
from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from lightjax import measure, models
from lightjax.core import specs
from lightjax.quantize import integer, lowering, program, simulation
from lightjax.train import devices

_NETWORKS = flags.DEFINE_list('networks', ['resnet20:32', 'mobilenet_v2:96'], 'name:pixels of the networks.')
_BATCH = flags.DEFINE_integer('batch_size', 8, 'Images a call.')
_ROUNDS = flags.DEFINE_integer('rounds', 10, 'Rounds in which each form is timed once.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


def compared(name: str, size: int, batch_size: int, rounds: int) -> dict[str, Any]:
  """Milliseconds of each form of a network, bytes of its parameters, and on how many images the first choice is equal.

  Args:
    name: of the network.
    size: height and width of its images, pixels.
    batch_size: images a call.
    rounds: of timing.
  Returns:
    The row.
  """
  model = models.create(name)
  images = jnp.asarray(np.random.default_rng(0).standard_normal((batch_size, size, size, 3)), jnp.float32)
  variables = jax.jit(lambda key: model.init(key, images[:1], train=False))(jax.random.key(0, impl='rbg'))

  def apply(variables: Any, x: Any) -> Any:
    return model.apply(variables, x, train=False)

  network = lowering.lower(apply, variables, images)
  quantized = simulation.quantize(network, simulation.calibrate(network, images))
  # Parameters are arguments: as constants they would be folded by the compiler.
  forms: dict[str, Any] = {
    'float32': (apply, variables),
    'float32, folded': (lambda layers, x: program.run(network._replace(layers=layers), x), network.layers)}
  for form, label in (('float', 'float32 products'), ('integer', 'int8 products')):
    converted: Any = integer.convert(quantized, accumulation=form)  # type: ignore[arg-type]
    forms[f'integers, {label}'] = (
      lambda constants, x, each=converted: each._replace(constants=constants).apply(x), converted.constants)
  calls = {form: functools.partial(jax.jit(function), held, images) for form, (function, held) in forms.items()}
  choices = {form: np.asarray(call()).argmax(-1) for form, call in calls.items()}
  ones, others = (choices[form] for form in calls if form.startswith('integers'))
  if not np.array_equal(ones, others):
    raise ArithmeticError(f'{name}: the two ways to sum in integers differ')
  seen = measure.side_by_side(calls, rounds=rounds)
  return {
    'network': name, 'pixels': size, 'batch': batch_size, 'float bytes': integer.memory_bytes(network),
    'integer bytes': converted.size_bytes, 'same first choice': int((choices['float32'] == ones).sum()),
    'ms': {form: latency.median_ms for form, latency in seen.items()}}


def main() -> int:
  """Run the command."""
  devices.configure()
  rows = []
  for text in _NETWORKS.value:
    name, colon, size = text.partition(':')
    if not colon or not size.isdigit():
      raise specs.SpecError(f"--networks: {text!r} is not of the form 'name:pixels'.")
    row = compared(name, int(size), _BATCH.value, _ROUNDS.value)
    rows.append(row)
    share = row['integer bytes'] / row['float bytes']
    print(f'{name}, {size} pixels, batch {row["batch"]}: {row["integer bytes"]:,} bytes of {row["float bytes"]:,} '
          f'({share:.1%}), same first choice on {row["same first choice"]}')
    for form, milliseconds in row['ms'].items():
      print(f'  {form:>26}  {milliseconds:8.1f} ms  {milliseconds / row["ms"]["float32"]:6.2f} x float32')
  if _OUTPUT.value:
    steps.write(_OUTPUT.value, rows)
  return 0


if __name__ == '__main__':
  commands.launch(main)
