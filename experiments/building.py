"""From a config to the functions of a run: network, transform, optimizer, compiled steps.

A `Program` does not depend on the seed, nor on where results go: runs that differ in these alone share it and its
compiled functions, as long as they share a process.
"""
from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from experiments import configuration, penalties, reshaping, stages, starting, teaching
from experiments.reshaping import Surgery
from experiments.teaching import Teacher
from lightjax import artifact, binarize, data, graph, models, quantize
from lightjax.core import rngs, specs, trees
from lightjax.core.transform import Own, Transform, chain
from lightjax.core.typing import Array, PyTree, Variables
from lightjax.data import augment
from lightjax.train import compression, devices, losses, optimizers
from lightjax.train import state as states
from lightjax.train import step as steps
from lightjax.train.compression import Compressed
from lightjax.train.state import TrainState

EVALUATION_BATCH = 500


class Program(NamedTuple):
  """Everything of a run that its seed does not change.

  Attributes:
    network: the linen module, whole.
    surgery: what is changed of it before the first step: channels removed, kernels split.
    apply: of the network that is trained: the module's, or that of what is left.
    compressed: the network under its chain.
    splits: the data.
    mesh: devices that share a batch.
    steps: of the whole run.
    epoch_steps: of an epoch.
    settled: first step after which no mask moves; a network is not judged the best before.
    initial: (seed, variables to train or None for new ones, variables that masks before training are ranked by or None
      for the same) -> the state before the first step.
    advance: (state, key, batch, teacher) -> state; jitted.
    batches: (seed, first step) -> iterator of batches for `advance`.
    evaluate: (split, variables, own) -> {'accuracy', 'loss', 'examples'}.
    diagnose: (state, seed, failed step, gradient leaf) -> text.
    normalize: images as stored -> inputs of the network, without augmentation.
    logits: (variables, own, images as stored) -> logits of the simulation.
    stored_logits: (artifact, images as stored) -> logits of the network that was stored.
  """
  network: nn.Module
  surgery: Surgery
  apply: Callable[..., Any]
  compressed: Compressed
  splits: data.Splits
  mesh: Mesh
  steps: int
  epoch_steps: int
  settled: int
  initial: Callable[[int, Variables | None, Variables | None], TrainState]
  advance: Callable[..., TrainState]
  batches: Callable[[int, int], Iterator[Any]]
  evaluate: Callable[[str, Variables, Own], dict[str, float]]
  diagnose: Callable[[TrainState, int, int, int], str]
  normalize: Callable[[Array], Array]
  logits: Callable[[Variables, Own, Array], Array]
  stored_logits: Callable[[artifact.Stored, Array], Array]


def program(
  config: ml_collections.ConfigDict, teacher: Teacher | None = None, surgery: Surgery = reshaping.NOTHING
) -> Program:
  """The program of a config; equal configs (their seed apart) get the same one.

  Args:
    config: complete.
    teacher: of the run, where it has one.
    surgery: what is changed of the network; without it the program is of the whole one.
  Returns:
    The program, its functions not yet compiled.
  """
  fields = configuration.flatten(config)
  key = {field: value for field, value in fields.items() if field not in ('seed', 'name')}
  taught = None if teacher is None else teacher.surgery.to_json()
  name = json.dumps([specs.canonical(key), surgery.to_json(), taught])
  if name not in _programs:
    if len(_programs) == _KEPT:
      _programs.pop(next(iter(_programs)))
    _programs[name] = _build(config, teacher, surgery)
  return _programs[name]


_programs: dict[str, Program] = {}
_KEPT = 16  # compiled functions are large; a worker sees the rows of a table one after another


def masked(config: ml_collections.ConfigDict, surgery: Surgery, stage: Transform) -> Program:
  """The program of a config's network under one transform of the caller's, in place of the config's own stages.

  Args:
    config: complete; it is taught by nobody.
    surgery: what was changed of the network.
    stage: the transform; what it owns is an argument of the program's functions.
  Returns:
    A program of the caller's own.
  """
  return _build(configuration.override(config, [('compress.stages', ())]), None, surgery, (stage,))


