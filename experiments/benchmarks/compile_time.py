"""Seconds until the first step of each network, from nothing: initialization and training step, traced and compiled.

At the resolution of its paper, without the compilation cache and without running anything.

Example:
  python -m experiments.benchmarks.compile_time --only=mobilenet_v2 --output=compile.json
"""
from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from experiments import commands, zoo
from experiments.benchmarks import steps
from lightjax import models
from lightjax.core import rngs
from lightjax.core.transform import chain
from lightjax.train import compression, devices, optimizers
from lightjax.train import state as states
from lightjax.train.step import training_step

_ONLY = flags.DEFINE_string('only', '.*', 'Regular expression: only networks whose name it matches.')
_BATCH = flags.DEFINE_integer('batch', 16, 'Images of a training step.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


def sizes() -> dict[str, int]:
  """Height and width of each network's images in its paper, pixels; the largest where there are several."""
  found: dict[str, int] = {}
  for network in zoo.plan()[0]:
    if not network.arguments:
      found[network.name] = max(network.size, found.get(network.name, 0))
  return found


def compiled_in(name: str, size: int, batch: int) -> tuple[float, float]:
  """Seconds that initialization and a step of SGD with momentum take to trace and compile.

  Args:
    name: in lightjax.models.
    size: height and width of the images, pixels.
    batch: images of a step.
  Returns:
    (initialization, step).
  """
  model = models.create(name)
  channels = 1 if size == 28 else 3
  example = jnp.zeros((1, size, size, channels))
  key = jax.random.key(0, impl='rbg')
  initialize = jax.jit(lambda key: model.init(key, example, train=False))
  initialization = _seconds(initialize, key)
  variables = jax.eval_shape(initialize, key)
  compressed = compression.bind(model, variables, chain(), example)
  optimizer = optimizers.optimizer(optimizers.sgd, optimizers.constant(0.01, total=1), weight_decay=1e-4)
  own = compressed.init(variables, key=rngs.root(0))
  state = jax.eval_shape(lambda variables: states.create(variables, own, optimizer, averaged=False), variables)
  images, labels = jax.ShapeDtypeStruct((batch, *example.shape[1:]), 'float32'), jax.ShapeDtypeStruct((batch,), 'int32')
  step = jax.jit(training_step(compressed, optimizer, prepare=lambda key, images: images), donate_argnums=0)
  return initialization, _seconds(step, state, rngs.root(0), images, labels)


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
  began = time.perf_counter()
  function.lower(*arguments).compile()  # type: ignore[attr-defined]
  return time.perf_counter() - began


def main() -> int:
  """Run the command."""
  devices.configure()
  jax.config.update('jax_enable_compilation_cache', False)
  rows = []
  print(f'{"network":32} {"pixels":>6} {"init":>8} {"step":>8}')
  for name, size in sizes().items():
    if not re.fullmatch(_ONLY.value, name):
      continue
    initialization, step = compiled_in(name, size, _BATCH.value)
    rows.append({'network': name, 'pixels': size, 'init_s': initialization, 'step_s': step})
    print(f'{name:32} {size:6} {initialization:6.1f} s {step:6.1f} s', flush=True)
    jax.clear_caches()
    if _OUTPUT.value:
      steps.write(_OUTPUT.value, rows, batch=_BATCH.value)
  return 0


if __name__ == '__main__':
  commands.launch(main)
