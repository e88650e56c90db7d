"""A unit of work: one run, found by what it computes.

Its identity is a hash of what is built from its config, without names, places and logging; a teacher or a run to start
from enters by its own identity. `run` trains it, or goes on where it stopped, or returns the result that is there.
"""
from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from experiments import configuration, stages, starting
from lightjax import models
from lightjax.core import specs
from lightjax.data import augment
from lightjax.distill import losses
from lightjax.train import optimizers

SCHEME = 1  # of identities: what enters them and how
NUMERICS = 3  # of results: raised when the same config gives other figures than before

Progress = Callable[[dict[str, Any]], None]


def identify(config: ml_collections.ConfigDict) -> str:
  """The unit's identity, 16 hexadecimal digits.

  Raises:
    SpecError: something that the config names does not exist, or runs need each other in a circle.
  """
  try:
    return specs.digest(essence(config))
  except RecursionError as error:
    raise specs.SpecError(
      f'{config.name}: start or distill leads back to the run itself; name a config that ends the chain.') from error


def essence(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """What the identity is the hash of: plain data, defaults left out, user functions with a hash of their source."""
  defaults = _function_defaults(config)
  fields = {
    field: value for field, value in configuration.essential(config).items()
    if field.split('.')[0] not in ('model', 'compress', 'start', 'distill') and field not in defaults
  }
  essence = {
    'scheme': SCHEME, 'fields': fields, 'sources': _sources(config),
    'model': _without_defaults(config.model, 'name', models, field='model'),
    'compress': [
      _without_defaults(config.compress[name], 'transform', stages, field=f'compress.{name}')
      for name in config.compress.stages if name in config.compress],
  }
  for role, unit in prerequisites(config).items():
    essence[role] = identify(unit)
  if config.start.weights and config.start.config:
    raise specs.SpecError(f'{config.name}: start.weights and start.config are both set; a run has one start.')
  if config.start.fresh and not (config.start.weights or config.start.config):
    raise specs.SpecError(f'{config.name}: start.fresh without a start; set start.weights or start.config.')
  if config.start.weights:
    essence['start'] = starting.digest(pathlib.Path(config.start.weights))
  if config.start.fresh:
    essence['fresh'] = list(config.start.fresh)
  if config.start.config and config.start.rewind != 'last':
    essence['start'] = {'unit': essence['start'], 'rewind': config.start.rewind}
  if config.distill.weights and config.distill.config:
    raise specs.SpecError(f'{config.name}: distill.weights and distill.config are both set; a run has one teacher.')
  if config.distill.weights:
    essence['teacher'] = starting.digest(pathlib.Path(config.distill.weights))
  if config.distill.config or config.distill.weights or config.distill.terms:
    taught: dict[str, Any] = {
      'loss': config.distill.loss, 'weight': config.distill.weight,
      'hyper': specs.without_defaults(
        specs.resolve(config.distill.loss, losses, field='distill.loss'), config.distill.hyper.to_dict())}
    if config.distill.terms:
      taught['terms'] = [
        {name: configuration.flatten(config.distill[name])} for name in config.distill.terms if name in config.distill]
    if config.distill.precompute:
      taught['precompute'] = True
    essence['distill'] = taught
  return specs.canonical(essence)


def prerequisites(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
  """The units that must be done first: 'start' with this unit's seed, 'teacher' (and 'teacher1', ...) with theirs."""
  needed = {}
  references = [('start', config.start, config.seed)] + [
    (f'teacher{index or ""}', config.distill, seed)
    for index, seed in enumerate(config.distill.seeds or (config.seed,))]
  for role, reference, seed in references:
    if reference.config:
      changes = [*reference.overrides, ('seed', seed)]
      unit = configuration.override(configuration.load(reference.config), changes)
      if unit.data.name == config.data.name:
        unit = configuration.override(unit, [('data.dir', config.data.dir)])  # the same images lie in the same place
      needed[role] = configuration.smoke(unit) if config.smoke else unit
  return needed


def result(root: pathlib.Path, identity: str) -> dict[str, Any] | None:
  """A finished unit's result; None where there is none. A damaged file counts as none, with a warning."""
  path = root / identity / 'result.json'
  if not path.exists():
    return None
  try:
    found = json.loads(path.read_text())
    checksum = found.pop('sha256')
    if checksum == specs.digest(json.dumps(found, sort_keys=True), length=64):
      return found
    reason = 'its checksum differs'
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    reason = str(error)
  warnings.warn(f'{path} is damaged ({reason}); the unit counts as not done', stacklevel=2)
  return None


def run(config: ml_collections.ConfigDict, root: pathlib.Path, progress: Progress) -> dict[str, Any]:
  """A unit's result: found, or trained in `root/<identity>`, what it needs first included.

  Args:
    config: complete.
    root: folder of units.
    progress: called with {'step', 'steps', 'phase', ...} about twice a second.
  Returns:
    The result; also written to `result.json`.
  Raises:
    SpecError, DataError: the config cannot be built.
    Diverged: a step was not finite.
    Interrupted: a signal came; the state is saved.
    OSError: no space, no permission, or another process works on the unit.
  """
  return run_in(root / identify(config), config, root, progress)


def run_in(
  folder: pathlib.Path, config: ml_collections.ConfigDict, root: pathlib.Path, progress: Progress
) -> dict[str, Any]:
  """As `run`, in a folder of the caller's choice."""
  found = result(folder.parent, folder.name) if (folder / 'config.json').exists() else None
  if found is not None and found['id'] == identify(config):
    return found
  from experiments import training  # it imports this module in turn

  folder.mkdir(parents=True, exist_ok=True)
  with _locked(folder):
    _refuse_another(folder, config)
    # Before anything is trained or written: a config that cannot be built takes no folder and costs no teacher.
    training.check(config, progress)
    for unit in prerequisites(config).values():
      run(unit, root, progress)
    _claim(folder, config)
    started = time.time()
    figures = training.train(config, folder, functools.partial(training.finished, root), progress)
    written = {
      'id': identify(config), 'scheme': SCHEME, 'numerics': NUMERICS, 'name': config.name, 'seed': config.seed,
      'started': round(started), **figures,
    }
    checksum = specs.digest(json.dumps(written, sort_keys=True), length=64)
    write(folder / 'result.json', json.dumps({**written, 'sha256': checksum}, indent=1))
  return written


def write(path: pathlib.Path, text: str) -> None:
  """Write a file so that it is there whole or not at all."""
  partial = path.with_name(f'{path.name}.partial')
  try:
    with open(partial, 'w') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except OSError:
    partial.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Hold the folder for this process; the lock of a process that died holds nobody up."""
  with open(folder / 'lock', 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise OSError(f'another process works in {folder}; wait for it, or choose another folder') from error
    yield


def _claim(folder: pathlib.Path, config: ml_collections.ConfigDict) -> None:
  """Write the resolved config and its essence, before the first step."""
  if not (folder / 'config.json').exists():
    written = {'config': json.loads(config.to_json()), 'essence': essence(config)}
    write(folder / 'config.json', json.dumps(written, indent=1))


def _refuse_another(folder: pathlib.Path, config: ml_collections.ConfigDict) -> None:
  """Refuse a folder that another config has taken, naming the fields that differ."""
  path, ours = folder / 'config.json', essence(config)
  if not path.exists():
    return
  try:
    written = json.loads(path.read_text())
    theirs, fields = written['essence'], written['config']
  except (ValueError, KeyError, TypeError) as error:
    raise OSError(f'{path} is damaged ({error}); restore it, or remove the folder') from error
  if theirs != ours:
    difference = (
      configuration.differences(configuration.essential(fields), configuration.essential(config))
      or 'a function of your own, or what the run needs first, was edited')
    raise specs.SpecError(f'{folder} holds a run of another config ({difference}); choose another --workdir.')


def _function_defaults(config: ml_collections.ConfigDict) -> set[str]:
  """Dotted fields of optimizer, learning rate and augmentations that are at the default of the function they go to."""
  functions = {
    'optimizer': specs.resolve(config.optimizer.name, optimizers, field='optimizer.name'),
    'learning_rate': specs.resolve(config.learning_rate.schedule, optimizers, field='learning_rate.schedule'),
  } | {f'data.{name}': specs.resolve(name, augment, field='data.augment') for name in config.data.augment}
  at_default = set()
  for part, function in functions.items():
    fields = configuration.nested(config, part)
    at_default |= {f'{part}.{key}' for key in fields.keys() - specs.without_defaults(function, fields).keys()}
  return at_default


def _without_defaults(
  fields: ml_collections.ConfigDict, name: str, namespace: Any, *, field: str
) -> dict[str, Any]:
  if name not in fields:
    raise specs.SpecError(f'{field} has no field {name}, which names the function that it is for.')
  function = specs.resolve(fields[name], namespace, field=f'{field}.{name}')
  return specs.without_defaults(function, fields.to_dict())


def _sources(config: ml_collections.ConfigDict) -> dict[str, str | None]:
  """Hash of the source of every function of the user's own that the config names."""
  own: dict[str, str | None] = {}
  for field, value in configuration.flatten(config).items():
    unused = field.startswith('compress.') and field.split('.')[1] not in (*config.compress.stages, 'stages')
    if unused or field in ('name', 'data.dir', 'start.config', 'start.weights', 'distill.config', 'distill.weights'):
      continue
    for name in value if isinstance(value, tuple | list) else (value,):
      name = name.partition('(')[0] if isinstance(name, str) else ''  # 'my_file:my_pattern(2)'
      module, _, attribute = name.partition(':')
      if module.replace('.', '').isidentifier() and attribute.isidentifier():
        function = specs.resolve(name, configuration, field=field)  # 'module:function' needs no namespace
        own[name] = specs.source_digest(name, function)
  return own
