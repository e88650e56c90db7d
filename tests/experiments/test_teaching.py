"""Runs that are taught: by terms, by several teachers, by an artifact, by themselves; what is refused."""
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configuration, distillation_methods, teaching, training, unit
from experiments.tables import distillation_cifar100
from lightjax import artifact, measure, models
from lightjax.core import specs
from lightjax.train import checkpoints

TINY = pathlib.Path(__file__).with_name('tiny_config.py')
RESNET = {'name': 'resnet8', 'width': 0.25}


def silent(_):
  """No progress bar."""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return tmp_path_factory.mktemp('units')


@pytest.fixture
def taught(tiny, tmp_path):
  """The config of a student of a quarter of ResNet-8's width, with the terms of the papers, and of its teacher."""
  (tmp_path / 'teacher.py').write_text(
    'from experiments import configuration\n\n\ndef get_config(arg=""):\n'
    f'  config = configuration.load({str(TINY)!r}).unlock()\n'
    "  config.model = {'name': 'resnet8', 'width': 0.5}\n  config.data.shape = (8, 8, 3)\n  config.epochs = 1\n"
    '  return config\n')

  def make(terms=(), teacher=True, **changes):
    made = tiny().unlock()
    made.model, made.epochs, made.learning_rate.peak = dict(RESNET), 1, 1e-3
    made.data.shape = (8, 8, 3)
    made.distill.weight = 0.0
    made.distill.update(distillation_methods.terms())
    made.distill.terms = terms
    made.distill.config = str(tmp_path / 'teacher.py') if teacher else ''
    return configuration.override(made.lock(), [
      (field.replace('__', '.'), value) for field, value in changes.items()])

  return make


WITH_TEACHER = tuple(each for each in distillation_methods.terms() if each not in distillation_methods.ALONE)


def test_a_student_learns_by_all_terms_at_once_and_stores_none_of_what_they_own(taught, root):
  config = taught(WITH_TEACHER)
  result = unit.run(config, root, silent)
  metrics = result['metrics']
  assert 0 <= metrics['teacher/test/accuracy'] <= 1
  stored = artifact.load(root / result['id'] / 'artifact.ljx')
  student = models.create(**RESNET, classes=4)
  shapes = jax.eval_shape(lambda: student.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
  assert jax.tree.map(jnp.shape, stored.variables) == jax.tree.map(jnp.shape, shapes)
  counted = measure.count((student.apply, shapes), (8, 8, 3))
  assert (metrics['params'], metrics['macs']) == (counted.params, counted.macs)
  # Projectors, variances and memories are in the checkpoint, trained and moved.
  built = training.program(config)
  first = built.initial(0, None, None)
  last = checkpoints.latest(root / result['id'] / 'checkpoints', {'state': first, 'best': training._snapshot(first)})
  before, after = (jax.device_get(each.own) for each in (first, last[1]['state']))
  for name in ('hints', 'variational', 'review', 'contrastive', 'fsp'):
    moved = jax.tree.map(lambda one, other: not np.array_equal(one, other), before.trainable[-1][name],
                         after.trainable[-1][name])
    assert all(jax.tree.leaves(moved)), name
  memories = (before.state[-1]['contrastive']['student'], after.state[-1]['contrastive']['student'])
  assert memories[0].shape == (built.splits.info.sizes.train, 64) and not np.array_equal(*memories)
  np.testing.assert_allclose(np.linalg.norm(memories[1], axis=1), 1, rtol=1e-5)


def test_a_network_teaches_itself_and_a_peer_is_trained_beside_it(taught, root):
  config = taught(distillation_methods.ALONE, teacher=False)
  result = unit.run(config, root, silent)
  assert 'teacher/test/accuracy' not in result['metrics']
  built = training.program(config)
  own = built.initial(0, None, None).own
  peer = {**own.state[-1]['mutual'], 'params': own.trainable[-1]['mutual']}
  mine = built.initial(0, None, None).variables()
  assert jax.tree.structure(peer) == jax.tree.structure(mine)
  assert not np.array_equal(peer['params']['stem']['conv']['kernel'], mine['params']['stem']['conv']['kernel'])


def test_an_ensemble_averages_logits_and_precomputing_changes_nothing(taught, root):
  config = taught(distill__seeds=(0, 1), distill__weight=0.7)
  assert set(unit.prerequisites(config)) == {'teacher', 'teacher1'}
  accuracies = {}
  for precompute in (False, True):
    each = configuration.override(config, [('distill.precompute', precompute)])
    result = unit.run(each, root, silent)
    variables = artifact.load(root / result['id'] / 'artifact.ljx').variables
    accuracies[precompute] = variables
  for one, other in zip(*(jax.tree.leaves(each) for each in accuracies.values()), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  teacher = training.teacher(config)
  _, numbers = training._teachers(config, lambda needed: training.finished(root, needed))
  images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
  each = [teacher.apply(one, images) for one in numbers]
  np.testing.assert_allclose(teaching.average(teacher, numbers, images), (each[0] + each[1]) / 2, rtol=1e-5)
  assert not np.allclose(*each)


def test_an_artifact_teaches_as_the_run_that_wrote_it(taught, root, tmp_path):
  needed = unit.prerequisites(taught(distill__weight=0.5))['teacher']
  result = unit.run(needed, root, silent)
  folder = root / result['id']
  config = taught(('hints',), teacher=False, distill__weights=str(folder), distill__weight=0.5)
  assert unit.essence(config)['teacher'] != result['id']
  images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8))
  built = training.program(needed)
  teacher, numbers = training._stored_teacher(config)
  variables, own, _ = training.finished(root, needed)
  np.testing.assert_allclose(
    teacher.apply(numbers, built.normalize(images)), built.logits(variables, own, images), rtol=1e-4, atol=1e-5)
  training.check(config, silent)


