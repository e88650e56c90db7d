import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.nn.blocks.ghost import GhostBottleneck, GhostModule

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 6, 8)), jnp.float32)


def test_the_ghosts_are_filters_of_the_primary_channels():
  module = GhostModule(12, activation=None)
  variables = module.init(KEY, X)
  kernels = {name: variables['params'][name]['conv']['kernel'] for name in ('primary', 'cheap')}
  y = module.apply(variables, X)
  primary = jnp.einsum('bhwc,cd->bhwd', X, kernels['primary'][0, 0]) / np.sqrt(1 + 1e-5)
  np.testing.assert_allclose(y[..., :6], primary, atol=1e-5)
  # In the middle of the image, away from the padding.
  ghost = jnp.einsum('bhwc,hwc->bc', primary[:, 1:4, 1:4], kernels['cheap'][:, :, 0]) / np.sqrt(1 + 1e-5)
  np.testing.assert_allclose(y[:, 2, 2, 6:], ghost, atol=1e-5)


@pytest.mark.parametrize('features', [7, 8])
def test_an_odd_number_of_channels_drops_the_last_ghost(features):
  assert GhostModule(features).init_with_output(KEY, X)[0].shape == (2, 6, 6, features)


@pytest.mark.parametrize('features,strides,shortcut', [(8, 1, False), (12, 1, True), (8, 2, True)])
def test_a_bottleneck_adds_its_input_or_a_projection(features, strides, shortcut):
  block = GhostBottleneck(features, 16, strides)
  variables = block.init(KEY, X)
  assert ('shortcut_depthwise' in variables['params']) == shortcut
  assert ('depthwise' in variables['params']) == (strides > 1)
  if not shortcut:
    zero = {**variables, 'params': jax.tree.map(jnp.zeros_like, variables['params'])}
    np.testing.assert_array_equal(block.apply(zero, X), X)


@pytest.mark.parametrize('ours,theirs', [
  ('stage7/block3/squeeze_excite/reduce', 'blocks.6.3.se.conv_reduce'), ('head/norm', 'blocks.9.0.bn1'),
  ('stage2/block0/ghost1/cheap/norm', 'blocks.1.0.ghost1.cheap_operation.1'), ('hidden', 'conv_head'),
])
def test_names_are_timms(ours, theirs):
  assert models.create('ghostnet_100').torch_name(ours) == theirs


def test_an_unknown_stem_is_an_error():
  with pytest.raises(ValueError, match="ghostnet: stem 'svhn'"):
    models.create('ghostnet_100', stem='svhn').init(KEY, X[..., :3])
