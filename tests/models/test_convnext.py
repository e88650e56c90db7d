import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.nn.blocks.convnext import ConvNeXtBlock

X = jnp.asarray(np.random.default_rng(0).standard_normal((64, 3, 3, 4)), jnp.float32)


@pytest.mark.parametrize('pointwise', ['dense', 'conv'])
def test_a_block_is_its_formula(pointwise):
  block = ConvNeXtBlock(layer_scale=0.5, pointwise=pointwise)
  variables = jax.jit(block.init)(jax.random.key(0), X)
  params = variables['params']
  params['depthwise']['kernel'] = jnp.zeros((7, 7, 1, 4)).at[3, 3].set(2.0)  # doubles
  x = np.asarray(X, np.float64)
  y = 2 * x
  y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
  y = y @ np.asarray(params['expand']['kernel'], np.float64).reshape(4, 16)
  y = y * 0.5 * (1 + np.vectorize(math.erf)(y / np.sqrt(2)))
  y = y @ np.asarray(params['project']['kernel'], np.float64).reshape(16, 4)
  np.testing.assert_allclose(jax.jit(block.apply)(variables, X), x + 0.5 * y, rtol=1e-4, atol=1e-5)


def test_stochastic_depth_drops_whole_residuals_and_keeps_the_mean():
  block = ConvNeXtBlock(layer_scale=1.0, stochastic_depth=0.25)
  variables = jax.jit(block.init)(jax.random.key(0), X)
  apply = jax.jit(block.apply, static_argnums=2)
  full = apply(variables, X, False) - X
  kept = apply(variables, X, True, rngs={'dropout': jax.random.key(1)}) - X
  dropped = np.asarray((kept == 0).all((1, 2, 3)))
  assert 4 <= dropped.sum() <= 30  # 16 expected of 64
  np.testing.assert_allclose(kept[~dropped], full[~dropped] / 0.75, rtol=1e-3, atol=1e-5)


def test_rates_grow_linearly_with_depth():
  model = models.create('convnext_atto', stochastic_depth=0.11)
  x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  rates = []

  def record(next_function, arguments, keywords, context):
    if isinstance(context.module, ConvNeXtBlock) and context.method_name == '__call__':
      rates.append(context.module.stochastic_depth)
    return next_function(*arguments, **keywords)

  with nn.intercept_methods(record):
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
  np.testing.assert_allclose(rates, np.arange(12) / 100)


@pytest.mark.parametrize('stem,side,final', [('imagenet', 224, 7), ('cifar', 32, 4)])
def test_stems_end_at_the_stated_resolution(stem, side, final):
  layers = {layer.module: layer for layer in count(models.create('convnext_atto', stem=stem), (side, side, 3)).layers}
  assert layers['stage4/block1/depthwise'].output_shape == (final, final, 320)


@pytest.mark.parametrize('name,module,theirs', [
  ('convnext_tiny', 'stem_norm', 'features.0.1'), ('convnext_tiny', 'stage1/block2/project', 'features.1.2.block.5'),
  ('convnext_tiny', 'stage3/downsample_conv', 'features.4.1'), ('convnext_tiny', 'norm', 'classifier.0'),
  ('convnext_tiny', 'stage4/block0/layer_scale', 'features.7.0.layer_scale'),
  ('convnext_atto', 'stage3/downsample_conv', 'stages.2.downsample.1'),
  ('convnext_atto', 'stage3/block5/expand', 'stages.2.blocks.5.mlp.fc1'),
  ('convnext_atto', 'stage1/block0/layer_scale', 'stages.0.blocks.0.gamma'),
])
def test_modules_have_the_references_names(name, module, theirs):
  assert models.create(name).torch_name(module) == theirs


@pytest.mark.parametrize('call,message', [
  (lambda: count(models.create('convnext_atto', stem='svhn'), (32, 32, 3)), "'svhn'"),
  (lambda: ConvNeXtBlock(pointwise='linear').init(jax.random.key(0), X), "'linear'"),
])
def test_errors_tell_the_way_out(call, message):
  with pytest.raises(ValueError, match=message):
    call()
