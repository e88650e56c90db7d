"""The command: what users get wrong ends in one readable line and an exit code; signals save and resume."""
import errno
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from ml_collections import config_flags

from experiments import commands, configuration, training, unit
from lightjax import artifact
from lightjax.train import checkpoints, health

TINY = pathlib.Path(__file__).with_name('tiny_config.py')


def silent(_):
  """No progress bar."""


def command(*arguments):
  return [sys.executable, '-m', 'experiments.run', *map(str, arguments)]


def one_line(text):
  """The only line of an error, progress lines apart."""
  lines = [line for line in text.splitlines() if not line.startswith('tiny_config: ')]
  assert len(lines) == 1 and 'Traceback' not in text, text
  return lines[0]


HERE = f'--config={TINY}', '--workdir=run'
MISTAKES = {
  'unknown flag': ((*HERE, '--smok'), ("'smok'", 'smoke')),
  'argument': ((*HERE, 'more'), ("'more'", '--name=value')),
  'misspelt field': ((*HERE, '--config.compress.prune.sparsty=0.5'), (
    "no field 'compress.prune.sparsty'", "nearest: 'compress.prune.sparsity'")),
  'unknown field': ((*HERE, '--config.nothing.at.all=1'), ("no field 'nothing.at.all'",)),
  'wrong type': ((*HERE, '--config.epochs=many'), ('config.epochs', 'many')),
  'missing config': (('--config=lenet30.py', '--workdir=run'), ('--config=lenet30.py: no such file', "'lenet300.py'")),
  'missing config with a field': (
    ('--config=lenet30.py', '--workdir=run', '--config.epochs=3'), ('--config=lenet30.py: no such file', 'lenet300')),
  'no config': (('--workdir=run',), ('--config is missing', 'experiments/configs')),
  'no workdir': (HERE[:1], ('--workdir is missing',)),
  'no Python': (('--config=/dev/null.py', '--workdir=run'), ('/dev/null.py: no such file',)),
}


@pytest.fixture
def line_of(monkeypatch, capsys):
  """Runs a command line in this process as far as its flags; gives its one line."""

  def run(arguments):
    argv = ['run', *arguments]
    fresh = flags.FlagValues()
    monkeypatch.setattr(sys, 'argv', argv)  # ml_collections looks for the overridden fields there
    monkeypatch.setattr(flags, 'FLAGS', fresh)
    config_flags.DEFINE_config_file('config', None, 'As experiments/configs/lenet300.py.', flag_values=fresh)
    flags.DEFINE_string('workdir', None, 'A folder.', flag_values=fresh)
    flags.DEFINE_bool('smoke', False, 'Short.', flag_values=fresh)
    flags.mark_flags_as_required(['config', 'workdir'], flag_values=fresh)
    with pytest.raises(SystemExit) as caught:
      commands._parse(argv, most_arguments=0)
    assert caught.value.code == 2
    return one_line(capsys.readouterr().err)

  return run


