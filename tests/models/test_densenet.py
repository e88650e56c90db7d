import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.nn.blocks.dense import DenseBlock, DenseLayer, Transition

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 6, 5)), jnp.float32)


@pytest.mark.parametrize('bottleneck,names', [
  (4, {'norm1', 'conv1', 'norm2', 'conv2'}), (0, {'norm1', 'conv1'}),
])
def test_a_dense_layer_appends_its_output_to_its_input(bottleneck, names):
  y, variables = DenseLayer(3, bottleneck).init_with_output(jax.random.key(0), X)
  assert set(variables['params']) == names
  assert y.shape == (2, 4, 6, 8)
  np.testing.assert_array_equal(y[..., :5], X)


def test_a_dense_block_grows_by_k_a_layer():
  assert DenseBlock(4, 3).init_with_output(jax.random.key(0), X)[0].shape == (2, 4, 6, 5 + 4 * 3)


def test_a_transition_mixes_channels_and_averages_squares():
  module = Transition(2)
  variables = module.init(jax.random.key(0), X)
  kernel = variables['params']['conv']['kernel'][0, 0]
  mixed = np.maximum(np.asarray(X) / np.sqrt(1 + 1e-5), 0) @ kernel
  np.testing.assert_allclose(
      module.apply(variables, X), mixed.reshape(2, 2, 2, 3, 2, 2).mean((2, 4)), rtol=1e-4, atol=1e-5)


def test_compression_halves_the_channels_between_blocks_only_with_bc():
  def transition(name):
    return next(
        layer for layer in count(models.create(name), (32, 32, 3)).layers if layer.module == 'transition1/conv')
  assert transition('densenet40').shapes['kernel'] == (1, 1, 160, 160)
  assert transition('densenet_bc_40').shapes['kernel'] == (1, 1, 96, 48)


@pytest.mark.parametrize('module,theirs', [
  ('stem_conv', 'features.conv0'), ('stage2/layer11/conv2', 'features.denseblock2.denselayer12.conv2'),
  ('transition3/norm', 'features.transition3.norm'), ('norm', 'features.norm5'), ('classifier', 'classifier'),
])
def test_modules_have_torchvisions_names(module, theirs):
  assert models.create('densenet121').torch_name(module) == theirs


def test_an_unknown_stem_is_an_error():
  with pytest.raises(ValueError, match="'mnist'"):
    count(models.create('densenet121', stem='mnist'), (28, 28, 3))
