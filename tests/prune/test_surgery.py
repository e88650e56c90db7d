"""Removed channels compute what masked ones do: values, gradients and statistics, in both modes."""
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lightjax import artifact, models
from lightjax.core import trees
from lightjax.core.modes import convolution_mode
from lightjax.graph import channels, trace
from lightjax.graph.channels import variable_paths
from lightjax.nn.blocks.dense import DenseBlock
from lightjax.nn.blocks.ghost import GhostBottleneck
from lightjax.nn.blocks.inverted_residual import InvertedResidual
from lightjax.nn.blocks.regnet import RegNetBlock
from lightjax.nn.blocks.shuffle import ShuffleUnitV1, ShuffleUnitV2
from lightjax.nn.blocks.squeeze_excite import SqueezeExcite
from lightjax.nn.layers import ConvNorm
from lightjax.prune import surgery

DOUBLE = jnp.float64
# Compiled once and run once: the code need not be fast.
QUICKLY = {'xla_backend_optimization_level': 0}


class Blocks(nn.Module):
  """A stem, some of the library's blocks, a dense layer."""
  blocks: tuple
  width: int = 12

  @nn.compact
  def __call__(self, x, train=False):
    x = ConvNorm(self.width, dtype=DOUBLE)(x, train)
    for block in self.blocks:
      x = block(dtype=DOUBLE)(x, train)
    return nn.Dense(3)(x.mean((1, 2)))


class UNet(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    def block(x, features):
      return nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(features, (3, 3), use_bias=False)(x)))
    first = block(x, 8)
    second = block(nn.max_pool(first, (2, 2), (2, 2)), 6)
    x = nn.relu(nn.Conv(10, (3, 3))(nn.max_pool(second, (2, 2), (2, 2))))
    x = jax.image.resize(x, (*second.shape[:3], 10), 'nearest')
    x = nn.relu(nn.Conv(6, (3, 3))(jnp.concatenate([second, x], -1)))
    x = jnp.concatenate([first, nn.ConvTranspose(5, (2, 2), (2, 2))(x)], -1)
    return nn.Conv(2, (1, 1))(nn.relu(nn.Conv(8, (3, 3))(x)))


class TwoHeads(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(16, (3, 3), 2)(x))
    return {'class': nn.Dense(5)(x.mean((1, 2))), 'map': nn.Conv(3, (1, 1))(nn.gelu(nn.Conv(8, (3, 3))(x)))}


class FlattenInTheMiddle(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(6, (3, 3), 4)(x))
    x = nn.relu(nn.Dense(20)(x.reshape(len(x), -1))).reshape(len(x), 2, 2, 5)
    return nn.Dense(3)(nn.Conv(7, (3, 3))(x).reshape(len(x), -1))


class Attention(nn.Module):
  """The residual stream is pinned by LayerNorm; heads, their sizes and the hidden layer are free."""
  @nn.compact
  def __call__(self, x, train=False):
    batch = len(x)
    x = nn.Conv(16, (4, 4), 4)(x).reshape(batch, -1, 16)
    x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
    query, key, value = (each.reshape(batch, -1, 4, 4) for each in jnp.split(nn.Dense(48)(nn.LayerNorm()(x)), 3, -1))
    weights = nn.softmax(jnp.einsum('bqhd,bkhd->bhqk', query, key) / 2)
    x = x + nn.Dense(16)(jnp.einsum('bhqk,bkhd->bqhd', weights, value).reshape(batch, -1, 16))
    return nn.Dense(3)(x.mean(1) + nn.Dense(16)(nn.gelu(nn.Dense(32)(x.mean(1)))))


class ChannelAttention(nn.Module):
  """A convolution along the channels pins what it slides over, and nothing else."""
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(12, (3, 3))(x))
    gate = nn.sigmoid(nn.Conv(1, (3,))(x.mean((1, 2))[..., None]))[..., 0]
    return nn.Dense(3)(nn.relu(nn.Conv(10, (3, 3))(x * gate[:, None, None])).mean((1, 2)))


class GroupNorm(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.GroupNorm(num_groups=4)(nn.Conv(16, (3, 3))(x)))
    return nn.Dense(3)(nn.relu(nn.GroupNorm(num_groups=1)(nn.Conv(12, (3, 3), 2)(x))).mean((1, 2)))