@pytest.mark.parametrize('arguments, parts', MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_flags_is_one_line(arguments, parts, line_of):
  line = line_of(arguments)
  assert line.startswith('error: ') and '\\' not in line
  for part in parts:
    assert part in line


def test_a_config_that_python_cannot_read_names_the_line(tmp_path, line_of):
  (tmp_path / 'bad.py').write_text('from experiments import configuration\nconfig = (\n')
  assert 'bad.py, line 2' in line_of((f'--config={tmp_path}/bad.py', '--workdir=run'))


@pytest.fixture
def guarded(tmp_path, capsys):
  """Runs a config as the command does; (exit code, its one line)."""

  def run(config, folder='run'):
    code = commands._guarded(lambda: unit.run_in(tmp_path / folder, config, tmp_path / 'units', silent) and 0)
    return code, one_line(capsys.readouterr().err)

  return run


WRONG = {
  'network': ({'model__name': 'lenet30'}, ("model.name='lenet30'", "'lenet300'")),
  'criterion': (
    {'compress__stages': ('prune',), 'compress__prune__criterion': 'magnitud'}, ("'magnitud'", "'magnitude'")),
  'module': (
    {'compress__stages': ('prune',), 'compress__prune__criterion': 'no_file:mine'}, ("'no_file'", 'PYTHONPATH')),
  'stage': ({'compress__stages': ('prun',)}, ("'prun'", 'compress.prun')),
  'sparsity': ({'compress__stages': ('prune',), 'compress__prune__sparsity': 1.5}, ('compress.prune', 'sparsity=1.5')),
  'bits': ({'compress__stages': ('weights',), 'compress__weights__bits': 99}, ('compress.weights', '99')),
  'fractions': ({'compress__stages': ('prune',), 'compress__prune__end': 0.05}, ('compress.prune', 'begin=0.1')),
  'data set': ({'data__name': 'no_such_set'}, ('no_such_set',)),
  'data folder': ({'data__name': 'idx', 'data__dir': '/nowhere/at/all'}, ('/nowhere/at/all', 'dir')),
  'teacher': ({'distill__config': 'no_teacher.py'}, ("'no_teacher.py'", 'no such file')),
  'batch': ({'batch_size': 5000}, ('batch_size', '5000')),
  'uneven batch': ({'batch_size': 15, 'devices': 2}, ('batch_size=15', 'devices=2')),
  'devices': ({'devices': 64}, ('devices=64',)),
  'epochs': ({'epochs': 0}, ('epochs=0',)),
  'precision': ({'precision': 'float8'}, ("'float8'", "'bfloat16'")),
  'path': ({'data__path': 'disk'}, ("'disk'", "'stream'")),
  'schedule': ({'learning_rate__schedule': 'cosin'}, ("'cosin'", "'cosine'")),
  'optimizer': ({'optimizer__name': 'adam'}, ("'adam'", "'adamw'")),
  'augmentation': ({'data__augment': ('flipp',)}, ("'flipp'", "'flip'")),
}


@pytest.mark.parametrize('changes, parts', WRONG.values(), ids=WRONG)
def test_a_wrong_config_is_one_line_and_takes_no_folder(changes, parts, tiny, guarded, tmp_path):
  config = tiny(**changes).unlock()
  if 'data__name' in changes:
    for option in ('shape', 'classes', 'examples', 'test_examples'):  # of synthetic images
      del config.data[option]
  code, line = guarded(config)
  assert code == 2
  for part in parts:
    assert part in line
  assert not (tmp_path / 'run' / 'config.json').exists()
  assert not (tmp_path / 'units').exists()


def test_a_workdir_below_a_file_is_one_line(tiny, guarded, tmp_path):
  (tmp_path / 'file').write_text('')
  code, line = guarded(tiny(), 'file/run')
  assert code == 1 and f'{tmp_path}/file' in line and 'irectory' in line


def _no_space(*arguments, **keywords):
  raise OSError(errno.ENOSPC, 'No space left on device', 'the/file')


@pytest.mark.parametrize('owner, name', [(checkpoints, '_write'), (unit, 'write'), (artifact, 'save')])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(owner, name, tiny, guarded, tmp_path, monkeypatch):
  config = tiny(epochs=1)
  with monkeypatch.context() as patch:
    patch.setattr(owner, name, _no_space)
    assert guarded(config) == (1, 'error: the/file: No space left on device')
  assert unit.run_in(tmp_path / 'run', config, tmp_path / 'units', silent)['metrics']['test/accuracy'] >= 0


def test_a_wrong_compiler_is_one_line(tiny, guarded, monkeypatch):
  monkeypatch.setattr(health, 'wrong_rows', lambda: 7232)
  code, line = guarded(tiny())
  assert code == 1 and '7232' in line and 'jaxlib!=0.10.2' in line


def test_a_run_that_diverges_is_one_line(tiny, guarded):
  code, line = guarded(tiny(learning_rate__peak=1e30, learning_rate__schedule='constant'))
  assert code == 1 and line.startswith('error: step ') and 'lower the learning rate' in line


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('trained') / 'run'
  unit.run_in(folder, configuration.load(str(TINY)), folder / 'units', silent)
  return folder


@pytest.fixture
def done(trained, tmp_path):
  """A folder with a finished run, to be tampered with."""
  shutil.copytree(trained, tmp_path / 'run')
  return tmp_path / 'run'


def test_another_config_in_the_same_folder_names_the_field(done, tiny, guarded):
  code, line = guarded(tiny(weight_decay=0.5, seed=3))
  assert code == 2
  for part in ('weight_decay', '0.001', '0.5', 'seed', str(done), '--workdir'):
    assert part in line


def test_two_processes_in_one_folder(done, tiny, guarded):
  (done / 'result.json').unlink()
  with unit._locked(done):
    code, line = guarded(tiny())
  assert code == 1 and 'another process works in' in line and str(done) in line


def test_other_devices_are_refused(done, tiny, guarded):
  (done / 'result.json').unlink()
  before = json.loads((done / 'topology.json').read_text())
  (done / 'topology.json').write_text(json.dumps({**before, 'devices': 8}))
  code, line = guarded(tiny())
  assert code == 2 and '8 x cpu' in line and '1 x cpu' in line and '--config.devices=8' in line


def test_a_checkpoint_of_other_code_is_one_line(done, tiny, guarded, monkeypatch):
  (done / 'result.json').unlink()
  original = training._snapshot
  monkeypatch.setattr(training, '_snapshot', lambda state: {**original(state), 'new': state.step})
  code, line = guarded(tiny())
  assert code == 1 and "['new']" in line and 'remove the folder' in line


def test_a_teacher_without_its_last_checkpoint_teaches_nobody(tiny, guarded, tmp_path):
  teacher, root = tiny(), tmp_path / 'units'
  unit.run(teacher, root, silent)
  place = root / unit.identify(teacher) / 'checkpoints'
  assert checkpoints.steps(place) == [20, 21]
  (place / 'step_00000021' / 'manifest.json').unlink()
  with pytest.warns(UserWarning, match='passing over'):
    code, line = guarded(tiny(distill__config=str(TINY)))
  assert code == 1 and 'no sound checkpoint of the last step' in line and f'remove {place.parent}' in line


def test_ctrl_c_outside_the_steps_is_one_line(capsys):
  def interrupted():
    raise KeyboardInterrupt

  assert commands._guarded(interrupted) == 128 + signal.SIGINT
  assert 'the same command goes on' in one_line(capsys.readouterr().err)


def test_a_damaged_config_is_one_line(done, tiny, guarded):
  (done / 'result.json').unlink()
  (done / 'config.json').write_text('{')
  code, line = guarded(tiny())
  assert code == 1 and 'config.json is damaged' in line


SLOW = '''
import sys, time
from experiments import commands, run, training
original = training.program

def program(config, *arguments):
  built = original(config, *arguments)

  def advance(*arguments):
    time.sleep(0.05)
    return built.advance(*arguments)

  return built._replace(advance=advance)

training.program = program
commands.launch(run.main)
'''


@pytest.mark.slow
def test_signals_save_and_the_same_command_goes_on(tmp_path):
  script = tmp_path / 'slow.py'
  script.write_text(SLOW)
  arguments = (f'--config={TINY}:argument', f'--workdir={tmp_path}/run', '--config.checkpoint.seconds=1000')
  reached = 0
  for number in (signal.SIGTERM, signal.SIGINT):
    process = subprocess.Popen([sys.executable, script, *arguments], stderr=subprocess.PIPE, text=True)
    _wait_for_steps(tmp_path / 'run' / 'metrics.jsonl', process, at_least=reached // 7 * 2 + 2)
    process.send_signal(number)
    asked = time.monotonic()
    _, text = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == 128 + number
    line = one_line(text)
    assert f'stopped by {number.name} after step' in line and 'the same command goes on' in line
    (saved,) = checkpoints.steps(tmp_path / 'run' / 'checkpoints')[-1:]
    assert f'step {saved}' in line and reached < saved < 21
    reached = saved
  last = subprocess.run(command(*arguments), capture_output=True, text=True)
  assert last.returncode == 0, last.stderr
  assert 'test/accuracy' in last.stdout and 'artifact.ljx' in last.stdout
  again = subprocess.run(command(*arguments), capture_output=True, text=True)
  assert (again.returncode, again.stdout) == (0, last.stdout)


def _wait_for_steps(path, process, *, at_least):
  """Until a run has written that many lines of metrics: two an epoch."""
  deadline = time.monotonic() + 100
  while not path.exists() or len(path.read_text().splitlines()) < at_least:
    assert process.poll() is None and time.monotonic() < deadline, process.communicate()
    time.sleep(0.02)
