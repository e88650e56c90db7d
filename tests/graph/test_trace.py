import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from lightjax import graph
from lightjax.core.modes import convolution_mode
from lightjax.core.typing import Layout
from lightjax.graph import jaxprs, origins
from lightjax.nn.layers import Conv

IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


def init(model, *inputs):
  return jax.eval_shape(lambda *inputs: model.init(jax.random.key(0), *inputs), *inputs)


def summary(network):
  return [(each.kind, each.parameter, each.macs, each.output_axes, each.input_axes, each.groups)
          for each in network.operations]


class Own(nn.Module):
  """As a user would write it: setup, remat, a method, a depthwise and a transposed convolution, DenseGeneral."""

  def setup(self):
    self.first = nn.Conv(6, (3, 3), strides=2)
    self.each = Conv(6, (5, 5), feature_group_count=6, use_bias=False)
    self.up = nn.ConvTranspose(4, (2, 2), strides=(2, 2))
    self.norm = nn.BatchNorm(use_running_average=True)
    self.heads = nn.DenseGeneral((2, 5))

  def body(self, x):
    return nn.relu(self.norm(self.each(self.first(x))))

  @nn.compact
  def __call__(self, x):
    return self.heads(nn.remat(lambda self, x: self.up(self.body(x)))(self, x).mean((1, 2)))


@pytest.mark.parametrize('jitted', [False, True])
def test_a_linen_module(jitted):
  model = Own()
  variables = init(model, IMAGES)
  apply = jax.jit(model.apply) if jitted else model.apply
  if jitted:  # a cached trace with the quick depthwise form must not be what the graph sees
    assert 'conv_general_dilated[' in str(jax.make_jaxpr(apply)(variables, IMAGES))
  network = graph.trace(apply, variables, IMAGES)
  assert summary(network) == [
      ('conv', 'first/kernel', 4 * 4 * 9 * 3 * 6, (3,), (2,), 1),
      ('conv', 'each/kernel', 4 * 4 * 25 * 6, (3,), (2,), 6),
      ('conv', 'up/kernel', 4 * 4 * 4 * 6 * 4, (3,), (2,), 1),
      ('dense', 'heads/kernel', 4 * 10, (1, 2), (0,), 1),
  ]
  assert [each.module for each in network.operations] == ['first', 'each', 'up', 'heads']
  assert network.operations[0].input_shape == (2, 8, 8, 3)
  assert network.operations[0].output_shape == (2, 4, 4, 6)
  assert network.outputs.shape == (2, 2, 5)
  assert list(network.parameters) == [
      'first/kernel', 'first/bias', 'each/kernel', 'norm/scale', 'norm/bias', 'up/kernel', 'up/bias', 'heads/kernel',
      'heads/bias']
  assert graph.layouts(network)['heads/kernel'] == Layout('dense', (1, 2), 3, (0,), 4 * 10)


def test_an_nnx_model():
  class Model(nnx.Module):
    def __init__(self, rngs):
      self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
      self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
      self.fc = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
      return self.fc(self.norm(self.conv(x)).mean((1, 2)))

  definition, params, rest = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)
  network = graph.trace(lambda params, x: nnx.merge(definition, params, rest)(x), params, IMAGES)
  assert summary(network) == [
      ('conv', 'conv/kernel', 64 * 9 * 3 * 4, (3,), (2,), 1), ('dense', 'fc/kernel', 20, (1,), (0,), 1)]


def test_an_equinox_model():
  class Model(eqx.Module):
    convs: list
    fc: eqx.nn.Linear

    def __init__(self, key):
      self.convs = [eqx.nn.Conv2d(3, 6, 3, key=key), eqx.nn.Conv2d(6, 6, 3, groups=6, key=key)]
      self.fc = eqx.nn.Linear(6, 5, key=key)

    def __call__(self, x):
      for conv in self.convs:
        x = jax.nn.relu(conv(x))
      return self.fc(x.mean((1, 2)))

  params, static = eqx.partition(Model(jax.random.key(0)), eqx.is_inexact_array)
  network = graph.trace(lambda params, x: jax.vmap(eqx.combine(params, static))(x), params, shape(2, 3, 8, 8))
  wanted = [
      ('conv', 'convs/0/weight', 36 * 9 * 3 * 6, (0,), (1,), 1), ('conv', 'convs/1/weight', 16 * 9 * 6, (0,), (1,), 6),
      ('dense', 'fc/weight', 30, (0,), (1,), 1)]
  assert summary(network) == wanted
  assert [each.module for each in network.operations] == ['convs/0', 'convs/1', 'fc']
  single = graph.trace(lambda params, x: eqx.combine(params, static)(x), params, shape(3, 8, 8), batch_size=1)
  assert summary(single) == wanted


VIEWS = {
    'as it is': lambda w: w,
    'cast, masked and scaled': lambda w: 0.5 * (w.astype(jnp.bfloat16) * (jnp.abs(w) > 1)).astype(jnp.float32),
    'quantized per channel': lambda w: jnp.round(w / jnp.abs(w).max(0)) * jnp.abs(w).max(0),
    'standardized': lambda w: (w - w.mean(0)) * lax.rsqrt(w.var(0) + 1e-5),
    'flattened and back': lambda w: lax.stop_gradient(w.reshape(-1).reshape(w.shape)),
    'twice transposed': lambda w: w.T.T,
}


