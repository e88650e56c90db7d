"""A unit is found by what it computes: what enters its identity and what does not, and what is on disk."""
import importlib
import json
import pathlib
import shutil
import sys

import pytest

from experiments import configuration, stages, unit
from lightjax.core import specs
from lightjax.train import loop

TINY = str(pathlib.Path(__file__).with_name('tiny_config.py'))
TEACHER = {'distill__config': TINY}


def silent(_):
  """No progress bar."""


SAME = {
  'name': {'name': 'another'},
  'places': {'data__dir': '/elsewhere', 'data__workers': 2, 'data__path': 'stream'},
  'logging': {'tensorboard': True},
  'checkpoints': {'checkpoint__seconds': 5.0, 'checkpoint__keep': 9},
  'devices': {'devices': 2},
  'an unlisted stage': {'compress__prune__sparsity': 0.5},
}
OTHER = {
  'seed': {'seed': 1}, 'epochs': {'epochs': 4}, 'a listed stage': {'compress__stages': ('prune',)},
  'weight decay': {'weight_decay': 2e-3}, 'network': {'model__hidden': (16, 9)}, 'smoke': {'smoke': True},
  'learning rate': {'learning_rate__peak': 0.2}, 'optimizer': {'optimizer__name': 'adamw'},
  'validation': {'data__validation': 0.5}, 'data': {'data__examples': 160}, 'teacher': TEACHER,
  'start': {'start__config': TINY}, 'precision': {'precision': 'bfloat16'}, 'average': {'average': 0.9},
}


@pytest.mark.parametrize('changes', SAME.values(), ids=SAME)
def test_what_a_run_is_not_about_does_not_enter(tiny, changes):
  assert unit.identify(tiny(**changes)) == unit.identify(tiny())


@pytest.mark.parametrize('changes', OTHER.values(), ids=OTHER)
def test_what_changes_the_result_enters(tiny, changes):
  assert unit.identify(tiny(**changes)) != unit.identify(tiny())


def test_all_identities_differ_from_each_other(tiny):
  assert len({unit.identify(tiny(**changes)) for changes in OTHER.values()}) == len(OTHER)


@pytest.mark.parametrize('stage, before, after', [
  ('prune', {'begin': 0.0, 'sparsity': 1}, {'begin': 0, 'sparsity': 1.0}),
  ('prune', {}, {'pattern': 'unstructured'}), ('weights', {}, {'granularity': 'channel', 'scale': 'absmax'}),
])
def test_equal_numbers_and_defaults_of_a_stage_are_the_same_unit(tiny, stage, before, after):
  def identity(fields):
    config = tiny(compress__stages=(stage,)).unlock()
    config.compress[stage] = {**config.compress[stage].to_dict(), **fields}
    return unit.identify(config)

  assert identity(before) == identity(after)


def test_defaults_of_the_optimizers_function_do_not_enter(tiny):
  config = tiny().unlock()
  before = unit.identify(config)
  config.optimizer.momentum, config.model.hidden = 0.9, [16, 8]
  assert unit.identify(config) == before
  config.optimizer.momentum = 0.8
  assert unit.identify(config) != before


def test_the_order_of_stages_enters(tiny):
  one, other = (tiny(compress__stages=each) for each in (('prune', 'weights'), ('weights', 'prune')))
  assert unit.identify(one) != unit.identify(other)


def test_a_teacher_enters_by_its_own_identity(tiny):
  """Not by how it is written: an override that changes nothing makes no other unit."""
  plain = tiny(**TEACHER)
  same = tiny(**TEACHER, distill__overrides=(('name', 'x'), ('compress.prune.sparsity', 0.1)))
  other = tiny(**TEACHER, distill__overrides=(('epochs', 2),))
  assert unit.identify(plain) == unit.identify(same) != unit.identify(other)
  assert unit.essence(plain)['teacher'] == unit.identify(tiny())
  assert unit.essence(tiny(seed=3, **TEACHER))['teacher'] == unit.identify(tiny(seed=3))


def test_the_fields_of_distillation_enter_with_a_teacher_only(tiny):
  assert unit.identify(tiny(distill__weight=0.1)) == unit.identify(tiny())
  assert unit.identify(tiny(distill__weight=0.1, **TEACHER)) != unit.identify(tiny(**TEACHER))


def test_the_scheme_enters(tiny, monkeypatch):
  before = unit.identify(tiny())
  monkeypatch.setattr(unit, 'SCHEME', unit.SCHEME + 1)
  assert unit.identify(tiny()) != before


CRITERION = '''import jax.numpy as jnp


def mine(weight):
  return jnp.abs(weight) ** {power}


def another(weight):
  return {power} * weight
'''


@pytest.fixture
def criterion(tmp_path, monkeypatch):
  """Writes a file with a criterion of the user's own and imports it afresh."""
  monkeypatch.syspath_prepend(str(tmp_path))

  def write(text):
    (tmp_path / 'my_file_of_criteria.py').write_text(text)
    importlib.invalidate_caches()
    shutil.rmtree(tmp_path / '__pycache__', ignore_errors=True)
    sys.modules.pop('my_file_of_criteria', None)
    return importlib.import_module('my_file_of_criteria')

  yield write
  sys.modules.pop('my_file_of_criteria', None)