def _build(
  config: ml_collections.ConfigDict, teacher: Teacher | None, surgery: Surgery, stages_: Sequence[Transform] = (),
) -> Program:
  splits = _trained_on(read_splits(config), tuple(config.data.only), config.data.per_class)
  info = splits.info
  model = network(config, classes=info.classes)
  example = jax.ShapeDtypeStruct((1, *info.shape), jnp.float32)
  shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), example)
  apply, shapes = surgery.apply(model.apply), surgery.cut(shapes)
  epoch_steps = specs.call(data.steps_per_epoch, {}, len(splits.train), config.batch_size, field='batch_size')
  if config.epochs < 1:
    raise specs.SpecError(f'epochs={config.epochs}: a run has 1 or more.')
  if not config.criteria_temperature > 0:
    raise specs.SpecError(f'criteria_temperature={config.criteria_temperature}: logits are divided by it, want > 0.')
  run = stages.Run(steps=epoch_steps * config.epochs)
  lessons, owner = teaching.build(
    config, None if surgery.steps else model, teacher, shape=info.shape, classes=info.classes,
    examples=len(splits.train)) if teaching.is_taught(config) else (None, None)
  last = (*stages_, *(() if owner is None else (owner,)))
  compressed = compression.bind(apply if surgery.steps else model, shapes, _chain(config, run, last), example)

  optimizer = _optimizer(config, run.steps, epoch_steps)
  over = specs.call(devices.mesh, {}, config.devices or len(jax.devices()), field='devices')
  normalize = functools.partial(data.normalize, mean=info.mean, std=info.std)
  loss_of = loss_function(config)
  step = steps.training_step(
    compressed, optimizer, prepare=_preparation(config, normalize), loss=loss_of,
    label_smoothing=config.label_smoothing, average=config.average,
    distillation=lessons,
    penalty=penalties.penalty(config, apply, shapes, example))
  logits = jax.jit(lambda variables, own, images: compressed.apply(variables, own, normalize(images)))
  feed, advance = _feed(config, splits, over, step)

  def stored_logits(stored: artifact.Stored, images: Array) -> Array:
    @jax.jit
    def forward(variables: Variables, images: Array) -> Any:
      inputs = stored.encoded.activations
      binary = binarize.binary_modules(inputs)
      integer = {module: calls for module, calls in inputs.items() if module not in binary}
      quantized, binarized = quantize.frozen_interceptor(integer), binarize.frozen_interceptor(inputs)
      with nn.intercept_methods(quantized), nn.intercept_methods(binarized):
        return apply(variables, normalize(images))

    return forward(stored.variables, images)

  def initialize(key: Array) -> Variables:
    return surgery.cut(initializer(model, info.shape)(key))

  @jax.jit
  def first_loss(variables: Variables, images: Array, labels: Array) -> Array:
    outputs = apply(
      variables, images, train=True, mutable=[name for name in variables if name != 'params'],
      rngs={'dropout': jax.random.key(0)})
    return loss_of(outputs[0] / config.criteria_temperature, labels, config.label_smoothing).mean()

  def own_of(seed: int, variables: Variables) -> Own:
    key = rngs.fold(rngs.root(seed), 'transform')
    if not config.compress.stages:
      return specs.call(compressed.init, {'key': key}, variables, field='compress')
    indices = [data.batch_indices(i, seed=seed, size=len(splits.train), batch_size=config.batch_size)
               for i in range(config.criteria_batches)]
    images, labels = splits.train.take(np.concatenate(indices))
    inputs = normalize(jnp.asarray(images))

    def loss(variables: Variables) -> Array:
      return first_loss(variables, inputs, labels)

    return specs.call(compressed.init, {'key': key, 'loss': loss, 'batch': (inputs,)}, variables, field='compress')

  def initial(seed: int, start: Variables | None, ranked: Variables | None) -> TrainState:
    # A key of the `rbg` generator: with threefry, compiling `init` takes several times as long.
    key = jax.random.key(seed, impl='rbg')
    variables = initialize(rngs.fold(key, 'fresh') if config.start.rewind == 'fresh' else key)
    if start is not None:
      variables = starting.begin(start, variables, config.start.fresh)
    own = own_of(seed, variables if ranked is None else starting.begin(ranked, variables, config.start.fresh))
    return devices.replicate(states.create(variables, own, optimizer, averaged=config.average > 0), over)

  def diagnose(state: TrainState, seed: int, failed: int, leaf: int) -> str:
    images, _ = splits.train.take(data.batch_indices(
      failed, seed=seed, size=len(splits.train), batch_size=config.batch_size))
    view = compressed.transform.view({**state.collections, 'params': state.params}, state.own, None)
    place = graph.first_nonfinite(apply, view, normalize(jnp.asarray(images)))
    if place is None:
      names = ['the loss', *(f'the gradient of {path!r}' for path in trees.flatten(state.params))]
      return f'{names[leaf]} is not finite; lower the learning rate, or clip the gradient with clip_norm.'
    return f'the output of {place} is not finite; lower the learning rate, or look at its input.'

  return Program(
    model, surgery, apply, compressed, splits, over, run.steps, epoch_steps, _settled(config, run), initial, advance,
    feed, _evaluation(splits, over, steps.evaluation_step(compressed, prepare=normalize, loss=loss_of)), diagnose,
    normalize, logits, stored_logits)


