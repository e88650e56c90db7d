"""Runs that start from imported weights: what they start with, what enters their identity, what is refused."""
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configuration, import_weights, starting, training, unit
from lightjax import interop, models
from lightjax.core import specs

ARGUMENTS = {'width': 0.25, 'shortcut': 'projection'}


def silent(_):
  """No progress bar."""


def imported(folder, classes=4, seed=0, **arguments):
  """A folder with random weights of a small network, and its variables."""
  model = models.create('resnet8', classes=classes, **ARGUMENTS)
  shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), jnp.zeros((1, 8, 8, 3)))
  rng = np.random.default_rng(seed)
  variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
  folder.mkdir()
  np.savez(folder / 'w.npz', **interop.to_torch(model, variables))
  import_weights.write(folder, folder / 'w.npz', 'resnet8', arguments={'classes': classes, **ARGUMENTS, **arguments})
  return variables


@pytest.fixture
def config(tiny, tmp_path):
  """A run of that network from these weights."""
  def make(**changes):
    made = tiny().unlock()
    made.model = {'name': 'resnet8', **ARGUMENTS}
    made.data.shape = (8, 8, 3)
    made.epochs = 1
    return configuration.override(made.lock(), [
      ('start.weights', str(tmp_path / 'weights')),
      *((field.replace('__', '.'), value) for field, value in changes.items())])

  return make


def begun(config):
  """The variables before the first step."""
  return training.program(config).initial(0, training._imported(config)[0], None).variables()


def equal(one, other):
  return jax.tree.structure(one) == jax.tree.structure(other) and jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_a_run_starts_with_the_imported_network(config, tmp_path):
  variables = imported(tmp_path / 'weights')
  program = training.program(config())
  state = program.initial(0, training._imported(config())[0], None)
  assert equal(jax.device_get(state.variables()), variables)
  images, labels = program.splits.test.take(np.arange(40))
  network = models.create('resnet8', classes=4, **ARGUMENTS)
  logits = program.logits(state.variables(), state.own, jnp.asarray(images))
  seen = program.evaluate('test', state.variables(), state.own)
  assert seen['accuracy'] == np.mean(np.argmax(logits, -1) == labels)
  normalized = (images / 255 - np.asarray(program.splits.info.mean)) / np.asarray(program.splits.info.std)
  wanted = jax.jit(network.apply)(variables, normalized.astype(np.float32))
  np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)


def test_a_smoke_run_from_weights_ends(config, tmp_path):
  imported(tmp_path / 'weights')
  result = unit.run(config(), tmp_path / 'units', silent)
  assert 0 <= result['metrics']['test/accuracy'] <= 1
  # A finished run is a start as well.
  again = config(start__weights=str(tmp_path / 'units' / result['id']))
  assert unit.identify(again) != result['id']
  training.check(again, silent)


def test_what_was_imported_enters_the_identity_and_where_it_lies_does_not(config, tmp_path):
  imported(tmp_path / 'weights')
  shutil.copytree(tmp_path / 'weights', tmp_path / 'elsewhere')
  imported(tmp_path / 'others', seed=1)
  one = unit.identify(config())
  assert unit.identify(config(start__weights=str(tmp_path / 'elsewhere'))) == one
  assert unit.identify(config(start__weights=str(tmp_path / 'others'))) != one
  assert unit.identify(config(start__weights='')) != one
  assert unit.identify(config(start__fresh=('classifier/.*',))) != one


def test_other_classes_are_refused_unless_the_classifier_is_fresh(config, tmp_path):
  variables = imported(tmp_path / 'weights', classes=7)
  with pytest.raises(specs.SpecError, match=r"classifier/bias \(7,\) \(here \(4,\)\).*start\.fresh"):
    training.check(config(), silent)
  fresh = config(start__fresh=('classifier/.*',))
  started, own = (jax.device_get(begun(each)) for each in (fresh, config(start__weights='')))
  assert equal(started['params']['classifier'], own['params']['classifier'])
  assert equal({**started['params'], 'classifier': 0}, {**variables['params'], 'classifier': 0})
  assert equal(started['batch_stats'], variables['batch_stats'])


def test_statistics_of_fresh_norms_are_fresh(config, tmp_path):
  variables = imported(tmp_path / 'weights')
  started, own = (jax.device_get(begun(each)) for each in (
    config(start__fresh=('stage3/.*',)), config(start__weights='')))
  for collection in ('params', 'batch_stats'):
    assert equal(started[collection]['stage3'], own[collection]['stage3'])
    assert equal(started[collection]['stage2'], variables[collection]['stage2'])


@pytest.mark.parametrize('changes,message', [
  ({'start__fresh': ('fc/.*',)}, r"start\.fresh: 'fc/\.\*' matches no parameter; nearest: '"),
  ({'start__weights': '/nowhere'}, r'/nowhere.*no artifact\.ljx.*import_weights'),
  ({'start__weights': '', 'start__fresh': ('classifier/.*',)}, r'start\.fresh without a start'),
  ({'start__config': 'lenet300.py'}, r'start\.weights and start\.config are both set'),
  ({'model__width': 0.5}, r'classifier/kernel \(16, 4\) \(here \(32, 4\)\).* more; start from the same network'),
])
def test_errors_tell_the_way_out(config, tmp_path, changes, message):
  imported(tmp_path / 'weights')
  with pytest.raises(specs.SpecError, match=message):
    made = config(**changes)
    unit.identify(made)
    starting.begin(starting.read(tmp_path / 'weights').variables, begun(config(**changes, start__weights='')),
                   made.start.fresh)


def test_a_network_with_other_arguments_than_the_weights_is_warned_of(config, tmp_path):
  imported(tmp_path / 'weights')
  with pytest.warns(UserWarning, match="'projection'"):
    training._imported(config(model__shortcut='identity'))
