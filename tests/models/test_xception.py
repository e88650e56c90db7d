import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.nn.blocks.separable import XceptionBlock
from lightjax.nn.pooling import max_pool

X = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6, 6, 4)), jnp.float32)


def centred(channels):
  """A block whose separable convolutions copy their input, without a shortcut's help."""
  block = XceptionBlock((channels,) * 2, strides=2)
  variables = block.init(jax.random.key(0), X)
  for name in ('separable1', 'separable2'):
    layer = variables['params'][name]
    layer['depthwise']['kernel'] = jnp.zeros((3, 3, 1, channels)).at[1, 1].set(1.0)
    layer['pointwise']['kernel'] = jnp.eye(channels)[None, None]
  variables['params']['shortcut']['conv']['kernel'] = jnp.zeros((1, 1, channels, channels))
  return block, variables


def test_a_strided_block_pools_what_is_positive():
  block, variables = centred(4)
  wanted = max_pool(jnp.maximum(X, 0), 3, 2, padding=1)
  np.testing.assert_allclose(block.apply(variables, X), wanted / (1 + 1e-5), rtol=1e-4, atol=1e-5)


def test_a_block_of_one_shape_adds_its_input():
  block = XceptionBlock((4, 4, 4))
  variables = block.init(jax.random.key(0), X)
  assert set(variables['params']) == {'separable1', 'separable2', 'separable3'}
  zero = {**variables, 'params': jax.tree.map(jnp.zeros_like, variables['params'])}
  np.testing.assert_array_equal(block.apply(zero, X), X)


@pytest.mark.parametrize('module,theirs', [
  ('conv1/conv', 'conv1'), ('conv2/norm', 'bn2'), ('block1/separable1/depthwise', 'block1.rep.0.conv1'),
  ('block1/separable2/norm', 'block1.rep.4'), ('block2/separable1/pointwise', 'block2.rep.1.pointwise'),
  ('block4/separable3/norm', 'block4.rep.8'), ('block12/shortcut/norm', 'block12.skipbn'),
  ('conv3/depthwise', 'conv3.conv1'), ('conv4/pointwise', 'conv4.pointwise'), ('classifier', 'fc'),
])
def test_modules_have_timms_names(module, theirs):
  assert models.create('xception').torch_name(module) == theirs