@functools.lru_cache(maxsize=8)
def initializer(model: nn.Module, shape: tuple[int, ...]) -> Callable[[Array], Variables]:
  """Key -> fresh variables for images of a shape; compiled once for the whole network and all that is left of it."""
  return jax.jit(lambda key: model.init(key, jnp.zeros((1, *shape), jnp.float32), train=False))


def network(config: ml_collections.ConfigDict, *, classes: int) -> nn.Module:
  """The config's network, in its precision, for a number of classes."""
  fields = dict(config.model)
  name = fields.pop('name')
  constructor = specs.resolve(name, models, field='model.name')
  dtype = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}.get(config.precision)
  if dtype is None:
    raise specs.SpecError(f"precision={config.precision!r} is none of 'float32', 'bfloat16'.")
  return specs.call(constructor, fields, field='model', **{'classes': classes} | (
    {} if config.precision == 'float32' else {'dtype': dtype}))


def loss_function(config: ml_collections.ConfigDict) -> Callable[[Array, Array, float], Array]:
  """(outputs [b c], labels [b], label smoothing) -> loss [b] of the labels."""
  function = specs.resolve(config.loss, losses, field='loss')
  specs.check(function, {}, 3, field='loss')

  def probe() -> Any:
    return jax.eval_shape(lambda: function(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32), config.label_smoothing))

  specs.call(probe, {}, field='loss')
  return function


def read_splits(config: ml_collections.ConfigDict) -> data.Splits:
  """The data that `config.data` names, all of it."""
  return _splits(config.data.name, config.data.dir, config.data.validation, _data_options(config))


def _data_options(config: ml_collections.ConfigDict) -> tuple[tuple[str, Any], ...]:
  """Arguments of a source of its own, such as the shape of synthetic images."""
  general = configuration.default().data
  augmentations = tuple(config.data.augment)
  return tuple(
    (key, value) for key, value in config.data.items() if key not in general and key not in augmentations)


@functools.lru_cache(maxsize=4)
def _splits(name: str, folder: str, validation: float, options: tuple[tuple[str, Any], ...]) -> data.Splits:
  return specs.call(
    functools.partial(data.load, name, dir=folder or None, validation=validation), dict(options), field='data')


def _trained_on(splits: data.Splits, only: tuple[int, ...], per_class: int) -> data.Splits:
  """The splits with fewer images to train on: of some labels, and so many of each class."""
  if not only and not per_class:
    return splits
  labels = splits.train.labels()
  missing = sorted({*only}.difference(np.unique(labels).tolist()))
  if missing:
    raise specs.SpecError(f'data.only: no image has the label {missing[0]}.')
  chosen = np.isin(labels, only) if only else np.ones(len(labels), bool)
  if per_class:
    for label in np.unique(labels[chosen]):
      members = np.flatnonzero(labels == label)
      if len(members) < per_class:
        raise specs.SpecError(f'data.per_class={per_class}: class {label} has {len(members)} images only.')
      chosen[members[per_class:]] = False
  train = splits.train.subset(np.flatnonzero(chosen), name=f'{splits.train.name}, a part')
  sizes = splits.info.sizes._replace(train=len(train))
  return splits._replace(train=train, info=splits.info._replace(sizes=sizes))


def _chain(config: ml_collections.ConfigDict, run: stages.Run, last: Sequence[Transform]) -> Any:
  for name in config.compress.stages:
    if name not in config.compress or name == 'stages':
      raise specs.SpecError(f'compress.stages names {name!r}, but there is no field compress.{name}.')
  return chain(*(
    stages.build(run, dict(config.compress[name]), field=f'compress.{name}') for name in config.compress.stages), *last)


def _settled(config: ml_collections.ConfigDict, run: stages.Run) -> int:
  ends = [config.compress[name].get('end', 0.0) for name in config.compress.stages]
  return round(max(ends, default=0.0) * run.steps)


