"""Which channels are tied together, told by hand for small networks."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.graph import channels, links
from lightjax.graph.labels import aligned


def shapes(**sizes):
  return {name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in sizes.items()}


def image(channels_, size=4):
  return jax.ShapeDtypeStruct((1, size, size, channels_), jnp.float32)


def conv(x, kernel, groups=1):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)


def members(group):
  return {(member.path, member.axis): member.indices for member in group.members}


def test_a_sum_ties_channels_and_a_norm_goes_with_them():
  variables = shapes(a=(1, 1, 3, 4), b=(3, 3, 4, 4), scale=(4,), out=(4, 2))

  def network(v, x):
    x = conv(x, v['a'])
    x = (x + conv(x, v['b'])) * v['scale']
    return x.mean((1, 2)) @ v['out']

  first, last = channels(network, variables, image(3)).groups
  own = tuple((index,) for index in range(4))
  assert members(first) == {('a', 3): own, ('b', 3): own, ('b', 2): own, ('scale', 0): own, ('out', 0): own}
  assert first.pinned is None
  assert (last.name, last.size, last.pinned) == ('out', 2, 'an output of the network')
  assert str(first) == 'a: 4 channels: a producer, b producer, b consumer, out consumer, scale bias'


def test_a_flatten_gives_a_channel_as_many_rows_as_pixels():
  variables = shapes(kernel=(1, 1, 3, 2), out=(2 * 4, 5))
  first, _ = channels(lambda v, x: conv(x, v['kernel']).reshape(1, -1) @ v['out'], variables, image(3, 2)).groups
  assert members(first)['out', 0] == ((0, 2, 4, 6), (1, 3, 5, 7))


def test_concatenation_split_and_shuffle_move_channels():
  variables = shapes(a=(1, 1, 3, 2), b=(1, 1, 3, 4), c=(1, 1, 3, 2), d=(1, 1, 3, 1))

  def network(v, x):
    x = jnp.concatenate([conv(x, v['a']), conv(x, v['b'])], -1)  # a0 a1 b0 b1 b2 b3
    x = x.reshape(1, 4, 4, 2, 3).swapaxes(3, 4).reshape(1, 4, 4, 6)  # a0 b1 a1 b2 b0 b3
    left, right = jnp.split(x, 2, -1)
    return conv(left, v['c'])[..., 0], conv(right, v['d'])[..., 0]

  a, b = (channels(network, variables, image(3)).group(name) for name in 'ab')
  assert members(a)['c', 2] == ((0,), (2,))
  assert ('d', 2) not in members(a)
  assert members(b)['c', 2] == ((), (1,), (), ())
  assert members(b)['d', 2] == ((1,), (), (0,), (2,))


def test_depthwise_ties_its_outputs_to_its_inputs_and_groups_ask_for_equal_parts():
  variables = shapes(a=(1, 1, 3, 4), depthwise=(3, 3, 1, 8), grouped=(1, 1, 4, 6), out=(6, 2))

  def network(v, x):
    x = conv(conv(x, v['a']), v['depthwise'], 4)
    return conv(x, v['grouped'], 2).mean((1, 2)) @ v['out']

  graph = channels(network, variables, image(3))
  a, _, _ = graph.groups
  assert members(a)['depthwise', 3] == ((0, 1), (2, 3), (4, 5), (6, 7))
  member = next(member for member in a.members if member.path == 'grouped')
  assert (member.role, member.axis, member.groups) == ('consumer', 2, 2)
  assert member.indices == ((0, 1), (2, 3), (4, 5), (6, 7))
  inputs, outputs = graph.constraints
  assert inputs.parts == ((('a', 0), ('a', 0), ('a', 1), ('a', 1)), (('a', 2), ('a', 2), ('a', 3), ('a', 3)))
  assert outputs.counts({'grouped': np.array([True, False, True, True, False, False])}) == (2, 1)
  # The rows of each group of the kernel, by hand: group 1 has outputs 3 to 5.
  kernel = np.arange(24.0).reshape(1, 1, 4, 6)
  np.testing.assert_array_equal(member.along(kernel)[4 + 2], kernel[:, :, 2, 3:])


class SqueezeExcite(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(8, (3, 3))(x))
    gate = nn.sigmoid(nn.Dense(8)(nn.relu(nn.Dense(2)(x.mean((1, 2))))))
    return nn.Dense(3)((x * gate[:, None, None]).mean((1, 2)))


def of(model, x):
  return channels(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)


def test_a_gate_goes_with_what_it_scales():
  graph = of(SqueezeExcite(), image(3))
  assert {member.path for member in graph.group('Conv_0').members} >= {
    'params/Conv_0/kernel', 'params/Dense_0/kernel', 'params/Dense_1/kernel', 'params/Dense_0/bias',
    'params/Dense_2/kernel'}
  assert graph.group('Dense_1').size == 2


@pytest.mark.parametrize('function,reason', [
  (lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), 'reduce_sum in the network itself over channels'),
  (nn.softmax, 'reduce_max in the network itself over channels'),
  (lambda x: jax.lax.cumsum(x, 3), 'cumsum in the network itself over channels'),
  (lambda x: jnp.sort(x, -1), 'sort in the network itself'),
  (lambda x: jax.lax.fori_loop(0, 2, lambda _, x: x + 1, x), 'scan in the network itself'),
])
def test_what_means_something_else_without_a_channel_pins_it(function, reason):
  variables = shapes(a=(1, 1, 3, 4), out=(4, 2))
  group = channels(lambda v, x: function(conv(x, v['a'])).mean((1, 2)) @ v['out'], variables, image(3)).group('a')
  assert group.pinned == reason


def test_group_normalization_ties_the_channels_of_each_group():
  class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(2)(nn.GroupNorm(num_groups=3)(nn.Conv(6, (1, 1))(x)).mean((1, 2)))

  group = of(Network(), image(3)).group('Conv_0')
  assert members(group)['params/Conv_0/kernel', 3] == ((0, 1), (2, 3), (4, 5))


def test_a_second_function_couples_what_evaluation_leaves_out():
  model = models.create('googlenet', aux_logits=True)
  x = image(3, 64)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)

  def training(variables, x):
    return model.apply(variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)})[0]

  def reads(graph):
    return {member.path for group in graph.prunable for member in group.members if member.path.startswith('params/aux')}

  assert not {path for path in reads(channels(model.apply, variables, x)) if path.endswith('conv/conv/kernel')}
  assert 'params/aux1/conv/conv/kernel' in reads(channels((model.apply, training), variables, x))


def test_resnet8_in_closed_form():
  # stem and the blocks of a stage are one residual stream; identity shortcuts pad with zeros, so the streams of later
  # stages hold those of the earlier ones.
  graph = of(models.create('resnet8'), image(3, 16))
  assert sum(group.size for group in graph.groups) == 64 + 16 + 32 + 64 + 10
  assert graph.group('stage2/block0/conv1').size == 32


def test_axes_are_paired_as_finely_as_a_reshape_allows():
  assert aligned((2, 3, 4), (6, 2, 2)) == [((0, 1), (0,)), ((2,), (1, 2))]
  assert aligned((1, 6), (6, 1)) == [((1,), (0,))]
  assert aligned((4, 3), (6, 2)) == [((0, 1), (0, 1))]


def test_links_name_norms_functions_and_the_next_kernel():
  model = models.create('mobilenet_v2')
  x = image(3, 32)
  found = {link.first: link for link in links(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)}
  expand = found['stage2/block1/expand/conv/kernel']
  assert (expand.norm, expand.functions) == ('stage2/block1/expand/norm', ('max', 'min'))
  assert expand.second == 'stage2/block1/depthwise/conv/kernel'
  last = found['stage2/block1/project/conv/kernel']  # a sum follows
  assert (last.norm, last.functions, last.second) == ('stage2/block1/project/norm', (), None)
  assert found['classifier/kernel'].variables == ('params/classifier/bias',)
  assert found['classifier/kernel'].epsilon is None and {expand.epsilon, last.epsilon} == {float(np.float32(1e-5))}


def test_a_link_ends_where_somebody_else_reads():
  variables = shapes(a=(3, 4), b=(4, 4), c=(4, 2))

  def network(v, x):
    x = jax.nn.relu(x @ v['a'])
    return (x + x @ v['b']) @ v['c']

  first, second, _ = links(network, variables, jax.ShapeDtypeStruct((1, 3), jnp.float32))
  assert (first.functions, first.second) == (('max',), None)
  assert (second.functions, second.second) == ((), None)
