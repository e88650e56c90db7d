"""Training of one unit in its folder: resume, train, evaluate, store, measure."""
from __future__ import annotations

import functools
import itertools
import json
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import building, factorizing, layers, removing, reshaping, searching, starting, teaching, unit
from experiments.building import Program
from experiments.reshaping import NOTHING, Surgery
from experiments.teaching import Teacher
from lightjax import artifact, measure, models
from lightjax.core import rngs, specs
from lightjax.core.transform import Own
from lightjax.core.typing import PyTree, Variables
from lightjax.train import checkpoints, devices, health, loop, writers
from lightjax.train.state import TrainState

Finished = Callable[[ml_collections.ConfigDict], tuple[Variables, Own, Surgery]]
HELD = 64  # test images on which a stored network must repeat the simulation


def program(
  config: ml_collections.ConfigDict, surgery: Surgery = NOTHING, teachers: Surgery = NOTHING
) -> Program:
  """The program of a config, its teacher's (and the teacher's own teacher's) included.

  Args:
    config: complete.
    surgery: what is changed of its network; without it the program is of the whole one.
    teachers: likewise of its teacher's.
  Returns:
    The program.
  """
  return building.program(config, teacher(config, teachers), surgery)


def teacher(config: ml_collections.ConfigDict, surgery: Surgery = NOTHING) -> Teacher | None:
  """The frozen network that a config is taught by, without its numbers; None without one."""
  if config.distill.weights:
    return _stored_teacher(config)[0]
  needed = unit.prerequisites(config).get('teacher')
  if needed is None:
    return None
  built = program(needed, surgery)

  def apply(numbers: PyTree, images: jax.Array, **call: Any) -> Any:
    return built.compressed.apply(*numbers, images, **call)

  return Teacher(None if surgery.steps else built.network, built.splits.info.classes, apply, surgery)


def _stored_teacher(config: ml_collections.ConfigDict) -> tuple[Teacher, PyTree]:
  def network(model: Mapping[str, Any]) -> Any:
    fields = {key: value for key, value in model.items() if key != 'name'}
    return specs.call(specs.resolve(model['name'], models, field='distill.weights'), fields, field='distill.weights')

  return teaching.stored(config.distill.weights, network)


def _numbers(config: ml_collections.ConfigDict, finished: Finished, built: Program) -> PyTree:
  """What the step is given of the teachers: the numbers of each, or their logits; None without a teacher."""
  surgery, found = _teachers(config, finished)
  frozen = teacher(config, surgery)
  if frozen is None:
    return None
  if config.distill.precompute:
    if config.data.augment or config.data.path != 'memory':
      raise specs.SpecError(
        "distill.precompute: the teacher's logits are of images as they are stored; leave data.augment empty and "
        "data.path='memory', or set distill.precompute=False.")
    images = built.splits.train.arrays()[0]
    return devices.replicate(teaching.precomputed(frozen, found, built.normalize, images), built.mesh)
  return devices.replicate(found, built.mesh)


def _teachers(config: ml_collections.ConfigDict, finished: Finished) -> tuple[Surgery, tuple[PyTree, ...]]:
  """What was changed of the teachers' network, the same for all, and the numbers of each."""
  if config.distill.weights:
    return NOTHING, (_stored_teacher(config)[1],)
  found = [finished(needed) for role, needed in unit.prerequisites(config).items() if role.startswith('teacher')]
  surgeries = {json.dumps(surgery.to_json()): surgery for _, _, surgery in found}
  if len(surgeries) > 1:
    raise specs.SpecError('distill.seeds: the teachers have lost other channels each; use one of them.')
  return next(iter(surgeries.values()), NOTHING), tuple((variables, own) for variables, own, _ in found)


