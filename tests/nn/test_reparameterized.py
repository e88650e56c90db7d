import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax import models
from lightjax.models.mobileone import MobileOne
from lightjax.models.repvgg import RepVGG
from lightjax.nn.blocks.reparameterized import ReparameterizedConv, merge

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.standard_normal((2, 7, 7, 12)), jnp.float32)


def drawn(model, x):
  """Variables with no norm near the identity; one channel is scaled by zero, one by a negative number."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    name = path[-1].key
    if name == 'kernel':
      return (rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
    value = rng.uniform(0.5, 1.5, leaf.shape) if name == 'var' else rng.standard_normal(leaf.shape)
    if name == 'scale':
      value[:2] = 0.0, -0.5
    return value.astype(np.float32)

  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
  return jax.tree_util.tree_map_with_path(draw, shapes)


@settings(max_examples=12)
@given(
    window=st.sampled_from([1, 3, 5]), strides=st.sampled_from([1, 2]), groups=st.sampled_from([1, 3, 12]),
    branches=st.integers(1, 3), widens=st.booleans())
def test_a_merged_block_computes_what_its_branches_do(window, strides, groups, branches, widens):
  block = ReparameterizedConv(24 if widens else 12, window, strides, groups, branches, activation=lambda y: y)
  variables = drawn(block, X)
  deployed, merged = merge(block, variables)
  assert set(merged['params']) == {'conv'} and 'batch_stats' not in merged
  wanted = block.apply(variables, X)
  np.testing.assert_allclose(deployed.apply(merged, X), wanted, atol=3e-5 * np.abs(wanted).max())


@pytest.mark.parametrize('model', [
  RepVGG((1, 2, 1, 1), (0.25, 0.25, 0.25, 0.25), classes=5, stem='cifar'),
  MobileOne((0.25, 0.25, 0.125, 0.125), 2, (0, 0, 0, 1), (1, 2, 1, 1), classes=5, stem='cifar'),
], ids=['repvgg', 'mobileone'])
def test_a_merged_network_computes_what_its_branches_do(model):
  x = jnp.asarray(RANDOM.standard_normal((2, 16, 16, 3)), jnp.float32)
  variables = drawn(model, x)
  before = jax.tree.map(np.array, variables)
  deployed, merged = merge(model, variables)
  jax.tree.map(np.testing.assert_array_equal, variables, before)
  shapes = jax.eval_shape(lambda: deployed.init(jax.random.key(0), x))
  assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, shapes)
  wanted = jax.jit(model.apply)(variables, x)
  np.testing.assert_allclose(jax.jit(deployed.apply)(merged, x), wanted, atol=3e-5 * np.abs(wanted).max())


def test_what_has_no_branches_is_left_alone():
  model = MobileOne((0.25, 0.25, 0.125, 0.125), squeezed=(0, 0, 0, 1), blocks=(1, 1, 1, 1), classes=5, stem='cifar')
  variables = drawn(model, jnp.ones((1, 16, 16, 3)))
  _, merged = merge(model, variables)
  path = ('stage4', 'block0', 'pointwise', 'squeeze_excite', 'reduce', 'kernel')
  ours, theirs = merged['params'], variables['params']
  for name in path:
    ours, theirs = ours[name], theirs[name]
  assert ours is theirs
  assert merged['params']['classifier']['bias'] is variables['params']['classifier']['bias']


def test_merging_can_be_compiled():
  block = ReparameterizedConv(12)
  variables = drawn(block, X)
  compiled = jax.jit(lambda variables: merge(block, variables)[1])(variables)
  wanted = merge(block, variables)[1]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), compiled, wanted)


@pytest.mark.parametrize('model', [ReparameterizedConv(12, deployed=True), models.create('resnet8')])
def test_nothing_to_merge_is_an_error(model):
  with pytest.raises(ValueError, match='attribute `deployed` that is False'):
    merge(model, {})


def test_an_even_window_is_an_error():
  with pytest.raises(ValueError, match='a window of 2 has no middle'):
    ReparameterizedConv(12, window=2).init(jax.random.key(0), X)


@pytest.mark.parametrize('name,ours,theirs', [
  ('repvgg_a0', 'stage1/block1/branch_1x1/norm', 'stages.0.1.conv_1x1.bn'),
  ('repvgg_a0', 'stem/conv', 'stem.reparam_conv'),
  ('repvgg_a0', 'stage3/block13/identity', 'stages.2.13.identity'), ('mobileone_s0', 'classifier', 'head.fc'),
  ('mobileone_s0', 'stage2/block1/pointwise/branch3/conv', 'stages.1.3.conv_kxk.3.conv'),
  ('mobileone_s0', 'stage2/block1/depthwise/branch_1x1/norm', 'stages.1.2.conv_scale.bn'),
  ('mobileone_s4', 'stage4/block0/depthwise/squeeze_excite/expand', 'stages.3.0.attn.fc2'),
])
def test_names_are_timms(name, ours, theirs):
  assert models.create(name).torch_name(ours) == theirs