def test_generations_and_assistants_are_taught_in_their_order(tiny, root):
  # Born-again: each generation is the same network, taught by the one before. An assistant is a generation of another.
  config = tiny(
    distill__config=str(TINY), distill__weight=0.5,
    distill__overrides=(('distill.config', str(TINY)), ('distill.weight', 0.5), ('model.hidden', (12,))))
  assistant = unit.prerequisites(config)['teacher']
  first = unit.prerequisites(assistant)['teacher']
  assert len({unit.identify(each) for each in (config, assistant, first)}) == 3 and not unit.prerequisites(first)
  last = unit.run(config, root, silent)
  results = [json.loads((root / unit.identify(each) / 'result.json').read_text()) for each in (assistant, first)]
  for taught_one, teacher_of_it in ((last, results[0]), (results[0], results[1])):
    assert taught_one['metrics']['teacher/test/accuracy'] == teacher_of_it['metrics']['test/accuracy']


@pytest.mark.exhaustive
@pytest.mark.parametrize('pair', distillation_cifar100.PAIRS, ids=' to '.join)
def test_the_terms_of_every_published_pair_fit_its_networks(pair):
  teacher, student = pair
  terms = [term for each in distillation_cifar100.PAIRS[pair].values() for term in each]
  config = configuration.override(configuration.load(f'distilled_cifar100.py:{student},{teacher}'), [
    ('distill.config', f'distilled_cifar100.py:{teacher}'), ('distill.terms', tuple(terms))])
  training.program(configuration.smoke(config))


@pytest.mark.parametrize('changes,message', [
  ({'terms': ('nothing',)}, r"distill\.terms names 'nothing'"),
  ({'terms': ('hints',), 'distill__hints__student': 'stage9'}, r"distill\.hints\.student='stage9' matches no module"),
  ({'terms': ('hints',), 'distill__hints__learner': 'none'},
   r'hints: student features \(2, 4, 4, 8\) and teacher features \(2, 4, 4, 16\)'),
  ({'terms': ('attention',), 'distill__attention__teacher': 'stage2'}, r"attention: .*'stage3'.*'stage2'"),
  ({'terms': ('hints',), 'distill__seeds': (0, 1)}, 'an ensemble and precomputed logits'),
  ({'terms': ('hints',), 'teacher': False}, r'distill\.hints: there is no teacher'),
  ({'distill__weight': 0.5, 'distill__overrides': (('data.classes', 3),)}, 'knows 3 classes and the data has 4'),
])
def test_errors_name_the_field_and_print_both_sides(taught, changes, message):
  config = taught(**{'terms': (), **changes})
  with pytest.raises(ValueError, match=message):
    training.program(config)


def test_augmented_images_have_no_logits_beforehand(taught, root):
  config = taught(distill__weight=0.5, distill__precompute=True, data__augment=('flip',))
  with pytest.raises(specs.SpecError, match=r'distill\.precompute: .*data\.augment'):
    unit.run(config, root, silent)


def test_a_part_of_the_images_is_balanced_and_of_the_labels_asked_for(tiny):
  whole = training.program(tiny()).splits
  part = training.program(tiny(data__only=(1, 3), data__per_class=5, batch_size=5)).splits
  assert sorted(part.train.labels()) == [1] * 5 + [3] * 5 and part.info.sizes.train == 10
  assert len(part.validation) == len(whole.validation) and len(part.test) == len(whole.test)
  with pytest.raises(specs.SpecError, match=r'data\.per_class=500: class 0 has'):
    training.program(tiny(data__per_class=500))


def test_the_bias_is_corrected_by_validation_alone():
  class Split:
    def __init__(self, labels):
      self.labels = np.array(labels)

    def __len__(self):
      return len(self.labels)

    def arrays(self):
      return np.eye(3)[self.labels].astype(np.float32), self.labels

  def logits(images):  # the class 2 is never predicted: its logit is 5 too low
    return images * 2 - np.array([0, 0, 5])
  found = teaching.corrected(logits, (2,), Split([0, 1, 2, 2]), Split([2, 2, 1, 0]))
  assert found['corrected/test/accuracy'] == 1.0 and 3 <= found['corrected/offset'] <= 7


def test_a_term_enters_the_identity_and_an_unused_one_does_not(taught):
  one = unit.identify(taught(('hints',)))
  assert unit.identify(taught(('hints',), distill__pkt__weight=1.0)) == one
  assert unit.identify(taught(('hints',), distill__hints__weight=1.0)) != one
  assert json.dumps(unit.essence(taught(('hints',))))
