"""The channels of a network as a space: options, what makes a layer, and its operations without some channels."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import graph, models
from lightjax.prune import costs, selection, surgery
from lightjax.search import channels, latency

STAGES = ((3, 5, 16, 1, 1, 0.25), (2, 3, 24, 2, 2, 0.0))  # with squeeze-excite, and without


class Small(nn.Module):
  """By hand: a strided convolution without padding, a depthwise one, one in groups, two dense layers."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(16, (5, 5), (2, 2), padding='VALID', name='first')(x))
    x = nn.relu(nn.Conv(16, (3, 3), feature_group_count=16, name='depthwise')(x))
    x = nn.relu(nn.Conv(24, (1, 1), feature_group_count=2, name='grouped')(x))
    x = nn.relu(nn.Dense(20, name='hidden')(x.mean((1, 2))))
    return nn.Dense(10, name='classifier')(x)


def traced(model, shape):
  x = jax.ShapeDtypeStruct((1, *shape), 'float32')
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  return variables, x, graph.channels(model.apply, variables, x), graph.trace(model.apply, variables, x).operations


def test_options_are_multiples_and_the_whole():
  _, _, coupling, _ = traced(Small(), (28, 28, 3))
  space = channels.space(selection.candidates(coupling), multiple=8, minimum=5)
  assert [(choice.name, choice.options) for choice in space.choices] == [
    ('first', (8, 16)), ('grouped', (8, 16, 24)), ('hidden', (8, 16, 20))]
  assert space.spec((0, 1, 2)) == {'first': 8, 'grouped': 16, 'hidden': 20}
  assert channels.space(selection.candidates(coupling), minimum=30).count == 1
  with pytest.raises(ValueError, match='multiple=0'):
    channels.space(coupling.prunable, multiple=0)


def test_layers_by_hand():
  """28x28 becomes 12x12 with windows of 5 at stride 2."""
  _, _, coupling, operations = traced(Small(), (28, 28, 3))
  assert channels.layers(coupling.prunable, coupling, operations) == [
    (16, 3, 28, 28, 2, 5, 144 * 75 * 16 + 144 * 9 * 16), (24, 16, 12, 12, 1, 1, 144 * 8 * 24),
    (20, 24, 1, 1, 1, 1, 480)]


@pytest.mark.parametrize(('make', 'shape'), [
  (Small, (28, 28, 3)), (lambda: models.create('resnet8', classes=4), (32, 32, 3)),
  (lambda: models.create('mobile_stages', classes=4, stages=STAGES), (28, 28, 1)),
])
def test_operations_of_what_is_left_do_what_the_smaller_network_does(make, shape):
  """Shapes and multiply-adds are those of a trace of the network from which the channels were removed."""
  model = make()
  variables, x, coupling, operations = traced(model, shape)
  generator = np.random.default_rng(0)
  scores = {group.name: generator.random(group.size) for group in coupling.prunable}
  kept = selection.keep(coupling, scores, {name: max(1, 2 * len(each) // 3) for name, each in scores.items()})
  removal = surgery.plan(coupling, kept)
  found = channels.kernels(coupling, operations, costs.left(removal), batch_size=2)
  smaller = graph.trace(removal.apply(model.apply), jax.eval_shape(removal.cut, variables), x).operations
  assert len(found) == len(smaller)
  for one, other in zip(found, smaller, strict=True):
    product, = graph.trace(one.module.apply, jax.eval_shape(
      one.module.init, jax.random.key(0), *one.arguments), *one.arguments).operations
    assert product.macs == other.macs and product.groups == other.groups, one.label
    if other.kind == 'conv':
      assert (product.input_shape[1:], product.output_shape[1:]) == (other.input_shape[1:], other.output_shape[1:])
  assert len({each.key for each in found}) > 3


def test_operations_can_be_measured_and_say_what_they_are():
  _, _, coupling, operations = traced(Small(), (28, 28, 3))
  shapes = costs.left(surgery.plan(coupling, {}))
  found = channels.kernels(coupling, operations, shapes, batch_size=2)
  assert [each.label for each in found] == [
    '5x5/2 28x28x3 -> 12x12x16', '3x3 12x12x16 -> 12x12x16 in 16 groups', '1x1 12x12x16 -> 12x12x24 in 2 groups',
    'dense 24 -> 20', 'dense 20 -> 10']
  assert found[3].bytes_moved == 4 * (24 * 20 + 2 * (24 + 20))
  table = latency.measure(found, rounds=4)
  assert latency.predict(found, table) == sum(table[each.key].median_ms for each in found)


def test_a_network_that_multiplies_activations_has_no_such_operations():
  def attends(variables, x):
    x = jnp.tanh(x @ variables['up'])
    return (x @ x.swapaxes(-1, -2)) @ x

  x = jax.ShapeDtypeStruct((1, 4, 8), 'float32')
  variables = {'up': jax.ShapeDtypeStruct((8, 8), 'float32')}
  coupling, operations = graph.channels(attends, variables, x), graph.trace(attends, variables, x).operations
  with pytest.raises(ValueError, match='multiplies activations'):
    channels.kernels(coupling, operations, coupling.shapes, batch_size=1)