class Movement(nn.Module):
  """Indexing, gates in the middle of a shuffle, groups, several outputs a channel, uneven halves, maxout, padding."""
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(24, (3, 3))(x))
    shape = x.shape
    y = nn.Conv(24, (3, 3), feature_group_count=4)(x[..., np.random.default_rng(0).permutation(24)])
    y = nn.hard_swish(y.reshape(*shape[:3], 4, 6)).swapaxes(3, 4).reshape(shape)
    y = nn.Conv(48, (3, 3), feature_group_count=24)(nn.Conv(24, (3, 3), feature_group_count=24)(y))
    left, right = jnp.split(nn.Conv(24, (1, 1), feature_group_count=2)(y) + x, [7], -1)
    y = jnp.concatenate([nn.tanh(right), left], -1)
    y = jnp.pad(jnp.maximum(y[..., ::2], y[..., 1::2]), ((0, 0), (1, 1), (1, 1), (2, 3)))
    return nn.Dense(3)(nn.relu(nn.Conv(9, (3, 3), padding='VALID')(y)).mean((1, 2)))


@jax.custom_vjp
def straight_through(x):
  return jnp.round(x * 4) / 4


straight_through.defvjp(
  lambda x: (straight_through(x), x), lambda x, gradient: (jnp.where(jnp.abs(x) < 1, gradient, 0),))


class Gradients(nn.Module):
  """Dropout, dense layers with two axes, a function with a gradient of its own (its true one is zero)."""
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(16, (3, 3))(x)))
    x = nn.Dropout(0.3, deterministic=not train)(straight_through(x))
    return nn.DenseGeneral(3, axis=(-2, -1))(nn.relu(nn.DenseGeneral((4, 5))(x.mean((1, 2)))))


SE = functools.partial(SqueezeExcite, ratio=0.5)
NETWORKS = {
  'unet': UNet(), 'two heads': TwoHeads(), 'flatten': FlattenInTheMiddle(), 'attention': Attention(),
  'channel attention': ChannelAttention(), 'groupnorm': GroupNorm(), 'movement': Movement(), 'gradients': Gradients(),
  'shuffle v1': Blocks((
    functools.partial(ShuffleUnitV1, 36, 12, 3, strides=2, reduce_groups=1),
    functools.partial(ShuffleUnitV1, 36, 12, 3))),
  'shuffle v2': Blocks((functools.partial(ShuffleUnitV2, 20, strides=2), functools.partial(ShuffleUnitV2, 20))),
  'dense': Blocks((functools.partial(DenseBlock, 2, 4),)),
  'squeeze-excite': Blocks((functools.partial(InvertedResidual, 12, expansion=2, squeeze_excite=SE),)),
  'ghost': Blocks((functools.partial(GhostBottleneck, 12, 16),)),
  'regnet': Blocks((functools.partial(RegNetBlock, 12, 4),)),
}


def random_variables(model, x, seed=0):
  """Variables whose BatchNorm does something."""
  generator = np.random.default_rng(seed)

  def draw(path, leaf):
    noise, name = generator.standard_normal(leaf.shape), jax.tree_util.keystr(path)
    if 'var' in name:
      return np.exp(0.3 * noise)
    if 'kernel' in name:
      return noise * np.sqrt(2 / np.prod(leaf.shape[:-1]))
    return 0.3 * noise + ('scale' in name)

  shapes = jax.eval_shape(model.init, jax.random.key(0), x)
  return jax.tree_util.tree_map_with_path(lambda path, leaf: jnp.asarray(draw(path, leaf)), shapes)