def check(config: ml_collections.ConfigDict, progress: unit.Progress) -> None:
  """Build a unit and its initial state, and throw them away: whatever is wrong with its config shows now.

  A budget of latency that can't be met shows in `train`, which measures it.

  Raises:
    SpecError, DataError: the config cannot be built.
    CompilerError: the installed compiler computes wrong values.
  """
  devices.configure()
  progress({'step': 0, 'steps': 1, 'phase': 'building'})
  health.check_compiler()
  _rehearse(config)


def _rehearse(config: ml_collections.ConfigDict) -> tuple[Program, TrainState]:
  """Program and first state of a unit as they would be if what it needs had its initial weights."""
  needed = unit.prerequisites(config)
  start = None if 'start' not in needed else _rehearse(needed['start'])
  begun, inherited = _imported(config) if start is None else (start[1].variables(), start[0].surgery)
  teachers = _rehearse(needed['teacher'])[0].surgery if 'teacher' in needed else NOTHING
  _rewind_step(config)
  return _smaller(config, begun, None, inherited, teachers, measures=False)


def finished(root: pathlib.Path, config: ml_collections.ConfigDict) -> tuple[Variables, Own, Surgery]:
  """(variables, own, surgery) of a unit that is done, from its last checkpoint."""
  place = root / unit.identify(config) / 'checkpoints'
  built = program(config, reshaping.read(place.parent))
  state = built.initial(config.seed, None, None)
  found = checkpoints.latest(place, {'state': state, 'best': _snapshot(state)})
  if found is None or found[0] != built.steps:
    raise OSError(f'{place} holds no sound checkpoint of the last step; remove {place.parent} to train it again')
  saved = found[1]
  return saved['state'].variables(), saved['state'].own, built.surgery


def _imported(config: ml_collections.ConfigDict) -> tuple[Variables | None, Surgery]:
  """The weights that the config starts from, and what was changed of their network.

  A network with other arguments than theirs is warned of.
  """
  if not config.start.weights:
    return None, NOTHING
  stored = starting.read(pathlib.Path(config.start.weights))
  constructor = specs.resolve(stored.model['name'], models, field='start.weights')
  theirs, ours = (
    specs.canonical(specs.without_defaults(
      constructor, {key: value for key, value in model.items() if key not in ('name', 'classes')}))
    for model in (stored.model, config.model.to_dict()))
  if theirs != ours:
    warnings.warn(
      f'start.weights: the weights are of {stored.model["name"]} with {theirs}, the network here has {ours}; it may '
      'compute something else with them', stacklevel=2)
  return stored.variables, stored.surgery


