"""Runs that change their network, start from one that was changed, and are taught by one."""
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configuration, reshaping, training, unit
from lightjax import artifact, data, models
from lightjax.core import specs, trees
from lightjax.factorize import Factorization
from lightjax.prune.surgery import Removal

TINY = str(pathlib.Path(__file__).with_name('tiny_config.py'))
REMOVED = (('epochs', 1), ('start.config', TINY), ('remove.importance', 'l1'), ('remove.ratio', 0.6))


def silent(_):
  """No progress bar."""


def test_channels_removed_then_low_rank_in_8_bits_and_a_teacher_that_was_changed(tiny, tmp_path):
  made = configuration.override(tiny(), [
    ('epochs', 1), ('start.config', TINY), ('start.overrides', REMOVED), ('distill.config', TINY),
    ('distill.overrides', REMOVED), ('factorize.method', 'channel'), ('factorize.ranks', 'energy(0.8)'),
    ('factorize.skip', ('not_kernel',)), ('compress.stages', ('weights',))])
  result = unit.run(made, tmp_path, silent)
  before = unit.result(tmp_path, unit.identify(unit.prerequisites(made)['start']))['metrics']
  assert result['metrics']['macs'] < before['macs'] and result['metrics']['params'] < before['params']
  stored = artifact.load(tmp_path / result['id'] / 'artifact.ljx')
  surgery = reshaping.Surgery.from_json(stored.network['surgery'])
  assert [type(step) for step in surgery.steps] == [Removal, Factorization]
  assert surgery == reshaping.read(tmp_path / result['id'])
  factors = [path for path in stored.encoded.parameters if path.endswith('/first')]
  assert factors  # the factors are what is stored in 8 bits

  fields = dict(stored.network['model'])
  variables, own, again = training.finished(tmp_path, made)
  built = training.program(made, again, reshaping.read(tmp_path / unit.identify(unit.prerequisites(made)['teacher'])))
  images = jnp.asarray(built.splits.test.take(np.arange(8))[0])
  view = built.compressed.transform.view(variables, own, None)
  inputs = data.normalize(images, mean=built.splits.info.mean, std=built.splits.info.std)
  np.testing.assert_allclose(
    surgery.apply(models.create(fields.pop('name'), **fields).apply)(stored.variables, inputs),
    built.apply(view, inputs), rtol=1e-5, atol=1e-5)


def test_a_stored_network_that_was_changed_is_a_start(tiny, tmp_path):
  first = configuration.override(tiny(), REMOVED)
  folder = tmp_path / unit.run(first, tmp_path, silent)['id']
  made = configuration.override(tiny(), [('start.weights', str(folder)), ('compress.stages', ('weights',))])
  built, state = training._rehearse(made)
  variables = training.finished(tmp_path, first)[0]
  for path, leaf in trees.flatten(variables).items():
    np.testing.assert_array_equal(trees.flatten({'params': state.params})[path], leaf)
  assert built.surgery == reshaping.read(folder)
  with pytest.raises(specs.SpecError, match='activations can be intercepted in a flax'):
    training._rehearse(configuration.override(made, [('compress.stages', ('activations',))]))


def test_a_surgery_is_plain_data_and_damage_is_named(tmp_path):
  with pytest.raises(ValueError, match='a step of a surgery is one of removal, factorization'):
    reshaping.Surgery.from_json([{'magic': {}}])
  (tmp_path / reshaping.FILE).write_text(json.dumps([{'removal': {'fc': 1}}]))
  with pytest.raises(OSError, match='is damaged'):
    reshaping.read(tmp_path)
  assert reshaping.read(tmp_path / 'none') == reshaping.NOTHING


@pytest.mark.parametrize(('field', 'value', 'message'), [
  ('method', 'magic', "factorize: method='magic'"), ('ranks', 'energi(0.5)', "factorize.ranks='energi'.*'energy'"),
  ('ranks', 'budget(0.01)', 'factorize: budget: 0.01 of'), ('only', ('fc9/.*',), "only: 'fc9/.*' matches no parameter"),
])
def test_mistakes_are_refused_before_anything_is_trained(tiny, tmp_path, field, value, message):
  made = configuration.override(tiny(), [
    ('factorize.method', 'channel'), ('factorize.ranks', 'energy(0.9)'), (f'factorize.{field}', value)])
  with pytest.raises(specs.SpecError, match=message):
    unit.run(made, tmp_path, silent)
  assert not list(tmp_path.glob('*/artifact.ljx'))