@pytest.mark.parametrize('view', VIEWS.values(), ids=VIEWS)
def test_a_kernel_is_recognized_through_what_is_done_to_it(view):
  variables = {'params': {'fc': {'kernel': shape(6, 10)}}}
  kernel = lambda variables: variables['params']['fc']['kernel']  # noqa: E731
  forward = graph.trace(lambda variables, x: x @ view(kernel(variables)), variables, shape(2, 6))
  assert summary(forward) == [('dense', 'fc/kernel', 60, (1,), (0,), 1)]
  torch_style = graph.trace(lambda variables, x: x @ view(kernel(variables)).T, variables, shape(2, 10))
  assert summary(torch_style) == [('dense', 'fc/kernel', 60, (0,), (1,), 1)]


def test_grouped_products_have_groups_and_broadcast_batches_have_none():
  grouped = graph.trace(lambda w, x: jnp.einsum('bgi,gio->bgo', x, w['w']), {'w': shape(3, 4, 5)}, shape(2, 3, 4))
  assert summary(grouped) == [('dense', 'w', 60, (0, 2), (1,), 3)]
  broadcast = graph.trace(
      lambda w, x: jnp.matmul(x, jnp.broadcast_to(w['w'], (2, 4, 5))), {'w': shape(4, 5)}, shape(2, 3, 4))
  assert summary(broadcast) == [('dense', 'w', 60, (1,), (0,), 1)]


def test_attention_multiplies_two_activations():
  model = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=6)
  x = shape(2, 5, 4)
  network = graph.trace(model.apply, init(model, x), x)
  found = {each.parameter: each.macs for each in network.operations if each.parameter}
  assert found == {'query/kernel': 120, 'key/kernel': 120, 'value/kernel': 120, 'out/kernel': 120}
  assert [each.macs for each in network.operations if each.parameter is None] == [2 * 25 * 3] * 2
  assert graph.layouts(network)['out/kernel'].output_axes == (2,)


def test_products_of_parameters_alone_cost_no_example_anything():
  network = graph.trace(lambda w, x: x @ (w['u'] @ w['v']), {'u': shape(6, 2), 'v': shape(2, 5)}, shape(2, 6))
  assert [(each.parameter, each.macs) for each in network.operations] == [(None, 30)]


def test_scanned_layers_count_each_time():
  class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
      return nn.relu(nn.Dense(6)(x)), None

  scanned = nn.scan(Layer, variable_axes={'params': 0}, split_rngs={'params': True}, length=4)()
  x = shape(2, 6)
  network = graph.trace(lambda variables, x: scanned.apply(variables, x, None)[0], init(scanned, x, None), x)
  assert summary(network) == [('dense', 'Dense_0/kernel', 4 * 36, (2,), (1,), 1)]


def test_a_shared_layer_is_two_operations_and_one_layout():
  network = graph.trace(lambda w, x: (x @ w['w']) @ w['w'], {'w': shape(4, 4)}, shape(2, 4))
  assert [each.macs for each in network.operations] == [16, 16]
  assert graph.layouts(network) == {'w': Layout('dense', (1,), 0, (0,), 16 + 16)}


@pytest.mark.parametrize('function,message', [
    (lambda w, x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w['w'], x), "inside 'while'"),
    (lambda w, x: x[0] @ w['w'], '9 MACs.*batch_size=1'),
])
def test_what_cannot_be_counted_is_an_error(function, message):
  with pytest.raises(ValueError, match=message):
    graph.trace(function, {'w': shape(3, 3)}, shape(2, 3))


def test_tracing_leaves_the_mode_alone_and_computes_nothing():
  model = Own()
  variables = init(model, IMAGES)
  with convolution_mode('fast'):
    network = graph.trace(model.apply, variables, IMAGES)
  assert str(network.jaxpr).count('feature_group_count=6') == 1


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_an_axis_varies_exactly_where_its_origin_says(data):
  sizes = data.draw(st.permutations([2, 3, 4]))
  steps = data.draw(st.lists(st.sampled_from(['transpose', 'merge', 'split', 'expand', 'slice']), max_size=5))

  def view(w):
    for step in steps:
      if step == 'transpose':
        w = w.transpose(tuple(reversed(range(w.ndim))))
      elif step == 'merge' and w.ndim > 1:
        w = w.reshape(w.shape[0] * w.shape[1], *w.shape[2:])
      elif step == 'split' and w.shape[0] % 2 == 0:
        w = w.reshape(2, w.shape[0] // 2, *w.shape[1:])
      elif step == 'expand':
        w = jnp.broadcast_to(w[:, None], (w.shape[0], 3, *w.shape[1:]))
      elif step == 'slice' and w.shape[-1] > 1:
        w = w[..., 1:]
    return w

  jaxpr = jax.make_jaxpr(view)(shape(*sizes))
  rule = lambda equation, operands, stack: origins.follow(equation, operands)  # noqa: E731
  origin, = jaxprs.interpret(jaxpr.jaxpr, jaxpr.consts, [origins.of_parameter('w', tuple(sizes))], rule, lambda _: None)
  if origin is None:
    return
  for stored, size in enumerate(sizes):
    index = np.broadcast_to(np.arange(size).reshape([-1 if axis == stored else 1 for axis in range(3)]), sizes)
    seen = np.asarray(view(jnp.asarray(index)))
    for axis in range(seen.ndim):
      if (seen != seen.take([0], axis)).any():
        assert stored in origin.stored([axis])
      elif seen.shape[axis] > 1:
        assert stored not in origin.stored([axis])