def train(
  config: ml_collections.ConfigDict, folder: pathlib.Path, finished: Finished, progress: unit.Progress
) -> dict[str, Any]:
  """Train a unit, from its newest sound checkpoint if there is one.

  Args:
    config: complete, and looked at by `check`.
    folder: of the unit; checkpoints, metrics and the artifact are written there.
    finished: config of a prerequisite -> its (variables, own, surgery).
    progress: called with {'step', 'steps', 'phase', ...}.
  Returns:
    {'metrics', 'layers', 'versions', 'device'}.
  """
  teachers, _ = _teachers(config, finished)
  # A run that goes on goes on with what it kept.
  built, state = _smaller(
    config, *_beginning(config, finished), teachers, reshaping.read(folder),
    search=functools.partial(searching.find, folder=folder, progress=progress))
  _keep_topology(folder, built)
  if built.surgery.steps:
    unit.write(folder / reshaping.FILE, json.dumps(built.surgery.to_json()))
  taught = _numbers(config, finished, built)

  key = devices.replicate(rngs.root(config.seed), built.mesh)
  best = _snapshot(state)
  about: dict[str, Any] = {'seconds': 0.0, 'lines': 0, 'best_accuracy': -1.0, 'best_epoch': 0}
  place = folder / 'checkpoints'
  found = checkpoints.latest(place, {'state': state, 'best': best})
  if found is not None:
    saved = devices.replicate(found[1], built.mesh)
    state, best = saved['state'], saved['best']
    about = checkpoints.read(place, found[0])['about']
  metrics = writers.Metrics(folder, lines=about['lines'], tensorboard=config.tensorboard)
  clock = _Clock(about['seconds'])

  def advance(state: TrainState, batch: Any) -> TrainState:
    state = built.advance(state, key, batch, taught)
    clock.start(state)
    return state

  def end_epoch(state: TrainState, done: int) -> None:
    clock.stop(state)
    epoch = math.ceil(done / built.epoch_steps)
    totals = {name: float(value) for name, value in state.totals.items()}
    metrics.write(done, {
      'epoch': epoch, 'split': 'train', 'loss': totals['loss'] / totals['examples'],
      'accuracy': totals['correct'] / totals['examples'], 'seconds': round(clock.seconds, 3)})
    if len(built.splits.validation):
      seen = built.evaluate('validation', state.variables(), state.own)
      metrics.write(done, {'epoch': epoch, 'split': 'validation', 'loss': seen['loss'], 'accuracy': seen['accuracy']})
      if done >= built.settled and seen['accuracy'] > about['best_accuracy']:
        about.update(best_accuracy=seen['accuracy'], best_epoch=epoch)
        best.update(_snapshot(state))
    clock.start(state)

  def save(state: TrainState) -> None:
    clock.stop(state)
    checkpoints.save(
      place, int(state.step), {'state': state, 'best': best}, keep=config.checkpoint.keep,
      about={**about, 'seconds': clock.seconds, 'lines': metrics.lines})
    clock.start(state)

  def report(done: int, speed: float) -> None:
    progress({
      'step': done, 'steps': built.steps, 'phase': 'training', 'steps_per_second': speed,
      'seconds_left': (built.steps - done) / speed if speed else None})

  progress({'step': int(state.step), 'steps': built.steps, 'phase': 'compiling'})
  try:
    with loop.catch_signals() as stop:
      state = loop.fit(
        state, advance, built.batches(config.seed, int(state.step)),
        loop.Plan(built.steps, built.epoch_steps, config.checkpoint.seconds),
        end_epoch=end_epoch, save=save, report=report, stop=stop,
        diagnose=lambda state, step, leaf: built.diagnose(state, config.seed, step, leaf))
  finally:
    metrics.close()
  progress({'step': built.steps, 'steps': built.steps, 'phase': 'evaluating'})
  figures = _figures(config, built, folder, state, best, about, clock.seconds)
  surgery, numbers = _teachers(config, finished)
  frozen = teacher(config, surgery)
  if frozen is not None:
    figures['metrics']['teacher/test/accuracy'] = teaching.accuracy(
      frozen, numbers, built.normalize, built.splits.test)
  return figures


def _beginning(
  config: ml_collections.ConfigDict, finished: Finished
) -> tuple[Variables | None, Variables | None, Surgery]:
  """What a unit trains, what ranks its masks before training (None for new weights, and for the same), and what the
  runs before have changed of the network.
  """
  parent = unit.prerequisites(config).get('start')
  if parent is None:
    weights, surgery = _imported(config)
    return weights, None, surgery
  last, _, surgery = finished(parent)
  step = _rewind_step(config)
  if step is None:
    return (None if config.start.rewind == 'fresh' else last), last, surgery
  return _weights_after(step, parent, finished), last, surgery


