import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.nn.blocks.residual import (
  BasicBlock,
  Bottleneck,
  PreActBlock,
  PreActBottleneck,
  subsample_and_pad,
)

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 7, 8)), jnp.float32)


def convolutions_zero(variables):
  def zero(path, leaf):
    return jnp.zeros_like(leaf) if path[-1].key == 'kernel' and 'shortcut' not in path[-2].key else leaf
  return jax.tree_util.tree_map_with_path(zero, variables)


def outputs(model, shape):
  return {layer.module: layer.output_shape for layer in count(model, shape).layers if layer.kind == 'conv'}


@pytest.mark.parametrize('block', [BasicBlock, Bottleneck])
@pytest.mark.parametrize('shortcut', ['identity', 'centered', 'projection'])
def test_a_block_with_zero_convolutions_is_relu_of_its_shortcut(block, shortcut):
  module = block(16, 2, shortcut=shortcut)
  variables = convolutions_zero(module.init(jax.random.key(0), X))
  if shortcut == 'projection':
    kernel = variables['params']['shortcut_conv']['kernel'][0, 0]
    wanted = X[:, ::2, ::2] @ kernel / np.sqrt(1 + 1e-5)
  else:
    wanted = subsample_and_pad(X, strides=2, features=16, before=4 if shortcut == 'centered' else 0)
  np.testing.assert_allclose(module.apply(variables, X), nn.relu(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('block', [PreActBlock, PreActBottleneck])
def test_a_preactivated_block_adds_its_input_untouched_or_projects_what_is_activated(block):
  same = block(8)
  np.testing.assert_array_equal(same.apply(convolutions_zero(same.init(jax.random.key(0), X)), X), X)
  wider = block(16, 2)
  variables = convolutions_zero(wider.init(jax.random.key(0), X))
  kernel = variables['params']['shortcut_conv']['kernel'][0, 0]
  activated = nn.relu(X / np.sqrt(1 + 1e-5))
  np.testing.assert_allclose(wider.apply(variables, X), activated[:, ::2, ::2] @ kernel, rtol=1e-4, atol=1e-5)
  assert 'shortcut_norm' not in variables['params']


def test_centered_identities_have_the_zeros_on_both_sides():
  y = subsample_and_pad(X, strides=1, features=12, before=2)
  np.testing.assert_array_equal(y[..., 2:10], X)
  assert not y[..., :2].any() and not y[..., 10:].any()


@pytest.mark.parametrize('variant,side', [('v1', 28), ('v1.5', 56)])
def test_the_variant_says_which_convolution_has_the_stride(variant, side):
  found = outputs(models.create('resnet50', variant=variant), (224, 224, 3))
  assert found['stage2/block0/conv1'] == (side, side, 128)
  assert found['stage2/block0/conv2'] == (28, 28, 128)
  assert found['stage4/block2/conv3'] == (7, 7, 2048)


@pytest.mark.parametrize('stem,size,final', [('imagenet', 224, 7), ('cifar', 32, 4), ('mnist', 28, 2)])
def test_stems_end_at_the_stated_resolution(stem, size, final):
  found = outputs(models.create('resnet18', stem=stem), (size, size, 3))
  assert found['stage4/block1/conv2'] == (final, final, 512)


def test_groups_and_widths_shape_the_middle_convolution_alone():
  found = {layer.module: layer.shapes for layer in count(models.create('resnext50_32x4d'), (64, 64, 3)).layers}
  assert found['stage1/block0/conv2']['kernel'] == (3, 3, 4, 128)
  assert found['stage1/block0/conv3']['kernel'] == (1, 1, 128, 256)
  wide = {layer.module: layer.shapes for layer in count(models.create('wide_resnet50_2'), (64, 64, 3)).layers}
  assert wide['stage4/block0/conv2']['kernel'] == (3, 3, 1024, 1024)
  assert wide['stage4/block0/conv3']['kernel'] == (1, 1, 1024, 2048)


def test_a_wide_block_drops_between_its_convolutions_in_training_alone():
  block = PreActBlock(8, dropout=0.5)
  variables = block.init(jax.random.key(0), X)
  apply = jax.jit(lambda key, train: block.apply(
      variables, X, train, mutable=['batch_stats'], rngs={'dropout': key})[0], static_argnums=1)
  first, second = jax.random.split(jax.random.key(1))
  assert (apply(first, False) == apply(second, False)).all()
  assert (apply(first, True) != apply(second, True)).any()


@pytest.mark.parametrize('name,overrides,module,theirs', [
  ('resnet101', {}, 'stem/norm', 'bn1'),
  ('resnet101', {}, 'stage3/block22/norm3', 'layer3.22.bn3'),
  ('resnet101', {}, 'stage2/block0/shortcut_conv', 'layer2.0.downsample.0'),
  ('resnet20', {'shortcut': 'centered'}, 'classifier', 'linear'),
  ('resnet20', {'shortcut': 'projection'}, 'stage2/block0/shortcut_norm', 'layer2.0.downsample.1'),
  ('resnet8x4', {}, 'classifier', 'fc'),
  ('preact_resnet164', {}, 'stage1/block0/shortcut_conv', 'layer1.0.downsample.0'),
  ('wrn_40_2', {}, 'stage3/block5/norm2', 'block3.layer.5.bn2'),
  ('wrn_40_2', {}, 'stage1/block0/shortcut_conv', 'block1.layer.0.convShortcut'),
])
def test_modules_have_the_references_names(name, overrides, module, theirs):
  assert models.create(name, **overrides).torch_name(module) == theirs


@pytest.mark.parametrize('call,message', [
  (lambda: models.create('resnet18').torch_name('stage9/block0/nothing'), "'stage9/block0/nothing'"),
  (lambda: models.create('resnet20').torch_name('classifier'), "shortcut='centered'"),
  (lambda: count(models.create('resnet18', stem='svhn'), (32, 32, 3)), "'svhn'"),
  (lambda: count(models.create('resnet50', variant='v2'), (32, 32, 3)), "'v2'"),
  (lambda: count(models.preact_resnet.PreActResNet(30), (32, 32, 3)), '6n \\+ 2.*30'),
  (lambda: count(models.wide_resnet.WideResNet(15), (32, 32, 3)), '6n \\+ 4.*15'),
  (lambda: Bottleneck(8, strides_on='conv3').init(jax.random.key(0), X), "'conv3'"),
])
def test_errors_tell_the_way_out(call, message):
  with pytest.raises(ValueError, match=message):
    call()
