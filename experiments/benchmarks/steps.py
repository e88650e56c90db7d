"""What the benchmarks time: a compiled training step on one fixed batch of noise."""
from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import rngs
from lightjax.core.transform import Transform
from lightjax.core.typing import PyTree
from lightjax.train import compression, devices, optimizers
from lightjax.train import state as states
from lightjax.train import step as steps

__all__ = ['training_step', 'write']


def training_step(
  model: nn.Module, method: Transform, shape: tuple[int, int, int, int], *, device_count: int = 1,
  distillation: steps.Distillation | None = None, teacher: PyTree = None
) -> Callable[[], None]:
  """A step of SGD with momentum and weight decay under a method; a call takes one step and waits for it.

  Args:
    model: network of at least 10 classes.
    method: the transform.
    shape: [b, h, w, c] of the images.
    device_count: devices that share the batch.
    distillation: teaching, or None.
    teacher: what the step is given of the teacher.
  """
  generator = np.random.default_rng(0)
  over = devices.mesh(device_count)
  images, labels = devices.shard([generator.standard_normal(shape, np.float32), generator.integers(0, 10, shape[0])],
                                 over)
  example = jnp.zeros((1, *shape[1:]))
  variables = jax.jit(lambda key: model.init(key, example, train=False))(jax.random.key(0, impl='rbg'))
  compressed = compression.bind(model, variables, method, example)
  optimizer = optimizers.optimizer(optimizers.sgd, optimizers.constant(0.01, total=1), weight_decay=1e-4)
  own = compressed.init(variables, key=rngs.root(0))
  state = devices.replicate(states.create(variables, own, optimizer, averaged=False), over)
  compiled = jax.jit(steps.training_step(
    compressed, optimizer, prepare=lambda key, images: images, distillation=distillation), donate_argnums=0)
  key = devices.replicate(rngs.root(0), over)
  (index,) = devices.shard([np.arange(shape[0])], over)

  def take() -> None:
    nonlocal state
    state = compiled(state, key, images, labels, teacher, index)
    jax.block_until_ready(state.step)

  return take


def write(path: str, rows: Sequence[Mapping[str, Any]], **about: Any) -> None:
  """A benchmark's rows as a JSON file, with the processor and the versions that they were measured on."""
  record = {**about, 'rows': list(rows), 'cores': devices.cores(), 'processor': processor(),
            'versions': devices.versions()}
  place = pathlib.Path(path)
  place.parent.mkdir(parents=True, exist_ok=True)
  place.write_text(json.dumps(record, indent=1) + '\n')


def processor() -> str:
  """Name of the accelerator, on CPU that of the processor where the system tells it."""
  kind = jax.devices()[0].device_kind
  information = pathlib.Path('/proc/cpuinfo')
  if kind != 'cpu' or not information.is_file():
    return kind
  names = [line.partition(':')[2].strip() for line in information.read_text().splitlines()
           if line.startswith('model name')]
  return names[0] if names else kind
