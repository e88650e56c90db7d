"""Codes and ranges of training in an integer network: the very same ones, and the logits of the trained simulation."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core.encoded import Encoded, Integers
from lightjax.core.transform import chain, where
from lightjax.quantize import activations, folded, formats, integer, lowering, scales, simulation, trained, weights
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (16, 6, 6, 3))


class Network(nn.Module):
  """Folded BatchNorm, a residual and a mean: the sum and the mean are read by nothing that has a trained range."""

  @nn.compact
  def __call__(self, x, train=False):
    y = nn.Conv(4, (3, 3), name='first')(x)
    y = nn.relu(nn.BatchNorm(use_running_average=not train, name='norm')(y))
    y = nn.relu(y + nn.Conv(4, (1, 1), use_bias=False, name='second')(y))
    return nn.Dense(5, name='head')(y.mean((1, 2)))


def model_variables():
  variables = jax.tree.map(np.asarray, jax.jit(Network().init)(jax.random.key(0), X))
  variables['batch_stats']['norm'] = {'mean': np.float32([0.1, -0.2, 0, 0.3]), 'var': np.float32([0.5, 1, 2, 0.7])}
  # Factors below zero and of zero are folded as well.
  variables['params']['norm'] = {'scale': np.float32([1.5, -0.7, 0, 2]), 'bias': np.float32([0.2, 0.4, 0.6, -0.1])}
  return variables


@functools.cache
def after_training(method, skip=('not_kernel',)):
  """(variables of the view, what is stored, logits of the simulation) after one batch that the ranges see."""
  variables = model_variables()
  compressed = bind(Network(), variables, where((('.*/kernel', method),), skip=skip), X)
  own = compressed.init(variables)
  _, observed = compressed.apply(variables, own, X, observe=True)
  own = compressed.update(variables, own, step=1, observed=observed)[1]
  view = compressed.transform.view(variables, own, None)
  return view, compressed.transform.finalize(variables, own), compressed.apply(variables, own, X)


EIGHT = chain(folded(weights(bits=8)), activations(bits=8))
FOUR = chain(weights(bits=4, scale=scales.lsq), activations(bits=4, scale=scales.lsq, format=formats.symmetric))


def assembled(view, encoded):
  network = lowering.lower(lambda variables, x: Network().apply(variables, x), view, X)
  return trained.assemble(network, encoded, simulation.calibrate(network, X))


@pytest.mark.parametrize(('method', 'signs'), [(EIGHT, [1, 1, 0, 1]), (FOUR, [1, -1, 0, 1])], ids=['folded', 'LSQ'])
def test_codes_and_ranges_are_those_of_training(method, signs):
  view, encoded, _ = after_training(method)
  quantized = assembled(view, encoded)
  assert set(quantized.kernels) == {'first', 'second', 'head'}
  for name, integers in quantized.kernels.items():
    stored = np.asarray(encoded.parameters[f'{name}/kernel'].codes)
    # The sign of BatchNorm's factor is in the codes, unless they were made with it.
    np.testing.assert_array_equal(integers.codes, stored * (signs if name == 'first' else 1))
    assert (np.asarray(integers.scale) > 0).all()
  program = quantized.network.program
  for node in program.layers:
    grid, frozen = quantized.grids[program.grids[node.inputs[0]]], encoded.activations[node.name][0]
    assert (grid.scale, grid.bits) == (frozen['scale'], frozen['bits'])


def test_integers_compute_what_was_simulated_in_training():
  view, encoded, simulated = after_training(EIGHT)
  quantized = assembled(view, encoded)
  assert not integer.convert(quantized).floats
  logits = integer.convert(quantized).apply(X)
  # Two more roundings than in training: of the sum and of the residual's second term.
  assert float(jnp.abs(logits - simulated).max()) < 0.03 * float(jnp.abs(simulated).max())


def test_layers_that_training_left_in_float_stay_so():
  view, encoded, _ = after_training(EIGHT, skip=('not_kernel', 'first_conv', 'last_dense'))
  quantized = assembled(view, encoded)
  assert set(quantized.kernels) == {'second'}
  assert 'cast' not in quantized.grids  # which only the first layer reads
  assert {'first', 'head'} <= set(integer.convert(quantized).floats)


def test_the_input_of_several_layers_has_the_union_of_their_ranges():
  variables = {name: {'kernel': jnp.eye(3)} for name in ('left', 'right')}
  x = jnp.ones((2, 3))

  def apply(variables, x):
    with jax.named_scope('left'):
      left = x @ variables['left']['kernel']
    with jax.named_scope('right'):
      return left + x @ variables['right']['kernel']

  network = lowering.lower(apply, variables, x)
  names = [node.name for node in network.program.layers]
  ranges = [{'scale': 1 / 256, 'zero_point': 0, 'bits': 8}, {'scale': 1 / 64, 'zero_point': 128, 'bits': 8}]
  encoded = Encoded({}, {name: [each] for name, each in zip(names, ranges, strict=True)})
  grid = trained.assemble(network, encoded, {}).grids['cast']
  low, high = -grid.zero_point * grid.scale, (255 - grid.zero_point) * grid.scale
  assert low == pytest.approx(-2, abs=grid.scale) and high == pytest.approx(127 / 64, abs=grid.scale)


@pytest.mark.parametrize(('integers', 'message'), [
  (Integers(np.ones((3, 3), 'float8_e4m3fn'), np.float32([[1.0]]), 8), 'format of integers'),
  (Integers(np.full((3, 3), 127, np.int8), np.float32([[1.0]]), 8, np.float32(-128)), '255 steps from zero'),
  (Integers(np.ones((4, 2), np.int8), np.float32([[1, 1], [2, 2]]), 8), 'each group of inputs')])
def test_what_has_no_place_in_integers_is_refused_by_name(integers, message):
  kernel = np.asarray(integers._replace(codes=jnp.asarray(integers.codes), scale=jnp.asarray(integers.scale)).decode())
  variables = {'fc': {'kernel': jnp.asarray(kernel)}}

  def apply(variables, x):
    with jax.named_scope('fc'):
      return x @ variables['fc']['kernel']

  network = lowering.lower(apply, variables, jnp.ones((1, kernel.shape[0])))
  network = network._replace(layers={'fc': next(iter(network.layers.values()))}, program=network.program._replace(
    nodes=tuple(node._replace(name='fc') if node.kind == 'layer' else node for node in network.program.nodes)))
  with pytest.raises(ValueError, match=f"'fc/kernel'.*{message}"):
    trained.assemble(network, Encoded({'fc/kernel': integers}, {}), {})


def test_half_steps_are_twice_as_many_whole_ones():
  found = trained._levels('fc/kernel', Integers(np.int8([[-2, 1]]), np.float32([[0.5]]), 2, np.float32(-0.5)))
  np.testing.assert_array_equal(found.codes, [[-3, 3]])
  np.testing.assert_array_equal(found.decode(), [[-0.75, 0.75]])


def test_what_is_stored_and_not_used_is_an_error():
  network = lowering.lower(lambda variables, x: x @ variables['fc']['kernel'], {'fc': {'kernel': jnp.eye(3)}}, X[0, 0])
  other = Integers(jnp.ones((3, 3), jnp.int8), jnp.ones((1, 1)), 8)
  with pytest.raises(ValueError, match="'other/kernel' is stored as integers, but no layer"):
    trained.assemble(network, Encoded({'other/kernel': other}, {}), {})
  with pytest.raises(ValueError, match="'other' has a range for its input, but is no layer"):
    trained.assemble(network, Encoded({}, {'other': [{'scale': 1.0, 'zero_point': 0, 'bits': 8}]}), {})
