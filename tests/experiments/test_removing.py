"""Runs that remove channels first: what they train is smaller, is stored as plain data, and resumes as it was."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configuration, removing, reshaping, training, unit
from experiments.engine import tables
from lightjax import artifact, data, models
from lightjax.core import specs

TINY = str(pathlib.Path(__file__).with_name('tiny_config.py'))


def silent(_):
  """No progress bar."""


@pytest.fixture
def config(tiny):
  """A run of what is left of the tiny network, trained before."""
  def make(**changes):
    return configuration.override(tiny(), [
      ('epochs', 1), ('start.config', TINY), ('remove.importance', 'l1'), ('remove.ratio', 0.6),
      *((field.replace('__', '.'), value) for field, value in changes.items())])

  return make


def test_what_is_left_is_smaller_and_comes_from_the_trained_network(config, tmp_path):
  made = config()
  metrics = unit.run(made, tmp_path, silent)['metrics']
  whole = unit.prerequisites(made)['start']
  before = unit.result(tmp_path, unit.identify(whole))['metrics']
  assert metrics['macs'] <= 0.6 * before['macs'] and metrics['params'] < before['params']
  assert metrics['speedup'] == metrics['whole/latency_ms'] / metrics['latency_ms']
  removal, = reshaping.read(tmp_path / unit.identify(made)).steps
  start = training.finished(tmp_path, whole)[0]
  _, state = training._smaller(made, start, None)
  for name, kept in (('fc1', 1), ('fc2', 1)):
    axes = {each.axis: list(each.indices) for each in removal.kept[f'params/{name}/kernel']}
    expected = start['params'][name]['kernel'][..., axes[kept]]
    expected = expected[axes[0]] if 0 in axes else expected
    np.testing.assert_array_equal(state.params[name]['kernel'], expected)


def test_the_artifact_is_loaded_with_plain_data_alone(config, tmp_path):
  made = config()
  result = unit.run(made, tmp_path, silent)
  stored = artifact.load(tmp_path / result['id'] / 'artifact.ljx')
  fields = dict(stored.network['model'])
  model = models.create(fields.pop('name'), **fields)
  apply = reshaping.Surgery.from_json(stored.network['surgery']).apply(model.apply)
  variables, own, surgery = training.finished(tmp_path, made)
  program = training.program(made, surgery)
  images = jnp.asarray(program.splits.test.take(np.arange(8))[0])
  info = program.splits.info
  np.testing.assert_allclose(
    apply(stored.variables, data.normalize(images, mean=info.mean, std=info.std)),
    program.logits(variables, own, images), rtol=1e-5, atol=1e-6)


def test_an_interrupted_run_goes_on_with_what_it_kept(config, tmp_path, monkeypatch):
  made = config()
  whole = unit.run(made, tmp_path / 'whole', silent)

  def stop(state):
    if state['phase'] == 'evaluating' and (tmp_path / 'stopped' / whole['id'] / reshaping.FILE).exists():
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    unit.run(made, tmp_path / 'stopped', stop)
  monkeypatch.setattr(removing, 'find', None)  # it is read, not found again
  monkeypatch.setattr(training, 'check', lambda config, progress: None)
  again = unit.run(made, tmp_path / 'stopped', silent)
  assert again['metrics']['test/accuracy'] == whole['metrics']['test/accuracy']
  assert reshaping.read(tmp_path / 'stopped' / again['id']) == reshaping.read(tmp_path / 'whole' / whole['id'])


def test_latency_is_measured_once_by_the_weights_that_are_trained(config, tmp_path, monkeypatch):
  """On a machine on which time goes with the channels of `fc1`."""
  ranked = []

  def latency(coupling, apply, variables, *inputs):
    ranked.append(variables)
    return lambda kept: float(np.mean(kept.get('fc1', True)))

  monkeypatch.setattr(removing.costs, 'latency', latency)
  made = config(remove__cost='latency', remove__ratio=0.5)
  unit.run(made, tmp_path, silent)
  (variables,) = ranked
  start = training.finished(tmp_path, unit.prerequisites(made)['start'])[0]
  jax.tree.map(np.testing.assert_array_equal, variables['params'], start['params'])
  removal, = reshaping.read(tmp_path / unit.identify(made)).steps
  kept = {each.axis: each.indices for each in removal.kept['params/fc1/kernel']}
  assert len(kept[1]) == 8


def test_the_removal_is_part_of_the_identity(config, tiny):
  identities = {unit.identify(each) for each in (
    config(), config(remove__ratio=0.5), config(remove__importance='l2'), config(remove__multiple=2))}
  assert len(identities) == 4
  assert unit.identify(tiny()) == unit.identify(
    configuration.override(tiny(), [('remove.ratio', configuration.default().remove.ratio)]))


def test_statistics_are_estimated_again_by_the_first_batches():
  """Of the first convolution: mean and variance of what it makes of the run's first two batches, by NumPy."""
  made = configuration.override(configuration.smoke(configuration.load('channels_fashion_mnist.py:resnet8')), [
    ('remove.importance', 'l1'), ('remove.exclude', ('stem/.*',)), ('remove.reestimate', 2)])
  built, state = training._smaller(made, None, None)
  seen = np.concatenate([np.asarray(removing.batch(made, built, index)[0]) for index in range(2)])
  made_of_them = np.asarray(jax.lax.conv_general_dilated(
    seen, state.params['stem']['conv']['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')))
  statistics = state.collections['batch_stats']['stem']['norm']
  np.testing.assert_allclose(statistics['mean'], made_of_them.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(statistics['var'], made_of_them.var((0, 1, 2)), rtol=1e-3)


def test_a_term_of_the_loss_drives_channels_to_zero(tiny, tmp_path):
  changes = [('epochs', 1), ('regularize.name', 'group_lasso'), ('regularize.only', ('fc1',))]
  norms = []
  for strength in (0.0, 0.1):
    made = configuration.override(tiny(), [*changes, ('regularize.strength', strength)])
    unit.run(made, tmp_path, silent)
    params = training.finished(tmp_path, made)[0]['params']
    norms.append({name: float(jnp.linalg.norm(params[name]['kernel'])) for name in ('fc1', 'fc2')})
  assert norms[1]['fc1'] < 0.8 * norms[0]['fc1']
  assert norms[1]['fc2'] > 0.8 * norms[0]['fc2']


@pytest.mark.parametrize(('changes', 'message'), [
  ({'regularize__name': 'growing'}, "regularize.name='growing' asks for kept"),
  ({'regularize__name': 'lasso'}, "regularize.name='lasso'.*group_lasso"),
  ({'regularize__name': 'batch_norm_l1'}, 'the groups have no BatchNorm scale'),
  ({'regularize__name': 'group_lasso', 'regularize__only': ('fc9',)}, "only: 'fc9' matches no group"),
  ({'remove__only': ('fc3',)}, "only: 'fc3' asks for fc3, of which no channel can be removed"),
  ({'remove__reestimate': 1}, "remove.reestimate=1: .* have no 'batch_stats'"),
  ({'remove__importance': 'l3'}, "remove.importance='l3'.*'l1'"), ({'remove__cost': 'flops'}, "remove.cost='flops'"),
  ({'remove__exclude': ('conv9/.*',)}, "exclude: 'conv9/.\\*' matches no parameter"),
  ({'remove__ratio': 0.001}, 'the fewest channels that are allowed cost'),
  ({'remove__importance': 'batch_norm_scale'}, 'has units without a scale'),
])
def test_mistakes_are_refused_before_anything_is_trained(config, tmp_path, changes, message):
  with pytest.raises(specs.SpecError, match=message):
    unit.run(config(**changes), tmp_path, silent)
  assert not list(tmp_path.glob('*/artifact.ljx'))


def test_the_table_has_every_network_and_importance_from_one_dense_run():
  table = tables.load('channels')
  configs = [tables.build(table, cell, seed=0) for cell in table.cells]
  dense = {unit.identify(each) for each in configs if not removing.asked(each)}
  assert len(configs) == 14 and len(dense) == 2
  for made in configs:
    if removing.asked(made):
      assert unit.identify(unit.prerequisites(made)['start']) in dense