def _optimizer(config: ml_collections.ConfigDict, total: int, epoch_steps: int) -> Any:
  rate_fields = dict(config.learning_rate)
  schedule = specs.resolve(rate_fields.pop('schedule'), optimizers, field='learning_rate.schedule')
  warmup = round(rate_fields.pop('warmup_epochs') * epoch_steps)
  rate = specs.call(schedule, rate_fields, field='learning_rate', total=total, warmup=warmup)
  fields = dict(config.optimizer)
  base = specs.resolve(fields.pop('name'), optimizers, field='optimizer.name')
  specs.check(base, fields, 2, field='optimizer')
  return optimizers.optimizer(
    base, rate, weight_decay=config.weight_decay, no_decay=config.no_decay, clip_norm=config.clip_norm, **fields)


def _preparation(config: ml_collections.ConfigDict, normalize: Callable[..., Array]) -> Callable[[Array, Array], Array]:
  """Normalization, then the augmentations in order, each with a key of its own.

  They come after it so that what they pad and erase with is the mean, as in the ResNet papers' recipe.
  """
  parts = []
  for name in config.data.augment:
    function = specs.resolve(name, augment, field='data.augment')
    fields = dict(config.data.get(name, {}))
    specs.check(function, fields, 2, field=f'data.{name}')
    parts.append((name, functools.partial(function, **fields)))

  def prepare(key: Array, images: Array) -> Array:
    images = normalize(images)
    for name, function in parts:
      images = function(rngs.fold(key, name), images)
    return images

  return prepare


def _feed(
  config: ml_collections.ConfigDict, splits: data.Splits, over: Mesh, step: Callable[..., TrainState]
) -> tuple[Callable[[int, int], Iterator[Any]], Callable[..., TrainState]]:
  """How batches reach the step: indices into images that live on the device, or images that a reader streams."""
  size, batch_size = len(splits.train), config.batch_size
  if batch_size % over.size:
    raise specs.SpecError(f'batch_size={batch_size} does not divide over devices={over.size}.')
  if config.data.path == 'memory':
    images, labels = devices.replicate(splits.train.arrays(), over)

    def gathered(
      state: TrainState, key: Array, batch: Any, teacher: PyTree, images: Array, labels: Array
    ) -> TrainState:
      return step(state, key, images[batch], labels[batch], teacher, batch)

    compiled = jax.jit(gathered, donate_argnums=0)

    def advance(state: TrainState, key: Array, batch: Any, teacher: PyTree) -> TrainState:
      return compiled(state, key, batch, teacher, images, labels)

    def indices(seed: int, first: int) -> Iterator[Any]:
      while True:
        batch = data.batch_indices(first, seed=seed, size=size, batch_size=batch_size)
        yield devices.shard([batch], over)[0]
        first += 1

    return indices, advance
  if config.data.path != 'stream':
    raise specs.SpecError(f"data.path={config.data.path!r} is none of 'memory', 'stream'.")
  streamed = jax.jit(
    lambda state, key, batch, teacher: step(state, key, batch[0], batch[1], teacher), donate_argnums=0)
  last = data.steps_per_epoch(size, batch_size) * config.epochs

  def batches(seed: int, first: int) -> Iterator[Any]:
    reader = data.stream(
      splits.train, seed=seed, batch_size=batch_size, start_step=first, stop_step=last, workers=config.data.workers)
    for batch in reader:
      yield devices.shard([batch['image'], batch['label']], over)

  return batches, streamed


def _evaluation(
  splits: data.Splits, over: Mesh, step: Callable[..., dict[str, Array]]
) -> Callable[[str, Variables, Own], dict[str, float]]:
  compiled = jax.jit(step)
  batch_size = EVALUATION_BATCH - EVALUATION_BATCH % over.size

  def evaluate(split: str, variables: Variables, own: Own) -> dict[str, float]:
    sums = []
    for batch in data.evaluation_batches(getattr(splits, split), batch_size):
      images, labels, valid = devices.shard([batch['image'], batch['label'], batch['mask']], over)
      sums.append(compiled(variables, own, images, labels, valid))
    total = jax.tree.map(lambda *parts: float(np.sum(parts)), *sums)
    return {
      'accuracy': total['correct'] / total['examples'], 'loss': total['loss'] / total['examples'],
      'examples': total['examples'],
    }

  return evaluate
