"""The frame of the networks of inverted residuals, MobileNetV1 to V3, MnasNet, EfficientNet and FBNet."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.models.mobile import MobileNetwork, Row
from lightjax.models.mobilenet_v1 import STAGES as STAGES_V1

RNGS = {'params': jax.random.key(0, impl='rbg'), 'dropout': jax.random.key(1)}

# Stem, then two stages, at a few thousand parameters.
TINY = ((Row(1, 3, 8, 1, 1),), (Row(3, 3, 8, 2, 2, 0.25),))


def layers(model, side=224):
  return {layer.module: layer for layer in count(model, (side, side, 3)).layers}


@pytest.mark.parametrize('name,overrides', [
  ('mobilenetv1_100', {}), ('mobilenet_v2', {}), ('mobilenet_v3_large', {}), ('mobilenet_v3_small', {}),
  ('efficientnet_b0', {}), ('efficientnet_lite0', {}), ('mnasnet1_0', {}), ('fbnetc_100', {}), ('ghostnet_100', {}),
])
@pytest.mark.parametrize('stem,side,final', [('imagenet', 224, 7), ('cifar', 32, 4), ('mnist', 28, 2)])
def test_stems_end_at_the_stated_resolution(name, overrides, stem, side, final):
  convolutions = [layer for layer in count(models.create(name, stem=stem, **overrides), (side, side, 3)).layers
                  if layer.kind == 'conv' and len(layer.output_shape) == 3 and layer.output_shape[0] > 1]
  assert convolutions[-1].output_shape[:2] == (final, final)


@pytest.mark.parametrize('name,path,channels', [
  # Expanded channels of MobileNetV3-Large, table 1, and those squeeze-excite reduces to (a quarter, multiples of 8).
  ('mobilenet_v3_large', 'stage4/block2/depthwise/conv', 184),
  ('mobilenet_v3_large', 'stage5/block1/depthwise/conv', 672),
  ('mobilenet_v3_large', 'stage3/block1/squeeze_excite/reduce', 32), ('mobilenet_v3_large', 'head/conv', 960),
  # MobileNetV3-Small, table 2.
  ('mobilenet_v3_small', 'stage2/block1/depthwise/conv', 88), ('mobilenet_v3_small', 'head/conv', 576),
  # EfficientNet reduces to a quarter of what enters the block.
  ('efficientnet_b0', 'stage3/block0/squeeze_excite/reduce', 6), ('efficientnet_b1', 'head/conv', 1280),
  # B2 is 1.1 times as wide, Lite2 keeps stem and head.
  ('efficientnet_b2', 'head/conv', 1408), ('efficientnet_lite2', 'head/conv', 1280),
  ('efficientnet_lite4', 'stem/conv', 32),
])
def test_channels_are_the_tables(name, path, channels):
  assert layers(models.create(name))[path].output_shape[-1] == channels


@pytest.mark.parametrize('name,depths', [
  ('efficientnet_b0', [1, 2, 2, 3, 3, 4, 1]), ('efficientnet_b1', [2, 3, 3, 4, 4, 5, 2]),
  ('efficientnet_b7', [4, 7, 7, 10, 10, 13, 4]), ('efficientnet_lite1', [1, 3, 3, 4, 4, 5, 1]),
])
def test_depth_rounds_up_and_lite_leaves_the_ends_alone(name, depths):
  assert [len(blocks) for blocks in models.create(name).blocks()] == depths


def test_torchvisions_rounding_scales_each_number_of_the_table():
  keras, torchvision = (
      models.create('mobilenet_v3_large', width=0.75, rounding=rounding) for rounding in ('keras', 'torchvision'))
  # The second block enters with 16 channels, rounded from 12: four times that, or 0.75 times 64.
  assert keras.blocks()[1][0].hidden == 64 and torchvision.blocks()[1][0].hidden == 48
  assert keras.hidden_channels() == 1280 and torchvision.hidden_channels() == 960
  # Counted with torchvision 0.29.1, width_mult=0.75.
  assert count(torchvision, (224, 224, 3)).params == 3_377_576


@pytest.mark.parametrize('padding,corner', [('torch', 4), ('SAME', 9)])
def test_padding_at_a_stride_is_pytorchs_or_tensorflows(padding, corner):
  # On even sizes TensorFlow's windows of stride 2 begin at the first pixel, PyTorch's one before it.
  model = models.create('mobilenetv1_100', width=0.25, padding=padding, stages=())
  x = jnp.ones((1, 8, 8, 1))
  variables = model.init(RNGS, x)
  variables = jax.tree.map(jnp.ones_like, variables)
  _, state = model.apply(variables, 0.1 * x, capture_intermediates=True, mutable=['intermediates'])
  stem = state['intermediates']['stem']['conv']['__call__'][0]
  np.testing.assert_allclose(stem[0, 0, 0], 0.1 * corner, rtol=1e-5)


def test_stochastic_depth_acts_in_training_only():
  model = MobileNetwork(TINY, classes=3, stem='cifar', dropout=0.0, drop_path=0.9, head_features=16)
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3)), jnp.float32)
  variables = model.init(RNGS, x)
  evaluated = model.apply(variables, x)
  np.testing.assert_array_equal(model.apply(variables, x, rngs={'dropout': jax.random.key(3)}), evaluated)
  with pytest.raises(Exception, match='dropout'):
    model.apply(variables, x, train=True, mutable=['batch_stats'])


@pytest.mark.parametrize('name', [
  'mobilenetv1_100', 'mobile_half', 'mobilenet_v3_small', 'efficientnet_b0', 'efficientnet_lite0', 'semnasnet_050',
  'fbnetc_100', 'ghostnet_050', 'shufflenet_v1_cifar', 'shufflenet_v2_x0_5', 'repvgg_a0', 'mobileone_s1',
])
def test_training_in_bfloat16_gives_float32_logits_and_statistics(name):
  model = models.create(name, classes=7, dtype='bfloat16')
  x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(RNGS, x), x)
  logits, updated = jax.eval_shape(
      lambda variables, x: model.apply(variables, x, train=True, rngs=RNGS, mutable=['batch_stats']), variables, x)
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
  assert jax.tree.structure(updated['batch_stats']) == jax.tree.structure(variables['batch_stats'])
  assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {jnp.dtype('float32')}


def test_a_shallow_mobilenet_v1_is_its_table():
  # Table 5 of the paper: without the five blocks of 512 channels, 2.9 M and 307 M.
  rows = tuple((channels, 1 if channels == 512 else blocks, strides) for channels, blocks, strides in STAGES_V1)
  counts = count(models.create('mobilenetv1_100', stages=rows), (224, 224, 3))
  assert round(counts.params / 1e6, 1) == 2.9 and round(counts.macs / 1e6) == 307


@pytest.mark.parametrize('name,ours,theirs', [
  ('mobilenet_v2', 'stage2/block0/project/norm', 'features.2.conv.3'),
  ('mobilenet_v3_small', 'stage1/block0/squeeze_excite/expand', 'features.1.block.1.fc2'),
  ('mobilenet_v3_large', 'hidden', 'classifier.0'), ('efficientnet_b1', 'stage1/block1/project/conv',
                                                      'features.1.1.block.2.0'),
  ('mnasnet1_0', 'stage1/block0/project/norm', 'layers.7'), ('mnasnet1_0', 'head/conv', 'layers.14'),
  ('semnasnet_100', 'stage3/block0/squeeze_excite/reduce', 'blocks.2.0.se.conv_reduce'),
  ('fbnetc_100', 'stage1/block0/expand/norm', 'blocks.0.0.bn1'), ('fbnetc_100', 'stem/norm', 'bn1'),
  ('efficientnet_lite0', 'stage1/block0/project/norm', 'blocks.0.0.bn2'),
  ('mobile_half', 'stage2/block1/depthwise/norm', 'blocks.1.1.conv.4'),
])
def test_names_are_the_references(name, ours, theirs):
  assert models.create(name).torch_name(ours) == theirs


@pytest.mark.parametrize('overrides,message', [
  ({'stem': 'svhn'}, "mobilenet_v3: stem 'svhn'"), ({'rounding': 'timm'}, "rounding 'timm'"),
])
def test_errors_name_the_choice(overrides, message):
  with pytest.raises(ValueError, match=message):
    count(models.create('mobilenet_v3_small', **overrides), (32, 32, 3))


def test_an_unknown_activation_of_a_row_is_an_error():
  model = MobileNetwork(((Row(1, 3, 8, 1, 1, 0, 'gelu'),),))
  with pytest.raises(ValueError, match="activation 'gelu' is none of"):
    count(model, (32, 32, 3))
