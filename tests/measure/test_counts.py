import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from lightjax import models
from lightjax.measure.counts import count


# He et al.'s ResNet-20 with and without projections, torchvision's MobileNetV2, Caffe's LeNet-5.
@pytest.mark.parametrize('name,overrides,size,macs', [
    ('resnet20', {'shortcut': 'projection'}, (32, 32, 3), 40_813_184),
    ('resnet20', {}, (32, 32, 3), 40_813_184 - 262_144),
    ('mobilenet_v2', {}, (224, 224, 3), 300_774_272),
    ('lenet5', {}, (28, 28, 1), 2_293_000),
    ('lenet300', {}, (28, 28, 1), 266_200),
])
def test_macs_are_the_published_ones(name, overrides, size, macs):
  assert count(models.create(name, **overrides), size).macs == macs


def test_running_statistics_are_counted_apart():
  counts = count(models.create('mobilenet_v2'), (224, 224, 3))
  assert (counts.params, counts.statistics) == (3_504_872, 34_112)


def test_layers_add_up_and_stand_in_execution_order():
  counts = count(models.create('resnet8', shortcut='projection'), (32, 32, 3))
  assert [layer.module for layer in counts.layers][:3] == ['stem/conv', 'stem/norm', 'stage1/block0/conv1']
  assert counts.layers[-1].module == 'classifier'
  assert counts.layers[0][1:] == ('conv', {'kernel': (3, 3, 3, 16)}, 432, 432, 442_368, (32, 32, 16))
  assert sum(layer.params for layer in counts.layers) == counts.params == 78_042


def test_nonzeros_are_those_of_the_variables():
  model = models.create('lenet300')
  variables = jax.tree.map(jnp.ones_like, model.init(jax.random.key(0), jnp.ones((1, 28, 28, 1))))
  variables['params']['fc1']['kernel'] = variables['params']['fc1']['kernel'].at[:, :100].set(0)
  counts = count(model, (28, 28, 1), variables=variables)
  assert (counts.params, counts.nonzeros) == (266_610, 266_610 - 78_400)
  assert count(model, (28, 28, 1)).nonzeros == 266_610


def test_a_pair_counts_like_its_module():
  model = models.create('resnet8')
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3))))
  assert count((model.apply, variables), (32, 32, 3)) == count(model, (32, 32, 3))


class Auxiliary(nn.Module):
  @nn.compact
  def __call__(self, x, train: bool = False):
    x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4, name='body')(x))
    if train:
      nn.Dense(3, name='auxiliary')(x)
    return nn.Dense(2, name='head')(x)


def test_training_counts_auxiliary_heads():
  assert count(Auxiliary(), (5,)).params == 24 + 10
  assert count(Auxiliary(), (5,), train=True).params == 24 + 10 + 15
  assert count(Auxiliary(), (5,), train=True).macs == 20 + 8 + 12


def test_the_table_shows_every_layer_and_the_totals():
  lines = count(models.create('lenet5'), (28, 28, 1)).table().splitlines()
  assert lines[0].split() == ['module', 'kind', 'output', 'params', 'nonzeros', 'MACs']
  assert lines[1].split() == ['conv1', 'conv', '24x24x20', '520', '520', '288,000']
  assert lines[-2].split() == ['total', '431,080', '431,080', '2,293,000']
  assert lines[-1].endswith(': 0')


@pytest.mark.parametrize('call,message', [
    (lambda: count(nn.Dense(2), (3,), train=True), 'Dense.__call__ has no argument `train`'),
    (lambda: count((lambda variables, x: x, {}), (3,), train=True), 'leave out'),
])
def test_contradictions_are_errors(call, message):
  with pytest.raises(ValueError, match=message):
    call()
