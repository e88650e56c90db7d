import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.quantize import folding, lowering, program

NETWORKS = [('resnet8', 16), ('lenet5', 28)]  # the families in test_zoo_in_integers.py


def error(one, other):
  return float(jnp.abs(one - other).max() / jnp.abs(other).max())


@pytest.mark.parametrize('name,size', NETWORKS)
def test_a_program_computes_what_apply_does(zoo, name, size):
  apply, variables, images, network = zoo(name, size, 1 if name == 'lenet5' else 3)
  assert error(jax.jit(lambda x: program.run(network, x))(images), jax.jit(apply)(variables, images)) < 1e-5


def test_folded_variables_compute_what_they_did_under_the_same_apply(zoo):
  apply, variables, images, _ = zoo('resnet8', 16)
  folded = folding.fold(apply, variables, images)
  assert jax.tree.structure(folded) == jax.tree.structure(variables)
  assert error(jax.jit(apply)(folded, images), jax.jit(apply)(variables, images)) < 1e-5
  for path, leaf in jax.tree_util.tree_leaves_with_path(folded['batch_stats']):
    assert (leaf == (1 if path[-1].key == 'var' else 0)).all(), path


def test_folding_is_the_closed_form(mobile):
  apply, variables, images, _ = mobile
  folded = folding.fold(apply, variables, images)
  params, stats = variables['params'], variables['batch_stats']['depthwise']['norm']
  scale = np.asarray(params['depthwise']['norm']['scale']) / np.sqrt(np.asarray(stats['var']) + 1e-5)
  np.testing.assert_allclose(
    folded['params']['depthwise']['conv']['kernel'], params['depthwise']['conv']['kernel'] * scale, rtol=1e-6)
  np.testing.assert_allclose(
    folded['params']['depthwise']['norm']['bias'], params['depthwise']['norm']['bias'] - stats['mean'] * scale,
    rtol=1e-5, atol=1e-6)
  # After a concatenation there is no kernel to fold into.
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), folded['params']['norm'], params['norm']))


def test_folding_twice_changes_nothing_more(mobile):
  apply, variables, images, _ = mobile
  once = folding.fold(apply, variables, images)
  twice = folding.fold(apply, once, images)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), once, twice)


def test_a_channel_that_normalization_switched_off_folds_to_its_bias(mobile):
  apply, variables, images, _ = mobile
  params = variables['params']
  norm = {**params['stem']['norm'], 'scale': params['stem']['norm']['scale'].at[0].set(0.0)}
  variables = {**variables, 'params': {**params, 'stem': {**params['stem'], 'norm': norm}}}
  network = lowering.lower(apply, variables, images)
  assert (network.layers['stem/conv'].kernel[..., 0] == 0).all()
  assert network.layers['stem/conv'].bias[0] == norm['bias'][0]
  assert error(jax.jit(lambda x: program.run(network, x))(images), jax.jit(apply)(variables, images)) < 1e-5


def test_clips_belong_to_the_layer_that_they_follow(mobile):
  network = mobile[3]
  assert (network.layers['expand/conv'].low == 0).all()
  assert (network.layers['expand/conv'].high == 6).all()
  assert (network.layers['right/conv'].high == np.inf).all()
  assert (network.layers['project/conv'].low == -np.inf).all()


def test_what_a_network_does_is_found(mobile):
  kinds = [node.kind for node in mobile[3].program.nodes]
  assert 'float' not in kinds
  assert kinds.count('layer') == 9
  assert kinds.count('sum') == 2
  assert (kinds.count('add'), kinds.count('mul'), kinds.count('concatenate'), kinds.count('pool')) == (1, 1, 1, 1)
  assert kinds.count('map') == 3  # sigmoid, hard swish, BatchNorm with ReLU after the concatenation


def test_a_value_with_two_readers_is_not_clipped_in_its_layer():
  variables = {'fc': {'kernel': jnp.ones((3, 4))}}

  def apply(variables, x):
    y = x @ variables['fc']['kernel']
    return jax.nn.relu(y) + y

  network = lowering.lower(apply, variables, jnp.ones((2, 3)))
  (layer,) = network.layers.values()
  assert (layer.low == -np.inf).all()
  x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
  np.testing.assert_allclose(program.run(network, x), apply(variables, x), rtol=1e-6)


def test_an_input_that_is_moved_first_is_cast_before():
  variables = {'fc': {'kernel': jnp.asarray(np.random.default_rng(0).standard_normal((12, 4)), jnp.float32)}}

  def apply(variables, x):
    return x.reshape(x.shape[0], -1) @ variables['fc']['kernel']

  x = jnp.asarray(np.random.default_rng(1).standard_normal((5, 3, 4)), jnp.float32)
  network = lowering.lower(apply, variables, x)
  assert [node.kind for node in network.program.nodes] == ['cast', 'move', 'layer']
  np.testing.assert_allclose(program.run(network, x), apply(variables, x), rtol=1e-5, atol=1e-6)


def test_reductions_over_channels_stay_in_float():
  variables = {'fc': {'kernel': jnp.eye(4)}}

  def apply(variables, x):
    y = x @ variables['fc']['kernel']
    y = (y - y.mean(-1, keepdims=True)) * jax.lax.rsqrt(y.var(-1, keepdims=True) + 1e-5)
    return y @ variables['fc']['kernel']

  network = lowering.lower(apply, variables, jnp.ones((2, 4)))
  kinds = {node.kind for node in network.program.nodes}
  assert kinds == {'cast', 'layer', 'float'}
  x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)), jnp.float32)
  np.testing.assert_allclose(program.run(network, x), apply(variables, x), rtol=1e-5, atol=1e-6)


def test_kernels_are_taken_as_the_network_uses_them():
  """Output channels first, as other frameworks store them."""
  random = np.random.default_rng(0)
  variables = {'conv': jnp.asarray(random.standard_normal((6, 3, 3, 2)), jnp.float32),
               'fc': jnp.asarray(random.standard_normal((5, 6)), jnp.float32)}

  def apply(variables, x):
    x = jax.lax.conv_general_dilated(x, variables['conv'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'OHWI', 'NHWC'))
    return x.max((1, 2)) @ variables['fc'].T

  x = jnp.asarray(random.standard_normal((2, 5, 5, 2)), jnp.float32)
  network = lowering.lower(apply, variables, x)
  assert [layer.kernel.shape for layer in network.layers.values()] == [(3, 3, 2, 6), (6, 5)]
  np.testing.assert_allclose(program.run(network, x), apply(variables, x), rtol=1e-5)


def test_outputs_that_do_not_depend_on_the_inputs_are_refused():
  with pytest.raises(ValueError, match='does not depend on its inputs'):
    lowering.lower(lambda variables, x: variables['a'], {'a': jnp.ones(2)}, jnp.ones((1, 2)))
