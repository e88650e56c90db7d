"""The networks of the binarization papers: counts of the references, names, what is between the layers."""
import csv
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from lightjax import models
from lightjax.measure.counts import count

PUBLISHED = pathlib.Path(experiments.__file__).parent / 'published'


def rows(name):
  with (PUBLISHED / f'{name}.csv').open(encoding='utf-8') as file:
    return list(csv.DictReader(file))


REFERENCES = {
  'own: BinaryConnect MNIST MLP 3x1024': ('binary_mlp', {}, 28),
  'own: BNN MNIST MLP 3x2048': ('binary_mlp', {'width': 2048}, 28),
  'own: BNN MNIST MLP 3x4096': ('binary_mlp', {'width': 4096}, 28),
  'own: BinaryConnect/BNN CIFAR-10 convnet': ('vgg_small', {}, 32),
}


def counted(name, side, **overrides):
  return count(models.create(name, **overrides), (side, side, 1 if side == 28 else 3))


@pytest.mark.parametrize('impl', REFERENCES)
def test_counts_are_those_of_the_reference(impl):
  (row,) = [row for row in rows('reference_counts') if row['impl'] == impl]
  name, overrides, side = REFERENCES[impl]
  counts = counted(name, side, **overrides)
  assert (counts.params, counts.macs, counts.statistics) == tuple(
    int(row[column]) for column in ('params_trainable', 'macs_conv_linear', 'norm_running_stats'))


def test_bi_real_net_counts_what_larqs_does():
  (row,) = [row for row in rows('binary') if row['network'] == 'Bi-Real Net 18']
  counts = counted('bi_real_resnet18', 224)
  assert f'{counts.params + counts.statistics} params' in row['note']  # Keras counts running statistics


def test_learned_shifts_are_three_and_one_a_channel():
  # 16 blocks: a shift of the input's channels; gamma, zeta and slope of the output's
  outputs = 4 * (64 + 128 + 256 + 512)
  inputs = 4 * 64 + (64 + 3 * 128) + (128 + 3 * 256) + (256 + 3 * 512)
  assert counted('react_resnet18', 224).params - counted('bi_real_resnet18', 224).params == inputs + 3 * outputs


@pytest.mark.parametrize('name', ['xnor_resnet18', 'bi_real_resnet18', 'react_resnet18'])
def test_figures_in_the_docstring_are_counted(name):
  (line,) = re.findall(rf'^  {name} (.*)$', models.binary_resnet.__doc__, re.MULTILINE)
  counts = counted(name, 224)
  assert line.split() == [f'{counts.params:,}', f'{counts.macs:,}']


@pytest.mark.parametrize('stem, size, final', [('imagenet', 224, 7), ('cifar', 32, 4), ('mnist', 28, 2)])
@pytest.mark.parametrize('name', ['xnor_resnet18', 'bi_real_resnet18'])
def test_stems_end_at_the_stated_resolution(name, stem, size, final):
  convolutions = [layer for layer in counted(name, size, stem=stem).layers if layer.kind == 'conv']
  assert convolutions[-1].output_shape == (final, final, 512)


def test_every_layer_of_the_perceptron_is_normalized_and_dropped_in_training_alone():
  model = models.create('binary_mlp', width=16, dropout=0.5, input_dropout=0.2)
  x = jnp.ones((4, 4, 4, 1))
  variables = model.init(jax.random.key(0), x)
  assert set(variables['params']) == {f'fc{i}{suffix}' for i in range(1, 5) for suffix in ('', '_norm')}

  def apply(key, train):
    return model.apply(variables, x, train, mutable=['batch_stats'], rngs={'dropout': jax.random.key(key)})[0]

  np.testing.assert_array_equal(apply(1, False), apply(2, False))
  assert (apply(1, True) != apply(2, True)).any()


def test_pooling_comes_before_the_norm():
  model = models.create('vgg_small', width=0.125)
  x = jnp.ones((1, 32, 32, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  _, seen = jax.eval_shape(lambda variables: model.apply(variables, x, capture_intermediates=True), variables)
  shapes = {name: each['__call__'][0].shape[1:] for name, each in seen['intermediates'].items() if name != '__call__'}
  assert shapes['conv2'] == (32, 32, 16) and shapes['conv2_norm'] == (16, 16, 16)
  assert shapes['conv6'] == (8, 8, 64) and shapes['conv6_norm'] == (4, 4, 64) and shapes['fc1'] == (128,)


@pytest.mark.parametrize('build, message', [
  (lambda: counted('binary_mlp', 28, activation='tanh'), "'tanh'"),
  (lambda: counted('xnor_resnet18', 32, stem='svhn'), "'svhn'"),
])
def test_errors_tell_the_way_out(build, message):
  with pytest.raises(ValueError, match=message):
    build()