def _smaller(
  config: ml_collections.ConfigDict, begun: Variables | None, ranked: Variables | None, inherited: Surgery = NOTHING,
  teachers: Surgery = NOTHING, known: Surgery = NOTHING, *, measures: bool = True,
  search: Callable[..., tuple[Any, Variables]] = searching.rehearse,
) -> tuple[Program, TrainState]:
  """The program and its first state, with the network changed as the config says, by what ranks it.

  Args:
    config: complete.
    begun: what is trained, None for new weights; of the network that is left of the runs before.
    ranked: what channels and ranks are found by, None for the same.
    inherited: what the runs before have changed.
    teachers: what was changed of the teacher's network.
    known: all of this run's surgery, where it was found before.
    measures: whether channels and ranks may be chosen by what takes seconds to measure.
    search: (config, program, variables) -> what a search removes, and the variables that it trained.
  Returns:
    Program and state.
  """
  built = program(config, inherited, teachers)
  kinds = [each for each in (removing, factorizing) if each.asked(config)]
  if not kinds:
    return built, built.initial(config.seed, begun, ranked)
  begun = built.initial(config.seed, begun, None).variables()
  ranked = begun if ranked is None else built.initial(config.seed, ranked, None).variables()
  for kind in kinds:
    if kind is removing and searching.asked(config):  # it also knows the weights, and keeps both itself
      found, begun = search(config, built, begun)
      ranked = begun
    else:
      found = known.steps[len(built.surgery.steps)] if known.steps else kind.find(
        config, built, ranked, measures=measures)
    built = program(config, built.surgery.then(found), teachers)
    begun, ranked = (reshaping.cut(found, variables) for variables in (begun, ranked))
    if kind is removing:
      begun = removing.reestimated(config, built, begun)
  return built, built.initial(config.seed, begun, ranked)


def _weights_after(step: int, config: ml_collections.ConfigDict, finished: Finished) -> Variables:
  """The weights that a unit's chain of rewound runs had after a step of its first run: its steps are taken again.

  A run's steps are a function of its config, so that the weights are the same bits, and nothing has to be kept.
  """
  while config.start.config and _rewind_step(config) is not None:
    config = unit.prerequisites(config)['start']
  if searching.asked(config):
    raise specs.SpecError(
      f"start.rewind='{step}': {config.name} searches its channels first, so that its steps are not taken again; leave "
      "start.rewind='last'.")
  teachers, _ = _teachers(config, finished)
  built, state = _smaller(config, *_beginning(config, finished), teachers, finished(config)[2])
  if step > built.steps:
    raise specs.SpecError(f"start.rewind='{step}': the run to start from has {built.steps} steps only.")
  taught = _numbers(config, finished, built)
  key = devices.replicate(rngs.root(config.seed), built.mesh)
  for batch in itertools.islice(built.batches(config.seed, 0), step):
    state = built.advance(state, key, batch, taught)
  return {**state.collections, 'params': state.params}


def _rewind_step(config: ml_collections.ConfigDict) -> int | None:
  """The step that a run's weights are rewound to; None where they are not."""
  rewind = config.start.rewind
  if rewind not in ('last', 'fresh') and not rewind.isdecimal():
    raise specs.SpecError(f"start.rewind={rewind!r} is none of 'last', 'fresh' and a number of steps such as '0'.")
  return int(rewind) if rewind.isdecimal() else None


