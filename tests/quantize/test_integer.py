"""Integers against the simulation, operation by operation; from end to end in test_zoo_in_integers.py."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import artifact
from lightjax.quantize import integer, lowering, simulation, storage


def quantized(built, **options):
  _, _, images, network = built
  return simulation.quantize(network, simulation.calibrate(network, images), **options)


@pytest.mark.parametrize('options', [
  {}, {'weight_bits': 3, 'activation_bits': 5, 'per_channel': False},
  pytest.param({'per_channel': False}, marks=pytest.mark.exhaustive),
  pytest.param({'weight_bits': 4}, marks=pytest.mark.exhaustive)])
def test_every_operation_is_within_one_step_of_its_simulation(mobile, steps_apart, options):
  network = quantized(mobile, **options)
  converted = integer.convert(network)
  assert not converted.floats
  found = steps_apart(network, converted, mobile[2])
  assert max(found.values()) <= 1, found
  maps = [node.name for node in network.network.program.nodes if node.kind in ('map', 'move', 'pool', 'concatenate')]
  assert {found[name] for name in maps} == {0}


def test_both_forms_of_accumulation_are_bit_identical(mobile):
  network = quantized(mobile)
  logits = [jax.jit(integer.convert(network, accumulation=form).apply)(mobile[2]) for form in ('integer', 'float')]
  assert (logits[0] == logits[1]).all()


def test_parameters_take_a_quarter_of_the_memory(zoo):
  network = quantized(zoo('resnet8', 16))
  converted = integer.convert(network)
  assert converted.size_bytes < 0.28 * integer.memory_bytes(network.network)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(converted.constants['stage3/block0/conv2']) if leaf.size > 1000}
  assert dtypes == {jnp.dtype('int8')}


def test_a_layer_left_in_float_runs_so_and_is_named(steps_apart):
  variables = {name: {'kernel': jnp.asarray(np.random.default_rng(0).standard_normal((4, 4)), jnp.float32)}
               for name in ('body', 'head')}
  x = jnp.asarray(np.random.default_rng(1).standard_normal((8, 4)), jnp.float32)
  lowered = lowering.lower(lambda variables, x: jax.nn.relu(
    x @ variables['body']['kernel']) @ variables['head']['kernel'], variables, x)
  network = simulation.quantize(lowered, simulation.calibrate(lowered, x), weight_bits=(('layer#2', None), ('.*', 8)))
  converted = integer.convert(network)
  assert converted.floats == {'layer#2': 'the layer was left in float'}
  line = next(line for line in str(converted).splitlines() if ' layer#2 ' in line)
  assert line.split(maxsplit=2) == ['layer', 'layer#2', 'float: the layer was left in float']
  assert max(steps_apart(network, converted, x).values()) <= 1


def test_unknown_operations_run_in_float_between_codes():
  variables = {'fc': {'kernel': jnp.asarray(np.random.default_rng(0).standard_normal((4, 4)), jnp.float32)}}

  def apply(variables, x):
    y = x @ variables['fc']['kernel']
    return jnp.sort(y) @ variables['fc']['kernel']

  x = jnp.asarray(np.random.default_rng(1).standard_normal((8, 4)), jnp.float32)
  network = lowering.lower(apply, variables, x)
  converted = integer.convert(simulation.quantize(network, simulation.calibrate(network, x)))
  assert list(converted.floats) == ['sort']
  assert 'float: sort' in str(converted)
  exact = apply(variables, x)
  assert jnp.abs(converted.apply(x) - exact).max() < 0.05 * jnp.abs(exact).max()


def test_a_bias_that_its_kernel_is_tiny_against_survives():
  """Channels that BatchNorm has all but switched off: an abs-max step would need a bias of more than 32 bits."""
  variables = {'fc': {'kernel': jnp.asarray([[1.0, 1e-20, 0.0]] * 4)}, 'bias': jnp.asarray([0.1, 0.7, -0.4])}

  def apply(variables, x):
    return jax.nn.sigmoid(x @ variables['fc']['kernel'] + variables['bias'])

  x = jnp.asarray(np.random.default_rng(1).standard_normal((8, 4)), jnp.float32)
  network = lowering.lower(apply, variables, x)
  for per_channel in (True, False):
    rough = simulation.quantize(network, simulation.calibrate(network, x), per_channel=per_channel)
    assert jnp.abs(integer.convert(rough).apply(x) - apply(variables, x)).max() < 0.02


def test_zero_stays_zero():
  grid = simulation.Grid(0.1, 37, 8)
  assert integer.decode(grid, integer.encode(grid, jnp.zeros(3))).tolist() == [0.0, 0.0, 0.0]


def test_the_artifact_gives_the_same_integers_back(mobile):
  apply, variables, images, _ = mobile
  network = quantized(mobile, weight_bits=4)
  found = artifact.from_bytes(artifact.to_bytes(network={}, **storage.stored(network)))
  zeros = lowering.lower(apply, jax.tree.map(jnp.zeros_like, variables), images)
  again = storage.restored(zeros, found.variables, found.encoded)
  assert again.grids == network.grids
  ones, others = integer.convert(again), integer.convert(network)
  assert (ones.grids, ones.floats, ones.accumulation) == (others.grids, others.floats, others.accumulation)
  jax.tree.map(np.testing.assert_array_equal, ones.constants, others.constants)
  kernels = [each for each in found.sizes.arrays if each.path.endswith('/kernel')]
  weights = sum(layer.kernel.size for layer in network.network.layers.values())
  assert sum(each.values for each in kernels) <= weights / 2 + 16 * len(kernels)


def test_files_of_another_network_are_refused(mobile, zoo):
  found = storage.stored(quantized(mobile))
  with pytest.raises(ValueError, match='of another network'):
    storage.restored(zoo('resnet8', 16)[3], found['variables'], found['encoded'])