def half(graph, seed=0):
  """Half of the channels of every group, drawn by chance, as convolutions in groups allow."""
  generator = np.random.default_rng(seed)
  scores = {group.name: generator.random(group.size) for group in graph.prunable}
  return surgery.balanced(graph, scores, {group.name: max(1, group.size // 2) for group in graph.prunable})


def images(size, channels_=3, batch=4):
  return jnp.asarray(np.random.default_rng(1).standard_normal((batch, size, size, channels_)))


def outcome(apply, x):
  """variables -> values, gradients and new statistics, in evaluation and, where that differs, in training."""

  def both(variables):
    def loss(variables, train):
      outputs, mutated = apply(
        variables, x, train=train, mutable=['batch_stats'], rngs={'dropout': jax.random.key(2)})
      return sum(jnp.sin(each).sum() for each in jax.tree.leaves(outputs)), (outputs, mutated)

    modes = (False, True) if 'batch_stats' in variables else (False,)
    return [jax.value_and_grad(functools.partial(loss, train=train), has_aux=True)(variables) for train in modes]

  return jax.jit(both, compiler_options=QUICKLY)


def assert_law(model, x):
  """In double precision: training-mode BatchNorm on a small batch multiplies float32's rounding by thousands."""
  variables = jax.tree.map(lambda leaf: leaf.astype(DOUBLE), random_variables(model, x))
  graph = channels(model.apply, variables, x)
  kept = half(graph)
  removed = surgery.remove(model.apply, graph, variables, kept)
  masked = surgery.mask(graph, variables, kept)
  assert sum(leaf.size for leaf in jax.tree.leaves(removed.variables)) < sum(
    leaf.size for leaf in jax.tree.leaves(variables))
  expected = outcome(model.apply, x)(masked)
  found = outcome(removed.apply, x)(removed.variables)
  for (_, (outputs, statistics)), gradients in expected:
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    (_, (own_outputs, own_statistics)), own_gradients = found.pop(0)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), own_outputs, outputs)
    statistics = removed.removal.cut(statistics)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-9), own_statistics, statistics)
    for path, own, whole in zip(
      variable_paths(own_gradients), jax.tree.leaves(own_gradients), jax.tree.leaves(removed.removal.cut(gradients)),
      strict=True):
      # A bias before BatchNorm has gradient zero: its rounding is judged by the other gradients.
      np.testing.assert_allclose(
        own, whole, rtol=0, atol=1e-5 * max(float(jnp.abs(whole).max()), 1e-3 * largest), err_msg=path)


@pytest.mark.parametrize('name', NETWORKS)
def test_removed_channels_compute_what_masked_ones_do(name):
  with jax.enable_x64(True):
    assert_law(NETWORKS[name], images(8))


@pytest.mark.parametrize('name,overrides,shape', [
  ('lenet300', {'hidden': (30, 20)}, (28, 1)), ('lenet5', {'widths': (4, 6, 20)}, (28, 1)),
  ('lenet5_classic', {}, (28, 1)), ('resnet8', {'width': 0.5}, (16, 3)),
])
def test_the_law_on_small_networks_of_the_zoo(name, overrides, shape):
  with jax.enable_x64(True):
    assert_law(models.create(name, dtype=DOUBLE, **overrides), images(*shape))


def size_of(name):
  if name.startswith('lenet'):
    return 28, 1
  return {'alexnet_caffe': 224, 'inception_v3': 96}.get(name, 64), 3


@pytest.mark.exhaustive
@pytest.mark.parametrize('name', [
  'alexnet', 'conv2', 'convnext_atto', 'densenet_bc_40', 'efficientnet_b0', 'efficientnet_lite0', 'fbnetc_100',
  'ghostnet_100', 'googlenet', 'inception_v3', 'mnasnet0_5', 'mobilenet_v3_small', 'mobilenetv1_100', 'mobileone_s0',
  'preact_resnet20', 'regnety_002', 'repvgg_a0', 'resnet18', 'resnet50', 'semnasnet_050', 'shufflenet_v2_x0_5',
  'squeezenet1_0', 'vgg8_cifar', 'vgg11', 'wrn_16_1', 'xception'])
def test_the_law_on_every_family(name):
  with jax.enable_x64(True):
    assert_law(models.create(name, dtype=DOUBLE, classes=5), images(*size_of(name)))


def removed_shapes(name):
  """Abstractly: the network with half of its channels in training mode, and both sizes."""
  model = models.create(name)
  size, channels_ = size_of(name)
  x = jax.ShapeDtypeStruct((2, size, size, channels_), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  graph = channels(model.apply, variables, x)
  removal = surgery.plan(graph, half(graph))
  smaller = jax.eval_shape(removal.cut, variables)
  key = jax.random.key(0)
  trained = jax.eval_shape(
    lambda variables, x: removal.apply(model.apply)(
      variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}), smaller, x)
  return variables, smaller, trained


def parameters(tree):
  return sum(leaf.size for leaf in trees.flatten(tree).values())


# `test_selection` has more.
FAMILIES = ('alexnet_caffe', 'convnext_atto', 'squeezenet1_0')


@pytest.mark.parametrize('name', FAMILIES)
def test_families_of_the_zoo_lose_channels(name):
  variables, smaller, (logits, statistics) = removed_shapes(name)
  assert logits.shape == (2, models.create(name).classes)
  assert parameters(smaller) < 0.75 * parameters(variables)
  assert jax.tree.map(lambda leaf: leaf.shape, statistics.get('batch_stats', {})) == jax.tree.map(
    lambda leaf: leaf.shape, smaller.get('batch_stats', {}))


