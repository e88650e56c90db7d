import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.core import trees
from lightjax.measure.counts import count

SIZES = {'lenet': (28, 28, 1), 'resnet': (32, 32, 3), 'mobilenet': (224, 224, 3)}

# Counted on the reference implementations (Caffe's LeNets, torchvision) or in closed form.
PARAMS = [
    ('lenet300', {}, 266_610), ('lenet5', {}, 431_080),
    ('resnet20', {}, 269_722), ('resnet20', {'shortcut': 'projection'}, 272_474),
    ('mobilenet_v2', {}, 3_504_872), ('mobilenet_v2', {'width': 0.35}, 1_677_128),
    ('mobilenet_v2', {'width': 0.5}, 1_968_680), ('mobilenet_v2', {'width': 1.4}, 6_108_776),
]


def size_of(name):
  return next(size for family, size in SIZES.items() if name.startswith(family))


@functools.cache
def counted(name, **overrides):
  return count(models.create(name, **overrides), size_of(name))


@functools.cache
def trained():
  """A small network with BatchNorm, its variables and a batch."""
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 16, 3)), jnp.float32)
  model = models.create('resnet8', width=0.5)
  return model, jax.jit(model.init)(jax.random.key(0, impl='rbg'), x), x


@pytest.mark.parametrize('name,overrides,params', PARAMS)
def test_parameters_are_those_of_the_reference(name, overrides, params):
  assert counted(name, **overrides).params == params


@pytest.mark.parametrize('depth', [8, 20, 32, 44, 56, 110])
def test_cifar_resnets_count_in_closed_form(depth):
  # stem; n blocks of two 3x3 convs a stage, the first from the stage before; BatchNorm scale and bias; classifier
  n = (depth - 2) // 6
  convs = 27 * 16 + 9 * sum(c * c * (2 * n - 1) + b * c for b, c in ((16, 16), (16, 32), (32, 64)))
  norms = 2 * (16 + 2 * n * (16 + 32 + 64))
  macs = 1024 * 27 * 16 + sum(
      9 * pixels * (c * c * (2 * n - 1) + b * c) for pixels, b, c in ((1024, 16, 16), (256, 16, 32), (64, 32, 64)))
  counts = counted(f'resnet{depth}')
  assert counts.params == convs + norms + 650
  assert counts.macs == macs + 640


@pytest.mark.parametrize('module,rows', [('resnet_cifar', 6), ('mobilenet_v2', 6)])
def test_figures_in_the_docstring_are_counted(module, rows):
  source = importlib.import_module(f'lightjax.models.{module}').__doc__
  found = re.findall(r'^  (resnet\d+|\d\.\d+)( .*)$', source, re.MULTILINE)
  assert len(found) == rows
  for label, figures in found:
    if module == 'resnet_cifar':
      counts = counted(label)
      macs = f' {counts.macs:,}'
    else:
      counts = counted('mobilenet_v2', **({} if label == '1.0' else {'width': float(label)}))
      macs = f' {counts.macs / 1e6:.1f} M'
    assert f' {counts.params:,} ' in figures
    assert macs in figures


@pytest.mark.parametrize('name,overrides,shape', [
    ('lenet300', {}, (28, 28, 1)), ('lenet5', {'activation': 'tanh'}, (28, 28, 1)),
    ('resnet8', {'width': 0.5}, (16, 16, 3)),
    ('mobilenet_v2', {'width': 0.35, 'stem': 'cifar'}, (32, 32, 3)),
])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_logits_are_float32_and_near_in_both_precisions(name, overrides, shape, dtype):
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, *shape)), jnp.float32)
  model = models.create(name, classes=7, dtype=dtype, **overrides)
  init = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
  assert {leaf.dtype for leaf in jax.tree.leaves(init)} == {jnp.dtype('float32')}
  logits = jax.eval_shape(lambda variables: model.apply(variables, x), init)
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)


def test_bfloat16_logits_are_near_the_float32_ones():
  model, variables, x = trained()
  rough = models.create('resnet8', width=0.5, dtype='bfloat16')
  wanted = jax.jit(model.apply)(variables, x)
  assert jnp.abs(jax.jit(rough.apply)(variables, x) - wanted).max() < 0.05 * jnp.abs(wanted).max()


def test_training_moves_the_statistics_and_evaluation_does_not():
  model, variables, x = trained()
  for train in (False, True):
    _, updated = jax.jit(lambda train=train: model.apply(variables, x, train=train, mutable=['batch_stats']))()
    same = jax.tree.map(lambda a, b: bool((a == b).all()), updated['batch_stats'], variables['batch_stats'])
    assert jax.tree.all(same) == (not train)


def test_paths_are_the_papers_names():
  def paths(name, **overrides):
    model = models.create(name, **overrides)
    shape = jax.ShapeDtypeStruct((1, *size_of(name)), jnp.float32)
    return set(trees.flatten(jax.eval_shape(lambda x: model.init(jax.random.key(0), x), shape)))

  assert {'stem/conv/kernel', 'stage1/block0/conv1/kernel', 'stage3/block2/norm2/scale', 'classifier/bias'} <= paths(
      'resnet20')
  assert {'stem/conv/kernel', 'stage2/block1/depthwise/conv/kernel', 'head/norm/bias'} <= paths('mobilenet_v2')
  assert 'stage1/block0/expand/conv/kernel' not in paths('mobilenet_v2')
  assert paths('lenet300', hidden=(5,)) == {'fc1/kernel', 'fc1/bias', 'fc2/kernel', 'fc2/bias'}


@pytest.mark.parametrize('stem,size,final', [('imagenet', 224, 7), ('cifar', 32, 4), ('mnist', 28, 2)])
def test_stems_end_at_the_stated_resolution(stem, size, final):
  counts = count(models.create('mobilenet_v2', stem=stem), (size, size, 3))
  assert next(layer for layer in counts.layers if layer.module == 'head/conv').output_shape == (final, final, 1280)


def test_caffes_lenet_is_linear_up_to_the_pooling_and_the_option_is_not():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 28, 28, 1)), jnp.float32)
  variables = jax.jit(models.create('lenet5').init)(jax.random.key(0, impl='rbg'), x)
  variables = {'params': {**variables['params'], 'conv1': jax.tree.map(jnp.zeros_like, variables['params']['conv1'])}}
  variables['params']['conv1']['bias'] -= 1.0  # relu hides it, the identity does not
  doubled = jax.tree.map(lambda leaf: 2 * leaf, variables['params']['conv1'])
  moved = {'params': {**variables['params'], 'conv1': doubled}}
  for activation, same in (('identity', False), ('relu', True)):
    apply = jax.jit(models.create('lenet5', activation=activation).apply)
    assert bool((apply(variables, x) == apply(moved, x)).all()) == same


@pytest.mark.parametrize('call,message', [
    (lambda: models.create('resnet21'), "'resnet21'.*'resnet20'"),
    (lambda: models.create('resnet20', shortcuts='identity'), "'shortcuts'.*'shortcut'"),
    (lambda: models.create('lenet5', activation='gelu').init(jax.random.key(0), jnp.ones((1, 28, 28, 1))), "'gelu'"),
    (lambda: models.create('mobilenet_v2', stem='svhn').init(jax.random.key(0), jnp.ones((1, 32, 32, 3))), "'svhn'"),
])
def test_errors_tell_the_way_out(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_every_name_is_a_constructor_and_creates_a_printable_module():
  for name in models.names():
    assert 'dtype' in repr(models.create(name))
