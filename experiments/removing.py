"""Channels that a run removes before its first step (`config.remove`), and the time that it saves.

They are ranked by the weights that the run starts from. What is left is a `Removal`: plain data that is kept in the
run's folder and in its artifact, beside the description of the whole network.
"""
from __future__ import annotations

import functools
import inspect
import json
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import building, unit
from lightjax import data, graph, measure
from lightjax.core import rngs, specs
from lightjax.core.typing import Array, Variables
from lightjax.prune import (
  channel_scores,
  costs,
  importance,
  normalizers,
  reductions,
  selection,
  statistics,
  surgery,
)
from lightjax.prune.surgery import Removal

FILE = 'removal.json'
LATENCY_BATCH = 32


def asked(config: ml_collections.ConfigDict) -> bool:
  """Whether a config removes channels."""
  return bool(config.remove.importance)


def find(
  config: ml_collections.ConfigDict, whole: building.Program, variables: Variables, *, measures: bool = True
) -> Removal:
  """What a config leaves of the network.

  Args:
    config: complete.
    whole: program of the whole network.
    variables: of the whole network, by which channels are ranked.
    measures: whether latency is measured, which takes seconds for each choice; if not, a budget of it cuts nothing.
  Returns:
    The removal.
  Raises:
    SpecError: a field names nothing; a pattern matches nothing; the budget can't be met; the importance has nothing to
      look at.
  """
  fields, apply = config.remove, whole.network.apply
  formula = specs.resolve(fields.importance, importance, field='remove.importance')
  reduce = specs.resolve(fields.reduce, reductions, field='remove.reduce')
  normalize = specs.resolve(fields.normalize, normalizers, field='remove.normalize')
  example = jax.ShapeDtypeStruct((1, *whole.splits.info.shape), jnp.float32)
  offered = {
    'channels': costs.channels, 'params': lambda graph: costs.params(graph, variables),
    'size_bytes': lambda graph: costs.size_bytes(graph, variables),
    'macs': lambda graph: costs.macs(graph, apply, variables, example),
    'latency': lambda graph: (
      costs.latency(graph, apply, variables, _noise(whole)) if measures else lambda kept: 0.0)}
  if fields.cost not in offered:
    raise specs.SpecError(f'remove.cost={fields.cost!r} is none of {", ".join(map(repr, offered))}.')
  coupling = graph.channels(apply, variables, example)
  try:
    groups = selection.candidates(coupling, only=fields.only, exclude=fields.exclude)
    batches = [_batch(config, whole, index) for index in range(config.criteria_batches)]
    wanted = inspect.signature(formula).parameters
    gradient = _gradient(whole.network, building.loss_function(config))
    scores = channel_scores.scores(
      coupling, variables, formula, reduce=reduce, normalize=normalize, groups=groups,
      gradients=[gradient(variables, *batch) for batch in batches] if 'gradients' in wanted else (),
      activations=channel_scores.mean_activations(
        apply, variables, jnp.concatenate([images for images, _ in batches])) if 'activation' in wanted else None,
      key=rngs.fold(rngs.root(config.seed), 'remove'))
    kept = selection.choose(
      coupling, scores, offered[fields.cost](coupling), ratio=fields.ratio, ranking=fields.ranking,
      multiple=fields.multiple, minimum=fields.minimum)
    return surgery.plan(coupling, kept)
  except ValueError as error:
    raise specs.SpecError(f'remove: {error}') from error


def read(folder: pathlib.Path) -> Removal:
  """The removal of a run that has begun.

  Raises:
    OSError: there is none, or it is damaged.
  """
  path = folder / FILE
  try:
    return Removal.from_json(json.loads(path.read_text()))
  except ValueError as error:
    raise OSError(f'{path} is damaged ({error}); remove {folder} to train it again') from error


def write(folder: pathlib.Path, removal: Removal) -> None:
  """Keep a run's removal in its folder."""
  unit.write(folder / FILE, json.dumps(removal.to_json()))


def latencies(built: building.Program, variables: Variables) -> dict[str, float]:
  """Milliseconds of a forward pass before and after, measured in turns, in evaluation mode.

  Args:
    built: of the smaller network.
    variables: of the smaller network.
  Returns:
    'latency_ms' and 'whole/latency_ms' for a batch of 32, medians, and 'speedup', the second over the first.
  """
  images = _noise(built)
  model = built.network
  whole = building.initializer(model, built.splits.info.shape)(jax.random.key(0, impl='rbg'))
  forward, smaller = jax.jit(model.apply), jax.jit(built.apply)
  found = measure.side_by_side(
    {'whole': lambda: forward(whole, images), 'smaller': lambda: smaller(variables, images)}, rounds=100, warmup=5)
  before, after = found['whole'].median_ms, found['smaller'].median_ms
  return {'latency_ms': after, 'whole/latency_ms': before, 'speedup': before / after}


def reestimated(config: ml_collections.ConfigDict, built: building.Program, variables: Variables) -> Variables:
  """What is left, with BatchNorm's statistics estimated again by the config's `remove.reestimate` first batches."""
  if not config.remove.reestimate:
    return variables

  def moved(variables: Variables, images: Array) -> Any:
    return built.apply(
      variables, images, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)})[1]['batch_stats']

  batches = (_batch(config, built, index)[0] for index in range(config.remove.reestimate))
  try:
    return statistics.reestimate(moved, variables, batches)
  except ValueError as error:
    raise specs.SpecError(f'remove.reestimate={config.remove.reestimate}: {error}') from error


def _noise(built: building.Program) -> Array:
  """Images to measure latency on."""
  shape = (LATENCY_BATCH, *built.splits.info.shape)
  return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def _batch(config: ml_collections.ConfigDict, whole: building.Program, index: int) -> tuple[Array, Array]:
  """One of the run's first batches, without augmentation."""
  train = whole.splits.train
  images, labels = train.take(
    data.batch_indices(index, seed=config.seed, size=len(train), batch_size=config.batch_size))
  return whole.normalize(jnp.asarray(images)), jnp.asarray(labels)


@functools.lru_cache(maxsize=8)
def _gradient(model: nn.Module, loss_of: Callable[..., Array]) -> Callable[[Variables, Array, Array], Variables]:
  """(variables, images, labels) -> gradient of the loss in evaluation mode, a tree of the params; compiled once."""

  @jax.jit
  def gradient(variables: Variables, images: Array, labels: Array) -> Variables:
    def loss(params: Any) -> Array:
      logits: Any = model.apply({**variables, 'params': params}, images)
      return loss_of(logits, labels, 0.0).mean()

    return jax.grad(loss)(variables['params'])

  return gradient
