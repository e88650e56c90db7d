import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax import models
from lightjax.measure.counts import count
from lightjax.nn.blocks.shuffle import ShuffleUnitV1, ShuffleUnitV2, channel_shuffle

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 6, 6, 12)), jnp.float32)


def zeroed(variables):
  return {**variables, 'params': jax.tree.map(jnp.zeros_like, variables['params'])}


@given(st.integers(1, 5), st.integers(1, 5))
def test_a_shuffle_is_undone_by_the_other_factor(groups, each):
  channels = jnp.arange(groups * each)
  shuffled = channel_shuffle(channels, groups)
  np.testing.assert_array_equal(shuffled, [group * each + place for place in range(each) for group in range(groups)])
  np.testing.assert_array_equal(channel_shuffle(shuffled, each), channels)


def test_a_shuffle_refuses_groups_that_do_not_divide():
  with pytest.raises(ValueError, match='12 channels do not divide into 5 groups'):
    channel_shuffle(X, 5)


def test_a_unit_of_v2_passes_half_of_its_channels_shuffled():
  unit = ShuffleUnitV2(12)
  y = unit.apply(zeroed(unit.init(KEY, X)), X)
  np.testing.assert_array_equal(y[..., ::2], X[..., :6])
  assert not y[..., 1::2].any()


def test_a_unit_of_v1_adds_its_input_or_stands_beside_its_average():
  same = ShuffleUnitV1(12, hidden=6, groups=3)
  np.testing.assert_array_equal(same.apply(zeroed(same.init(KEY, X)), X), jax.nn.relu(X))
  wider = ShuffleUnitV1(24, hidden=6, groups=3, strides=2)
  y = wider.apply(zeroed(wider.init(KEY, X)), X)
  np.testing.assert_allclose(y[:, 1, 1, :12], jax.nn.relu(X[:, 1:4, 1:4].mean((1, 2))), atol=1e-6)
  np.testing.assert_allclose(y[:, 0, 0, :12], jax.nn.relu(X[:, :2, :2].sum((1, 2)) / 9), atol=1e-6)
  assert not y[..., 12:].any()


def test_shuffling_one_layer_later_is_the_same_function_of_permuted_channels():
  paper, megvii = (ShuffleUnitV1(12, hidden=6, groups=3, shuffle_after=place) for place in ('reduce', 'depthwise'))
  variables = paper.init(KEY, X)
  # Filter i of the paper's depthwise convolution sees channel order[i] of what is not shuffled.
  order = channel_shuffle(jnp.arange(6), 3)
  back = jnp.argsort(order)
  moved = {
    collection: {**tree, 'depthwise': jax.tree.map(lambda leaf: leaf[..., back], tree['depthwise'])}
    for collection, tree in variables.items()}
  np.testing.assert_allclose(megvii.apply(moved, X), paper.apply(variables, X), atol=1e-5)


@pytest.mark.parametrize('name,stem,side,final', [
  ('shufflenet_v2_x0_5', 'imagenet', 224, 7), ('shufflenet_v2_x0_5', 'cifar', 32, 4),
  ('shufflenet_v2_x0_5', 'mnist', 28, 4), ('shufflenet_v1', 'imagenet', 224, 7), ('shufflenet_v1', 'cifar', 32, 4),
  ('shufflenet_v1', 'mnist', 28, 4),
])
def test_stems_end_at_the_stated_resolution(name, stem, side, final):
  convolutions = [each for each in count(models.create(name, stem=stem), (side, side, 3)).layers if each.kind == 'conv']
  assert convolutions[-1].output_shape[:2] == (final, final)


@pytest.mark.parametrize('name,ours,theirs', [
  ('shufflenet_v2_x1_0', 'stage3/block0/shortcut_pointwise/norm', 'stage3.0.branch1.3'),
  ('shufflenet_v2_x1_0', 'stage2/block10/expand/conv', 'stage2.10.branch2.5'),
  ('shufflenet_v1', 'stage3/block1/depthwise/norm', 'features.5.branch_main_1.4'),
  ('shufflenet_v1', 'stage2/block0/expand/conv', 'features.0.branch_main_2.0'),
])
def test_names_are_the_references(name, ours, theirs):
  assert models.create(name).torch_name(ours) == theirs


@pytest.mark.parametrize('overrides,message', [
  ({'groups': 5}, 'groups 5 is none of'), ({'groups': 8, 'width': 0.25}, 'do not divide into 8 groups'),
  ({'groups': 2, 'variant': 'megvii'}, 'no groups 2'), ({'variant': 'timm'}, "variant 'timm'"),
  ({'stem': 'svhn'}, "stem 'svhn'"),
])
def test_errors_name_the_choice(overrides, message):
  with pytest.raises(ValueError, match=message):
    count(models.create('shufflenet_v1', **overrides), (224, 224, 3))


def test_a_unit_of_v2_refuses_other_channels_at_stride_1():
  with pytest.raises(ValueError, match='14 channels from 12 at stride 1'):
    ShuffleUnitV2(14).init(KEY, X)
