"""A run that is stopped at any moment and started again ends with the same bits as one that is not."""
import json
import pathlib
import signal
import subprocess
import sys
import types

import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments import configuration, training, unit
from lightjax import artifact
from lightjax.train import checkpoints, writers

TINY = pathlib.Path(__file__).with_name('tiny_config.py')
EVERYTHING = ('prune', 'weights', 'activations')
RUNS = {
  'dense': {},
  'prune': {'compress__stages': ('prune',)},
  'prune by gradient': {'compress__stages': ('prune',), 'compress__prune__criterion': 'saliency'},
  'prune by noise': {'compress__stages': ('prune',), 'compress__prune__criterion': 'random'},
  'weights': {'compress__stages': ('weights',)},
  'activations': {'compress__stages': ('activations',)},
  'everything': {'compress__stages': EVERYTHING},
  'average under adamw': {
    'compress__stages': ('prune',), 'average': 0.9, 'optimizer__name': 'adamw', 'learning_rate__peak': 0.01},
  'distilled': {
    'distill__config': str(TINY), 'distill__overrides': (('compress.stages', ('weights',)),),
    'compress__stages': ('prune',)},
  'started from another': {'start__config': str(TINY), 'compress__stages': ('prune',)},
  'two devices': {'compress__stages': EVERYTHING, 'devices': 2},
  'streamed and augmented': {'data__path': 'stream', 'data__augment': ('flip',)},
}
ALONE = ('prune', 'prune by gradient', 'weights', 'activations')  # 'everything' has them together
STEPS = 21  # three epochs of seven


class Killed(BaseException):
  """Stands for the end of the process: nothing catches it."""


def silent(_):
  """No progress bar."""


def kill_at(monkeypatch, owner, name, call, *, after=False):
  """Replace a function by one that ends the process at its n-th call, before or after its work."""
  original = getattr(owner, name)
  calls = []

  def replacement(*arguments, **keywords):
    calls.append(None)
    if len(calls) == call and not after:
      raise Killed
    result = original(*arguments, **keywords)
    if len(calls) == call:
      raise Killed
    return result

  monkeypatch.setattr(owner, name, replacement)


def kill_at_step(monkeypatch, killed, step):
  """End the process in place of a step of one config's run; what it needs first is trained in peace."""
  original = training.program

  def program(config, *arguments):
    built = original(config, *arguments)
    if unit.identify(config) != unit.identify(killed):
      return built

    def advance(state, *arguments):
      if int(state.step) == step:
        raise Killed
      return built.advance(state, *arguments)

    return built._replace(advance=advance)

  monkeypatch.setattr(training, 'program', program)


def save_seldom(monkeypatch, every):
  """Keep a checkpoint of some steps only, so that a resumed run repeats steps and cuts metrics."""
  original = checkpoints.save

  def save(folder, step, *arguments, **keywords):
    if step % every == 0 or step == STEPS:
      original(folder, step, *arguments, **keywords)

  monkeypatch.setattr(checkpoints, 'save', save)


def remains(folder):
  """Everything that must not depend on whether a run was stopped."""
  place = folder / 'checkpoints'
  last = checkpoints.steps(place)[-1]
  with ocp.StandardCheckpointer() as checkpointer:
    arrays = checkpointer.restore((place / f'step_{last:08d}' / 'arrays').absolute())
  manifest = checkpoints.read(place, last)
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  result = json.loads((folder / 'result.json').read_text())
  return {
    'artifact': (folder / 'artifact.ljx').read_bytes(),
    'arrays': {name: (array.dtype, array.shape, np.asarray(array).tobytes()) for name, array in arrays.items()},
    'described': manifest['arrays'], 'step': manifest['step'],
    'about': {name: value for name, value in manifest['about'].items() if name != 'seconds'},
    'lines': [{name: value for name, value in line.items() if name != 'seconds'} for line in lines],
    'metrics': {name: value for name, value in result['metrics'].items() if name not in ('seconds', 'step_ms')},
    'layers': result['layers'],
  }


def run_killed(config, root):
  with pytest.raises(Killed):
    unit.run(config, root, silent)


@pytest.mark.parametrize('name', [
  pytest.param(name, marks=pytest.mark.exhaustive if name in ALONE else ()) for name in RUNS])