def test_editing_a_users_function_makes_another_unit(tiny, criterion):
  config = tiny(compress__stages=('prune',), compress__prune__criterion='my_file_of_criteria:mine')
  criterion(CRITERION.format(power=2))
  before = unit.identify(config)
  criterion('# A comment of the file.\n' + CRITERION.format(power=2))
  assert unit.identify(config) == before
  criterion(CRITERION.format(power=3))
  assert unit.identify(config) != before


def test_a_users_own_criterion_is_trained_with(tiny, criterion, tmp_path):
  criterion(CRITERION.format(power=2))
  own = tiny(compress__stages=('prune',), compress__prune__criterion='my_file_of_criteria:mine')
  result = unit.run(own, tmp_path / 'units', silent)
  # Squares rank as magnitudes do, so that both runs must end alike.
  same = unit.run(tiny(compress__stages=('prune',)), tmp_path / 'units', silent)
  assert result['id'] != same['id']
  assert result['metrics'] | {'seconds': 0, 'step_ms': 0} == same['metrics'] | {'seconds': 0, 'step_ms': 0}
  assert result['metrics']['nonzeros'] < 0.5 * result['metrics']['params']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  root = tmp_path_factory.mktemp('trained')
  return root, unit.run(configuration.load(TINY), root, silent)


def test_a_result_says_what_a_row_needs(trained):
  root, result = trained
  assert unit.result(root, result['id']) == {key: value for key, value in result.items() if key != 'sha256'}
  for metric in ('test/accuracy', 'best/test/accuracy', 'params', 'nonzeros', 'macs', 'bytes', 'seconds'):
    assert metric in result['metrics']
  # 64 x 16 + 16 x 8 + 8 x 4 weights, 16 + 8 + 4 biases.
  assert result['metrics']['params'] == 1024 + 128 + 32 + 28
  assert result['metrics']['macs'] == 1024 + 128 + 32
  assert result['metrics']['bytes'] == (root / result['id'] / 'artifact.ljx').stat().st_size
  assert result['versions']['jaxlib'] and 'xla_flags' in result['versions']


@pytest.mark.parametrize('text', [
  '', '{', '[]', '3', 'null', '"x"', '{}', '\x00', '{"sha256": 1}'])
def test_a_damaged_result_counts_as_none(trained, tmp_path, text):
  root, result = trained
  shutil.copytree(root / result['id'], tmp_path / result['id'])
  (tmp_path / result['id'] / 'result.json').write_text(text)
  with pytest.warns(UserWarning, match='damaged'):
    assert unit.result(tmp_path, result['id']) is None


def test_an_edited_result_counts_as_none_and_is_made_again_without_a_step(trained, tmp_path, monkeypatch):
  root, result = trained
  shutil.copytree(root / result['id'], tmp_path / result['id'])
  path = tmp_path / result['id'] / 'result.json'
  written = json.loads(path.read_text())
  written['metrics']['test/accuracy'] = 1.5
  path.write_text(json.dumps(written))
  with pytest.warns(UserWarning, match='checksum'):
    again = unit.run(configuration.load(TINY), tmp_path, silent)
  assert again['metrics'] == result['metrics']  # its seconds too: no step was taken


def test_no_result_where_there_is_no_folder(tmp_path):
  assert unit.result(tmp_path, 'nowhere') is None


def test_the_best_epoch_is_none_before_the_last_move_of_a_mask(tiny, tmp_path):
  config = tiny(compress__stages=('prune',), compress__prune__sparsity=1.0, compress__prune__end=0.9)
  metrics = unit.run(config, tmp_path, silent)['metrics']
  # At first nothing much is pruned, in the end all is: validation would choose an early epoch.
  assert metrics['best/epoch'] == 3
  assert metrics['best/test/accuracy'] == metrics['test/accuracy'] == 0.25


def test_a_step_that_is_not_finite_names_the_step_and_the_layer(tiny, tmp_path):
  config = tiny(learning_rate__peak=1e30, learning_rate__schedule='constant')
  with pytest.raises(loop.Diverged, match=r'^step [23]: .*(fc[123]|loss).*lower the learning rate'):
    unit.run(config, tmp_path, silent)
  assert not (tmp_path / unit.identify(config) / 'result.json').exists()


def test_every_stage_of_the_library_can_be_named():
  assert set(stages.__all__) == {
    'prune', 'weights', 'activations', 'binary_weights', 'binary_activations', 'trained_ternary', 'dorefa_weights',
    'share', 'max_norm'}


def test_a_run_that_teaches_itself_is_refused(tmp_path):
  circle = tmp_path / 'circle.py'
  circle.write_text(
    'from experiments import configuration\n\n\ndef get_config(arg=None):\n'
    "  config = configuration.load('lenet300.py').unlock()\n"
    f'  config.distill.config = {str(circle)!r}\n  return config\n')
  with pytest.raises(specs.SpecError, match='leads back to the run itself'):
    unit.identify(configuration.load(str(circle)))
