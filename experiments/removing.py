"""Channels that a run removes before its first step (`config.remove`), and the time that it saves.

They are ranked by the weights that the run starts from. What is left is a `Removal`, a step of the run's `reshaping`.
"""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import building
from lightjax import data, graph, measure
from lightjax.core import rngs, specs
from lightjax.core.typing import Array, Variables
from lightjax.graph.channels import ChannelGraph, Group
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

LATENCY_BATCH = 32


def asked(config: ml_collections.ConfigDict) -> bool:
  """Whether a config removes channels."""
  return bool(config.remove.importance or config.search.strategy)


def find(
  config: ml_collections.ConfigDict, built: building.Program, variables: Variables, *, measures: bool = True
) -> Removal:
  """What a config leaves of the network.

  Args:
    config: complete.
    built: program of the network that loses channels.
    variables: of that network, by which channels are ranked.
    measures: whether latency is measured, which takes seconds for each choice; if not, a budget of it cuts nothing.
  Returns:
    The removal.
  Raises:
    SpecError: a field names nothing; a pattern matches nothing; the budget can't be met; the importance has nothing to
      look at.
  """
  fields, apply = config.remove, built.apply
  offered = {
    **counted(built, variables),
    'latency': lambda graph: (
      costs.latency(graph, apply, variables, noise(built)) if measures else lambda kept: 0.0)}
  if fields.cost not in offered:
    raise specs.SpecError(f'remove.cost={fields.cost!r} is none of {", ".join(map(repr, offered))}.')
  coupling = graph.channels(apply, variables, example(built))
  try:
    groups = selection.candidates(coupling, only=fields.only, exclude=fields.exclude)
    kept = selection.choose(
      coupling, scores(config, built, variables, coupling, groups), offered[fields.cost](coupling), ratio=fields.ratio,
      ranking=fields.ranking, multiple=fields.multiple, minimum=fields.minimum)
    return surgery.plan(coupling, kept)
  except specs.SpecError:
    raise
  except ValueError as error:
    raise specs.SpecError(f'remove: {error}') from error


def counted(built: building.Program, variables: Variables) -> dict[str, Callable[[ChannelGraph], costs.Cost]]:
  """The costs that need no measuring, by the name that a config has for them."""
  return {
    'channels': costs.channels, 'params': lambda graph: costs.params(graph, variables),
    'size_bytes': lambda graph: costs.size_bytes(graph, variables),
    'macs': lambda graph: costs.macs(graph, built.apply, variables, example(built))}


def scores(
  config: ml_collections.ConfigDict, built: building.Program, variables: Variables, coupling: ChannelGraph,
  groups: Sequence[Group],
) -> dict[str, np.ndarray]:
  """The importance of the channels of some groups, as `config.remove` says: name of a group -> [units].

  Raises:
    SpecError: a field names nothing.
    ValueError: the importance has nothing to look at.
  """
  fields = config.remove
  formula = specs.resolve(fields.importance, importance, field='remove.importance')
  batches = [batch(config, built, index) for index in range(config.criteria_batches)]
  wanted = inspect.signature(formula).parameters
  gradient = _gradient(built.apply, building.loss_function(config))
  return channel_scores.scores(
    coupling, variables, formula, groups=groups,
    reduce=specs.resolve(fields.reduce, reductions, field='remove.reduce'),
    normalize=specs.resolve(fields.normalize, normalizers, field='remove.normalize'),
    gradients=[gradient(variables, *each) for each in batches] if 'gradients' in wanted else (),
    activations=channel_scores.mean_activations(
      built.apply, variables, jnp.concatenate([images for images, _ in batches])) if 'activation' in wanted else None,
    key=rngs.fold(rngs.root(config.seed), 'remove'))


def example(built: building.Program) -> jax.ShapeDtypeStruct:
  """The shape of a batch of one image."""
  return jax.ShapeDtypeStruct((1, *built.splits.info.shape), jnp.float32)


def latencies(built: building.Program, variables: Variables) -> dict[str, float]:
  """Milliseconds of a forward pass before and after, measured in turns, in evaluation mode.

  Args:
    built: of the smaller network.
    variables: of the smaller network.
  Returns:
    'latency_ms' and 'whole/latency_ms' for a batch of 32, medians, and 'speedup', the second over the first.
  """
  images = noise(built)
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

  batches = (batch(config, built, index)[0] for index in range(config.remove.reestimate))
  try:
    return statistics.reestimate(_moved(built.apply), variables, batches)
  except ValueError as error:
    raise specs.SpecError(f'remove.reestimate={config.remove.reestimate}: {error}') from error


def noise(built: building.Program) -> Array:
  """Images to measure latency on."""
  shape = (LATENCY_BATCH, *built.splits.info.shape)
  return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))


def batch(config: ml_collections.ConfigDict, built: building.Program, index: int) -> tuple[Array, Array]:
  """One of the run's first batches, without augmentation."""
  train = built.splits.train
  images, labels = train.take(
    data.batch_indices(index, seed=config.seed, size=len(train), batch_size=config.batch_size))
  return built.normalize(jnp.asarray(images)), jnp.asarray(labels)


@functools.lru_cache(maxsize=8)
def _moved(apply: Callable[..., Any]) -> Callable[[Variables, Array], Any]:
  """(variables, images) -> the statistics after a pass in training mode; one function, so that it is compiled once."""

  def moved(variables: Variables, images: Array) -> Any:
    return apply(
      variables, images, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)})[1]['batch_stats']

  return moved


@functools.lru_cache(maxsize=8)
def _gradient(
  apply: Callable[..., Any], loss_of: Callable[..., Array]
) -> Callable[[Variables, Array, Array], Variables]:
  """(variables, images, labels) -> gradient of the loss in evaluation mode, a tree of the params; compiled once."""

  @jax.jit
  def gradient(variables: Variables, images: Array, labels: Array) -> Variables:
    def loss(params: Any) -> Array:
      logits: Any = apply({**variables, 'params': params}, images)
      return loss_of(logits, labels, 0.0).mean()

    return jax.grad(loss)(variables['params'])

  return gradient
