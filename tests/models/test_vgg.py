import jax
import jax.numpy as jnp
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.nn.blocks.plain import PlainStage


@pytest.mark.parametrize('batch_norm,use_bias', [(False, True), (True, False)])
def test_a_plain_stage_has_what_was_asked_for(batch_norm, use_bias):
  x = jnp.ones((1, 4, 4, 3))
  params = PlainStage(5, 2, batch_norm, use_bias).init(jax.random.key(0), x)['params']
  assert set(params) == {'conv1', 'conv2', *(('norm1', 'norm2') if batch_norm else ())}
  assert ('bias' in params['conv1']) == use_bias


@pytest.mark.parametrize('name,module,theirs', [
  # torchvision.models.vgg16().features: 0 2 M 5 7 M 10 12 14 M 17 19 21 M 24 26 28 M, with ReLU after each convolution
  *(('vgg16', f'stage{stage}/conv{conv}', f'features.{place}') for stage, places in enumerate(
      ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), 1) for conv, place in enumerate(places, 1)),
  ('vgg11_bn', 'stage1/norm1', 'features.1'), ('vgg11_bn', 'stage2/conv1', 'features.4'),
  ('vgg11_bn', 'stage5/norm2', 'features.26'), ('vgg16', 'fc2', 'classifier.3'),
  ('vgg16', 'classifier', 'classifier.6'),
  ('vgg13_cifar', 'stage1/conv2', 'block0.3'), ('vgg13_cifar', 'stage5/norm2', 'block4.4'),
  ('vgg8_cifar', 'classifier', 'classifier'),
])
def test_modules_have_the_references_names(name, module, theirs):
  assert models.create(name).torch_name(module) == theirs


def test_the_pruning_literatures_networks_have_the_names_of_their_repository():
  model = models.create('vgg16_cifar', use_bias=False, pools=4, hidden=512)
  names = [model.torch_name(module) for module in ('stage3/norm1', 'fc1', 'fc1_norm', 'classifier')]
  assert names == ['feature.15', 'classifier.0', 'classifier.1', 'classifier.3']


def test_other_sizes_are_averaged_to_the_size_of_the_dense_layers():
  counts = count(models.create('vgg11'), (96, 64, 3))
  assert counts.params == count(models.create('vgg11'), (224, 224, 3)).params


@pytest.mark.parametrize('pools,final', [(3, 4), (4, 2)])
def test_the_small_networks_pool_as_often_as_asked(pools, final):
  layers = count(models.create('vgg8_cifar', pools=pools), (32, 32, 3)).layers
  assert {layer.module: layer.output_shape for layer in layers}['stage5/conv1'] == (final, final, 512)


@pytest.mark.parametrize('model', [models.vgg.VGG(12), models.vgg_cifar.VGGCIFAR(12)])
def test_an_unknown_depth_is_an_error(model):
  with pytest.raises(ValueError, match='12'):
    count(model, (32, 32, 3))
