import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.nn.blocks.regnet import RegNetBlock

X = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 8)), jnp.float32)


def quantized_widths(depth, w_0, w_a, w_m):
  """Section 3.3 of the paper: u_j = w_0 + w_a j, rounded to w_0 w_m^s and to multiples of 8."""
  u = w_0 + w_a * np.arange(depth)
  s = np.round(np.log(u / w_0) / np.log(w_m))
  return 8 * np.round(w_0 * w_m ** s / 8).astype(int)


@pytest.mark.parametrize('name,parameters', [
  ('regnety_002', (13, 24, 36.44, 2.49)), ('regnety_004', (16, 48, 27.89, 2.09)),
  ('regnety_006', (15, 48, 32.54, 2.32)), ('regnety_008', (14, 56, 38.84, 2.4)),
  ('regnetx_004', (22, 24, 24.48, 2.54)),
])
def test_stages_are_what_the_papers_parameters_give(name, parameters):
  model = models.create(name)
  widths, blocks = np.unique(quantized_widths(*parameters), return_counts=True)
  assert tuple(blocks) == tuple(blocks for blocks, _ in model.stages)
  for width, (_, stated) in zip(widths, model.stages, strict=True):
    assert stated % model.group_width == 0
    assert abs(stated - width) <= model.group_width / 2


def test_a_block_with_zero_convolutions_is_relu_of_its_input():
  block = RegNetBlock(8, 4, se_ratio=0.25)
  variables = block.init(jax.random.key(0), X)
  assert variables['params']['conv2']['conv']['kernel'].shape == (3, 3, 4, 8)
  assert variables['params']['se']['reduce']['kernel'].shape == (1, 1, 8, 2)
  zero = {**variables, 'params': jax.tree.map(jnp.zeros_like, variables['params'])}
  np.testing.assert_array_equal(block.apply(zero, X), jnp.maximum(X, 0))


def test_squeeze_and_excitation_shrinks_the_channels_that_enter_the_block():
  layers = {layer.module: layer.shapes for layer in count(models.create('regnety_004'), (32, 32, 3)).layers}
  assert layers['stage1/block0/se/reduce']['kernel'] == (1, 1, 48, 8)
  assert not [layer for layer in count(models.create('regnetx_004'), (32, 32, 3)).layers if '/se/' in layer.module]


def test_a_width_that_does_not_divide_is_an_error():
  with pytest.raises(ValueError, match=r'10 channels.*group width 4'):
    RegNetBlock(10, 4).init(jax.random.key(0), X)


@pytest.mark.parametrize('name,module,theirs', [
  ('regnety_004', 'stem/norm', 'stem.bn'), ('regnety_004', 'stage3/block5/conv2/norm', 's3.b6.conv2.bn'),
  ('regnety_004', 'stage1/block0/se/expand', 's1.b1.se.fc2'), ('regnety_004', 'classifier', 'head.fc'),
  ('regnet_y_400mf', 'stem/norm', 'stem.1'),
  ('regnet_y_400mf', 'stage3/block5/conv2/norm', 'trunk_output.block3.block3-5.f.b.1'),
  ('regnet_y_400mf', 'stage1/block0/se/expand', 'trunk_output.block1.block1-0.f.se.fc2'),
  ('regnet_y_400mf', 'stage2/block0/shortcut/conv', 'trunk_output.block2.block2-0.proj.0'),
])
def test_modules_have_the_references_names(name, module, theirs):
  assert models.create(name).torch_name(module) == theirs