@pytest.mark.exhaustive
@pytest.mark.parametrize('name', sorted(set(models.names()) - set(FAMILIES) - {'resnet1202', 'preact_resnet1001'}))
def test_every_network_of_the_zoo_loses_channels(name):
  test_families_of_the_zoo_lose_channels(name)


@functools.cache
def small():
  """A network with BatchNorm and a residual, its coupling and a choice of channels."""
  model, x = models.create('resnet8', width=0.5), images(16)
  variables = random_variables(model, x)
  graph = channels(model.apply, variables, x)
  return model, x, variables, graph, half(graph)


def test_one_removal_serves_any_batch_size_and_the_graph_of_the_small_network():
  model, x, variables, graph, kept = small()
  removed = surgery.remove(model.apply, graph, variables, kept)
  whole = model.apply(surgery.mask(graph, variables, kept), jnp.concatenate([x, x[:3]]))
  np.testing.assert_allclose(removed.apply(removed.variables, jnp.concatenate([x, x[:3]])), whole, rtol=1e-4, atol=1e-5)
  macs = trace(removed.apply, removed.variables, x).macs
  assert macs < 0.4 * trace(model.apply, variables, x).macs
  first = trace(removed.apply, removed.variables, x).operations[0]
  assert first.parameter == 'stem/conv/kernel'
  assert first.output_shape[-1] == kept['stem/conv'].sum()


class Pooled(nn.Module):
  """A window and strides of two sizes, padding that is uneven."""
  @nn.compact
  def __call__(self, x, train=False):
    x = nn.max_pool(nn.Conv(8, (3, 3))(x), (3, 2), (2, 1), 'SAME')
    return nn.Conv(3, (3, 3))(x)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_max_pooling_of_a_removed_network_takes_the_form_of_the_library(dtype):
  model, x = Pooled(), images(8)
  variables = jax.tree.map(lambda leaf: jnp.round(4 * leaf).astype(dtype), random_variables(model, x))
  graph = channels(model.apply, variables, x)
  removed = surgery.remove(model.apply, graph, variables, half(graph))
  # Whole numbers: ties in many windows, and sums without rounding.
  inputs = jnp.asarray(np.random.default_rng(0).integers(0, 3, x.shape), dtype)

  def pulled(variables, x):
    y, pull_back = jax.vjp(removed.apply, variables, x)
    return y, pull_back(jnp.ones_like(y))

  assert 'reduce_window' not in str(jax.make_jaxpr(pulled)(removed.variables, inputs))
  ours = pulled(removed.variables, inputs)
  with convolution_mode('lax'):
    assert 'reduce_window_max' in str(jax.make_jaxpr(pulled)(removed.variables, inputs))
    theirs = pulled(removed.variables, inputs)
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_nothing_removed_is_the_network_itself():
  model, x, variables, graph, _ = small()
  everything = {group.name: np.ones(group.size, bool) for group in graph.groups}
  removed = surgery.remove(model.apply, graph, variables, everything)
  np.testing.assert_array_equal(removed.apply(removed.variables, x), model.apply(variables, x))


@pytest.mark.parametrize('optimizer', [
  optax.sgd(0.1, momentum=0.9), optax.inject_hyperparams(optax.adamw)(0.01), optax.lion(0.01)])
def test_optimizer_states_and_masks_are_cut_like_the_parameters(optimizer):
  _, _, variables, graph, kept = small()
  params = surgery.mask(graph, variables, kept)['params']
  removal = surgery.plan(graph, kept)
  state = optimizer.init(params)
  shaped = jax.tree.map(lambda leaf: jnp.ones_like(leaf) if jnp.ndim(leaf) else leaf, state)
  cut = removal.cut(shaped)
  smaller = removal.cut(params)
  assert jax.tree.map(jnp.shape, cut) == jax.tree.map(jnp.shape, optimizer.init(smaller))
  gradients = jax.tree.map(jnp.ones_like, smaller)
  optimizer.update(gradients, cut, smaller)  # runs: shapes agree
  masks = {'masks': {path: leaf != 0 for path, leaf in trees.flatten(params).items()}}
  assert {path: mask.shape for path, mask in removal.cut(masks)['masks'].items()} == {
    path: leaf.shape for path, leaf in trees.flatten(smaller).items()}