def test_a_run_stopped_between_steps_ends_with_the_same_bits(name, tiny, tmp_path, monkeypatch):
  config = tiny(**RUNS[name])
  unit.run(config, tmp_path / 'whole', silent)
  for step, every in ((0, 1), (3, 5), (9, 5), (16, 1), (20, 6)):
    with monkeypatch.context() as patch:
      kill_at_step(patch, config, step)
      save_seldom(patch, every)
      run_killed(config, tmp_path / 'stopped')
  unit.run(config, tmp_path / 'stopped', silent)
  folder = unit.identify(config)
  assert remains(tmp_path / 'stopped' / folder) == remains(tmp_path / 'whole' / folder)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run with every stage that nothing stops: its config and what remains of it."""
  config = configuration.override(configuration.load(str(TINY)), [('compress.stages', EVERYTHING)])
  root = tmp_path_factory.mktemp('whole')
  unit.run(config, root, silent)
  return config, remains(root / unit.identify(config))


def proxy(patch, module, name):
  """The `os` or `shutil` that one module sees, as an object of its own that can be patched alone."""
  seen = types.SimpleNamespace(**vars(getattr(module, name)))
  patch.setattr(module, name, seen)
  return seen


def remove_half(patch):
  """End the process while old checkpoints are removed, some of their files gone."""
  seen = proxy(patch, checkpoints, 'shutil')

  def rmtree(path, **keywords):
    for file in [file for file in sorted(path.rglob('*')) if file.is_file()][::2]:
      file.unlink()
    raise Killed

  seen.rmtree = rmtree


MOMENTS = {
  'before the first checkpoint is complete': lambda patch: kill_at(patch, checkpoints, '_write', 1),
  'before a manifest': lambda patch: kill_at(patch, checkpoints, '_write', 8),
  'after a manifest': lambda patch: kill_at(patch, checkpoints, '_write', 8, after=True),
  'before a rename': lambda patch: kill_at(patch, proxy(patch, checkpoints, 'os'), 'replace', 9),
  'after a rename': lambda patch: kill_at(patch, proxy(patch, checkpoints, 'os'), 'replace', 9, after=True),
  'among removed files': remove_half,
  'before an evaluation': lambda patch: kill_at(patch, writers.Metrics, 'write', 3),
  'after an evaluation': lambda patch: kill_at(patch, writers.Metrics, 'write', 4, after=True),
  'before the last checkpoint': lambda patch: kill_at(patch, checkpoints, 'save', STEPS),
  'after the last checkpoint': lambda patch: kill_at(patch, checkpoints, 'save', STEPS, after=True),
  'before the artifact': lambda patch: kill_at(patch, artifact, 'save', 1),
  'after the artifact': lambda patch: kill_at(patch, artifact, 'save', 1, after=True),
  'before the config': lambda patch: kill_at(patch, unit, 'write', 1),
  'before the topology': lambda patch: kill_at(patch, unit, 'write', 2),
  'before the result': lambda patch: kill_at(patch, unit, 'write', 3),
}


@pytest.mark.parametrize('moment', MOMENTS)
def test_a_run_stopped_outside_a_step_ends_with_the_same_bits(moment, whole, tmp_path, monkeypatch):
  config, expected = whole
  with monkeypatch.context() as patch:
    MOMENTS[moment](patch)
    run_killed(config, tmp_path)
  unit.run(config, tmp_path, silent)
  folder = tmp_path / unit.identify(config)
  assert remains(folder) == expected
  assert not list(folder.rglob('partial_*'))


def test_what_is_done_is_returned_without_training(whole, tmp_path, monkeypatch):
  config, _ = whole
  first = unit.run(config, tmp_path, silent)
  kill_at(monkeypatch, training, 'train', 1)
  assert unit.run(config, tmp_path, silent) | {'sha256': None} == first | {'sha256': None}


KILLER = '''
import os, signal, sys
from experiments import commands, run, training
from lightjax.train import checkpoints

moment, at = sys.argv.pop(1), int(sys.argv.pop(1))
owner, name = {'save': (checkpoints, '_sync'), 'epoch': (training.writers.Metrics, 'write')}[moment]
original, calls = getattr(owner, name), []

def kill(*arguments, **keywords):
  calls.append(None)
  if len(calls) == at:
    os.kill(os.getpid(), signal.SIGKILL)
  return original(*arguments, **keywords)

setattr(owner, name, kill)
commands.launch(run.main)
'''


@pytest.mark.slow
def test_a_process_killed_inside_a_save_and_inside_an_epoch_ends_with_the_same_bits(tmp_path):
  script = tmp_path / 'killer.py'
  script.write_text(KILLER)

  def command(moment, at, folder):
    return subprocess.run(
      [sys.executable, str(script), moment, str(at), f'--config={TINY}', f'--workdir={tmp_path / folder}',
       f"--config.compress.stages={EVERYTHING}"], capture_output=True, text=True, timeout=300)

  assert command('save', 0, 'whole').returncode == 0
  assert command('save', 11, 'stopped').returncode == -signal.SIGKILL  # two calls a save: in the sixth
  assert (tmp_path / 'stopped' / 'checkpoints' / 'partial_00000006').exists()
  assert command('epoch', 3, 'stopped').returncode == -signal.SIGKILL
  assert command('save', 0, 'stopped').returncode == 0
  assert remains(tmp_path / 'stopped') == remains(tmp_path / 'whole')
