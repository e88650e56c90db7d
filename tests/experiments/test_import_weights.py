import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import building, configuration, import_weights, starting
from lightjax import artifact, interop, models

ARGUMENTS = {'width': 0.5, 'shortcut': 'projection', 'classes': 10}


def written(path):
  """A file of weights of a small network, and its variables."""
  model = models.create('resnet8', **ARGUMENTS)
  shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)
  np.savez(path, **interop.to_torch(model, variables))
  return variables


def test_weights_come_back_bit_for_bit_with_their_network(tmp_path):
  variables = written(tmp_path / 'w.npz')
  import_weights.write(tmp_path / 'run', tmp_path / 'w.npz', 'resnet8', arguments=ARGUMENTS)
  found = starting.read(tmp_path / 'run')
  assert found.model == {'name': 'resnet8', **ARGUMENTS}
  assert jax.tree.all(jax.tree.map(np.array_equal, found.variables, variables))
  assert artifact.load(tmp_path / 'run' / 'artifact.ljx').meta['file'] == 'w.npz'


def test_the_network_of_the_spec_is_the_one_of_a_config(tmp_path):
  variables = written(tmp_path / 'w.npz')
  import_weights.write(tmp_path / 'run', tmp_path / 'w.npz', 'resnet8', arguments=ARGUMENTS)
  found = starting.read(tmp_path / 'run')
  config = configuration.default()
  config.model.update({name: value for name, value in found.model.items() if name != 'classes'})
  network = building.network(config, classes=found.model['classes'])
  x = np.ones((2, 32, 32, 3), np.float32)
  wanted = models.create('resnet8', **ARGUMENTS).apply(variables, x)
  assert np.array_equal(network.apply(found.variables, x), wanted)


def test_the_digest_is_that_of_what_was_imported(tmp_path):
  written(tmp_path / 'w.npz')
  for name in ('one', 'two'):
    import_weights.write(tmp_path / name, tmp_path / 'w.npz', 'resnet8', arguments=ARGUMENTS)
  assert starting.read(tmp_path / 'one').digest == starting.read(tmp_path / 'two').digest
  with np.load(tmp_path / 'w.npz') as file:
    np.savez(tmp_path / 'other.npz', **{name: 2 * value for name, value in file.items()})
  import_weights.write(tmp_path / 'two', tmp_path / 'other.npz', 'resnet8', arguments=ARGUMENTS)
  assert starting.read(tmp_path / 'one').digest != starting.read(tmp_path / 'two').digest


def command(*flags):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.import_weights', *flags], capture_output=True, text=True, check=False)


def test_the_command_writes_and_says_what_is_wrong_in_one_line(tmp_path):
  written(tmp_path / 'w.npz')
  place = (f'--weights={tmp_path}/w.npz', f'--workdir={tmp_path}/run', '--model=resnet8')
  done = command(*place, *(f'--argument={name}={value}' for name, value in ARGUMENTS.items()))
  assert done.returncode == 0, done.stderr
  assert starting.read(tmp_path / 'run').model == {'name': 'resnet8', **ARGUMENTS}
  wrong = command(*place, '--argument=shortcut=projection')
  assert wrong.returncode == 2
  assert 'bn1.weight (8,), not (16,)' in wrong.stderr
  assert wrong.stderr.count('\n') == 1


@pytest.mark.parametrize('pairs,message', [(['classes'], "'classes' is not of the form name=value")])
def test_arguments_are_pairs(pairs, message):
  with pytest.raises(ValueError, match=message):
    import_weights.arguments(pairs)