def _figures(
  config: ml_collections.ConfigDict, built: Program, folder: pathlib.Path, state: TrainState, best: PyTree,
  about: dict[str, Any], seconds: float,
) -> dict[str, Any]:
  """The test set is read here, once, for the last epoch and for the one that validation chose."""
  variables, own = state.variables(), state.own
  figures = {'test/accuracy': built.evaluate('test', variables, own)['accuracy']}
  if len(built.splits.validation):
    figures |= {
      'validation/accuracy': built.evaluate('validation', variables, own)['accuracy'],
      'best/validation/accuracy': about['best_accuracy'], 'best/epoch': about['best_epoch'],
      'best/test/accuracy': built.evaluate('test', best['variables'], best['own'])['accuracy'],
    }
  if config.correct_bias:
    figures |= teaching.corrected(
      lambda images: built.logits(variables, own, images), config.correct_bias, built.splits.validation,
      built.splits.test)
  view = built.compressed.transform.view(variables, own, None)
  encoded = built.compressed.transform.finalize(variables, own)
  spec = {'model': {**config.model.to_dict(), 'classes': built.splits.info.classes}, 'precision': config.precision}
  if built.surgery.steps:
    spec['surgery'] = built.surgery.to_json()
  path = folder / 'artifact.ljx'
  content = {'network': spec, 'variables': view, 'encoded': encoded, 'meta': {'id': unit.identify(config)}}
  stored = artifact.save(path, **content)
  plain = artifact.from_bytes(artifact.to_bytes(**content, entropy_coded=False)).sizes
  difference = _compare_with_stored(built, path, variables, own)
  counts = measure.count((built.apply, variables), built.splits.info.shape)
  measured = measure.layers(view, encoded)
  by_layer, whole = layers.figures(measured, {'coded': stored, 'plain': plain})
  dense_macs = sum(layout.macs for layout in built.compressed.layouts.values())
  left = sum(built.compressed.layouts[layer.path].macs * layer.density
             for layer in measured if layer.path in built.compressed.layouts)
  return {
    'metrics': figures | {
      'params': counts.params, 'nonzeros': sum(layer.nonzeros for layer in measured), 'macs': counts.macs,
      # Multiply-adds with weights that are not zero, if a machine could leave out the others.
      'nonzero macs': counts.macs - dense_macs + round(left), 'bytes': stored.total,
      'seconds': round(seconds, 3), 'step_ms': round(1e3 * seconds / built.steps, 3),
      'stored/logit difference': difference,
    } | whole | (removing.latencies(built, view) if built.surgery.steps else {}) | (
      searching.figures(folder) if searching.asked(config) else {}),
    'layers': by_layer,
    'versions': devices.versions(),
    'device': f'{devices.topology(built.mesh)["kind"]} x {built.mesh.size}, {devices.cores()} cores',
  }


def _compare_with_stored(built: Program, path: pathlib.Path, variables: Variables, own: Own) -> float:
  """Largest difference between the logits of the stored network and of the simulation, on held test images.

  Raises:
    ArithmeticError: the stored network is another one than the simulated.
  """
  images = jnp.asarray(built.splits.test.take(np.arange(min(HELD, len(built.splits.test))))[0])
  simulated = built.logits(variables, own, images)
  stored = built.stored_logits(artifact.load(path), images)
  difference = float(jnp.max(jnp.abs(stored - simulated)))
  if not difference <= 1e-5 * float(1 + jnp.max(jnp.abs(simulated))):
    raise ArithmeticError(f'{path}: its logits differ from the simulation by {difference}; do not use the file')
  return difference


def _snapshot(state: TrainState) -> dict[str, Any]:
  """What evaluation needs of a state, as a copy: the step donates the state's own buffers."""
  return jax.tree.map(jnp.copy, {'variables': state.variables(), 'own': state.own})


def _keep_topology(folder: pathlib.Path, built: Program) -> None:
  """Write on what devices the run started; going on elsewhere gives other bits, so that it is refused."""
  path, now = folder / 'topology.json', devices.topology(built.mesh)
  if not path.exists():
    unit.write(path, json.dumps(now))
    return
  before = json.loads(path.read_text())
  if before != now:
    raise specs.SpecError(
      f'{folder} was begun on {before["devices"]} x {before["kind"]} and this is {now["devices"]} x {now["kind"]}: '
      f'resuming would change its bits; set --config.devices={before["devices"]} there, or remove the folder.')


class _Clock:
  """Seconds spent in steps, the first step of the process (which compiles), evaluation and saving apart."""

  def __init__(self, seconds: float):
    self.seconds, self._warm = seconds, False
    self._since: float | None = None

  def start(self, state: TrainState) -> None:
    if not self._warm:
      jax.block_until_ready(state.step)
      self._warm = True
    if self._since is None:
      self._since = time.monotonic()

  def stop(self, state: TrainState) -> None:
    jax.block_until_ready(state.step)
    if self._since is not None:
      self.seconds += time.monotonic() - self._since
      self._since = None
