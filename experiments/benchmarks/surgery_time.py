"""Seconds that removing half of a network's channels takes: its coupling, the choice by L1, the cut.

Nothing is compiled but the importances; the network that is left is compiled when it first runs, as any other.

Example:
  python -m experiments.benchmarks.surgery_time --model=resnet50
"""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from lightjax import graph, models
from lightjax.prune import channel_scores, costs, importance, selection, surgery
from lightjax.train import devices

_MODEL = flags.DEFINE_string('model', 'resnet50', 'Network, see lightjax.models.')
_SIZE = flags.DEFINE_integer('size', 224, 'Height and width of the images, pixels.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


def main() -> int:
  """Run the command."""
  devices.configure()
  jax.config.update('jax_enable_compilation_cache', False)
  model, image = models.create(_MODEL.value), jax.ShapeDtypeStruct((1, _SIZE.value, _SIZE.value, 3), 'float32')
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
  key = jax.random.key(0, impl='rbg')
  variables = jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape, leaf.dtype), shapes)
  state = optax.sgd(0.01, momentum=0.9).init(variables['params'])
  rows: list[dict[str, Any]] = []

  def timed(name: str, step: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = jax.block_until_ready(step())
    rows.append({'step': name, 'seconds': time.perf_counter() - began})
    return result

  print(f'{_MODEL.value}, {_SIZE.value}x{_SIZE.value}, half of the MACs')
  coupling = timed('coupling', lambda: graph.channels(model.apply, variables, image))
  scores = timed('importances', lambda: channel_scores.scores(coupling, variables, importance.l1))
  kept = timed('choice', lambda: selection.choose(
    coupling, scores, costs.macs(coupling, model.apply, variables, image), ratio=0.5))
  removed = timed('variables', lambda: surgery.remove(model.apply, coupling, variables, kept))
  timed('optimizer state', lambda: removed.removal.cut(state))
  timed('trace of what is left', lambda: jax.eval_shape(removed.apply, removed.variables, jnp.zeros(image.shape)))
  rows.append({'step': 'surgery', 'seconds': sum(row['seconds'] for row in rows)})
  for row in rows:
    print(f'{row["step"]:>22} {row["seconds"]:7.2f} s')
  if _OUTPUT.value:
    steps.write(_OUTPUT.value, rows, model=_MODEL.value, size=_SIZE.value)
  return 0


if __name__ == '__main__':
  commands.launch(main)