def test_a_factored_state_is_refused():
  _, _, _, graph, kept = small()
  path = 'stage1/block0/conv1/kernel'
  with pytest.raises(surgery.RemovalError, match=f'v_row/{path}.*afresh'):
    surgery.plan(graph, kept).cut({'v_row': {path: jnp.zeros(8)}})


def test_the_smaller_network_is_stored_as_plain_data(tmp_path):
  model, x, variables, graph, kept = small()
  removed = surgery.remove(model.apply, graph, variables, kept)
  artifact.save(
    tmp_path / 'small.ljx', network={'name': 'resnet8', 'width': 0.5}, variables=removed.variables,
    meta={'removal': removed.removal.to_json()})
  stored = artifact.load(tmp_path / 'small.ljx')
  removal = surgery.Removal.from_json(json.loads(json.dumps(stored.meta['removal'])))
  assert removal == removed.removal
  apply = removal.apply(models.create(**stored.network).apply)
  np.testing.assert_array_equal(apply(stored.variables, x), removed.apply(removed.variables, x))


def test_what_is_no_removal_is_refused():
  with pytest.raises(surgery.RemovalError, match='no removal'):
    surgery.Removal.from_json({'params/fc/kernel': [3]})
  axis = {'axis': 0, 'size': 2, 'groups': 1, 'indices': [7]}
  with pytest.raises(surgery.RemovalError, match='no such places'):
    surgery.Removal.from_json({'params/fc/kernel': {'shape': [2, 2], 'kept': [axis]}})


def test_channels_that_cannot_go_are_refused_with_the_reason():
  _, _, _, graph, _ = small()
  none = np.zeros(graph.group('stem/conv').size, bool)
  with pytest.raises(surgery.RemovalError, match=r'classifier.*an output of the network'):
    surgery.plan(graph, {'classifier': np.arange(10) > 3})
  with pytest.raises(surgery.RemovalError, match='stem/conv is left without a channel'):
    surgery.plan(graph, {'stem/conv': none})
  with pytest.raises(surgery.RemovalError, match="no group of channels 'stem/cnv'; nearest: 'stem/conv'"):
    surgery.plan(graph, {'stem/cnv': none})
  with pytest.raises(surgery.RemovalError, match='bool for each of its 8'):
    surgery.plan(graph, {'stem/conv': np.ones(3, bool)})


def test_a_layer_that_reads_two_groups_is_not_left_without_inputs():
  def joined(variables, x):
    both = jnp.concatenate([x @ variables['left'], x @ variables['right']], -1)
    return jax.nn.relu(both)[:, 1:-1] @ variables['down']

  shapes = {'left': np.zeros((3, 2)), 'right': np.zeros((3, 2)), 'down': np.zeros((2, 2))}
  graph = channels(joined, shapes, np.zeros((1, 3)))
  assert graph.group('left').members[0].indices == ((0,), (1,))  # though its second channel is the one that is read
  with pytest.raises(surgery.RemovalError, match='down is left without a channel on axis 0'):
    surgery.plan(graph, {'left': np.array([True, False]), 'right': np.array([False, True])})
  with pytest.raises(surgery.RemovalError, match='left: 3 of 2 channels can not be kept'):
    surgery.balanced(graph, {'left': np.zeros(2)}, {'left': 3})


def test_pins_name_operation_and_module():
  model, x = NETWORKS['channel attention'], images(8)
  graph = channels(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)
  with pytest.raises(surgery.RemovalError, match=r'Conv_0: .*conv_general_dilated in Conv_1 slides over channels'):
    surgery.plan(graph, {'Conv_0': np.arange(12) > 3})


def test_a_convolution_in_groups_keeps_equal_parts():
  with jax.enable_x64(True):
    model, x = NETWORKS['regnet'], images(8)
    graph = channels(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)
  constraint = next(each for each in graph.constraints if each.side == 'input')
  name = constraint.parts[0][0][0]
  uneven = np.arange(graph.group(name).size) != 0
  with pytest.raises(surgery.RemovalError, match=r'convolution in 3 groups, which would keep \[3, 4, 4\] input'):
    surgery.plan(graph, {name: uneven})
  # The two best of each part, by hand.
  scores = np.random.default_rng(0).random(12)
  best = np.sort(scores.reshape(3, 4), axis=1)[:, 2]
  kept = surgery.balanced(graph, {name: scores}, {name: 6})[name]
  np.testing.assert_array_equal(kept, (scores.reshape(3, 4) >= best[:, None]).ravel())
