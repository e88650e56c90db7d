"""Calibration, equalization, absorption, bias correction, AdaRound and the report."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.quantize import bias, equalization, lowering, program, report, rounding, simulation

RANDOM = np.random.default_rng(0)


def run(network, x):
  """The network, compiled."""
  return jax.jit(lambda layers: program.run(network._replace(layers=layers), x))(network.layers)


def simulate(quantized, x):
  """The quantized network, compiled."""
  return jax.jit(lambda x: simulation.simulate(quantized, x))(x)


def error(one, other):
  return float(jnp.abs(one - other).max() / jnp.abs(other).max())


@pytest.fixture(scope='module')
def uneven(mobile):
  """Channels of very different sizes between expand, depthwise and project, which cancel."""
  images, network = mobile[2:]
  factor = jnp.asarray(10.0 ** np.random.default_rng(1).uniform(-2, 2, 24), jnp.float32)
  layers = dict(network.layers)
  expand, depthwise = layers['expand/conv'], layers['depthwise/conv']
  layers['expand/conv'] = program.Layer(*(each * factor for each in expand))
  layers['depthwise/conv'] = depthwise._replace(kernel=depthwise.kernel / factor)
  return images, network._replace(layers=layers)


def test_ranges_are_those_of_the_tensors(mobile):
  images, network = mobile[2:]
  ranges = simulation.calibrate(network, images[:2], images[2:])
  each = np.asarray(images).reshape(2, -1)  # the means over batches
  np.testing.assert_allclose(ranges['cast'], (each.min(1).mean(), each.max(1).mean()), rtol=1e-6)
  assert ranges['expand/conv'][0] == 0
  assert 0 < ranges['expand/conv'][1] <= 6
  assert all(network.program.grids[name] == name for name in ranges)
  with pytest.raises(ValueError, match='no batch'):
    simulation.calibrate(network)
  with pytest.raises(ValueError, match='is the network sound'):
    simulation.calibrate(network, images.at[0].set(jnp.nan))


def test_rules_give_bits_by_layer(mobile):
  images, network = mobile[2:]
  ranges = simulation.calibrate(network, images)
  found = simulation.quantize(network, ranges, weight_bits=(('stem/.*', 8), ('head', None), ('.*', 4)))
  assert found.kernels['stem/conv'].bits == 8
  assert 'head' not in found.kernels
  assert found.kernels['last'].bits == 4
  assert len(np.unique(found.kernels['last'].codes)) <= 15
  with pytest.raises(ValueError, match=r"'stage9/.*' takes no layer; nearest"):
    simulation.quantize(network, ranges, weight_bits=(('stage9/.*', 8), ('.*', 4)))


def test_simulation_is_the_float_network_with_rounded_kernels_and_tensors(mobile):
  """One layer, restated in NumPy."""
  images, network = mobile[2:]
  found = simulation.quantize(network, simulation.calibrate(network, images))
  low, high = float(images.min()), float(images.max())
  scale = np.float32((high - low) / 255)
  zero = np.round(-low / scale)
  x = (np.clip(np.round(np.asarray(images) / scale) + zero, 0, 255) - zero) * scale
  layer = network.layers['stem/conv']
  steps = np.abs(layer.kernel).max((0, 1, 2)) / 127
  kernel = np.round(layer.kernel / steps) * steps
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
  y = np.clip(np.einsum('nhwcij,ijco->nhwo', windows, kernel) + np.asarray(layer.bias), 0, 6)
  seen = {}
  simulation.sweep(network, found, images, watch=lambda tensor, value, rounded: seen.update({tensor: rounded}))
  grid = found.grids['stem/conv']
  assert np.abs(seen['stem/conv'] - y).max() <= 0.501 * grid.scale + 1e-5


@pytest.mark.parametrize('fixture', ['mobile', 'uneven'])
def test_equalization_keeps_the_function_with_relu6(request, fixture):
  images, network = request.getfixturevalue(fixture)[-2:]
  equal = equalization.equalize(network)
  assert error(run(equal, images), run(network, images)) < 1e-5


def test_equalization_makes_ranges_equal(uneven):
  network = uneven[1]
  equal = equalization.equalize(network)
  found = equalization.pairs(network.program)
  assert [(pair.first.name, [reader.name for reader in pair.readers]) for pair in found] == [
    ('expand/conv', ['depthwise/conv']), ('depthwise/conv', ['project/conv'])]
  expand, depthwise, project = (equal.layers[f'{name}/conv'].kernel for name in ('expand', 'depthwise', 'project'))
  made, filtered = np.abs(expand).max((0, 1, 2)), np.abs(depthwise).max((0, 1, 2))
  np.testing.assert_allclose(made, filtered, rtol=0.02)
  np.testing.assert_allclose(filtered, np.abs(project).max((0, 1, 3)), rtol=0.02)


def test_equalization_recovers_what_one_step_a_kernel_loses(uneven):
  images, network = uneven
  exact = run(network, images)

  def sqnr(network, **options):
    quantized = simulation.quantize(network, simulation.calibrate(network, images), **options)
    return report.sqnr_db(exact, simulate(quantized, images))

  lost = sqnr(network, per_channel=False)
  assert sqnr(equalization.equalize(network), per_channel=False) > lost + 3


def test_a_layer_with_several_readers_and_groups_is_equalized():
  random = np.random.default_rng(0)
  variables = {name: jnp.asarray(random.standard_normal(shape), jnp.float32) for name, shape in (
    ('a', (1, 1, 3, 8)), ('b', (3, 3, 2, 12)), ('c', (1, 1, 8, 5)))}

  def conv(x, kernel, groups=1):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)

  def apply(variables, x):
    x = jax.nn.relu(conv(x, variables['a']))
    return conv(x, variables['b'], 4).mean((1, 2)), conv(x, variables['c']).mean((1, 2))

  x = jnp.asarray(random.standard_normal((2, 5, 5, 3)), jnp.float32)
  network = lowering.lower(apply, variables, x)
  equal = equalization.equalize(network)
  for one, other in zip(run(equal, x), apply(variables, x), strict=True):
    assert error(one, other) < 1e-5
  first, second, third = (np.abs(layer.kernel) for layer in equal.layers.values())
  grouped = second.reshape(9, 2, 4, 3).max((0, 3)).T.reshape(-1)  # channel g * 2 + row
  np.testing.assert_allclose(first.max((0, 1, 2)), np.maximum(grouped, third.max((0, 1, 3))), rtol=1e-4)


def absorbing(padding):
  random = np.random.default_rng(0)
  variables = {'a': jnp.asarray(random.standard_normal((1, 1, 3, 4)), jnp.float32),
               'bias': jnp.asarray([20.0, 9.0, 0.0, -5.0]),
               'b': jnp.asarray(random.standard_normal((3, 3, 4, 5)), jnp.float32)}

  def apply(variables, x):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    x = jax.nn.relu(jax.lax.conv_general_dilated(x, variables['a'], (1, 1), 'VALID', dimension_numbers=numbers)
                    + variables['bias'])
    return jax.lax.conv_general_dilated(x, variables['b'], (1, 1), padding, dimension_numbers=numbers)

  x = jnp.asarray(random.uniform(-1, 1, (4, 6, 6, 3)), jnp.float32)
  return apply, variables, x


def test_high_biases_are_absorbed():
  apply, variables, x = absorbing('VALID')
  network = lowering.lower(apply, variables, x)
  found = equalization.absorb(network, x[:2], x[2:], deviations=5.0)
  before = np.einsum('nhwi,io->nhwo', x, variables['a'][0, 0]) + np.asarray(variables['bias'])
  shift = np.maximum(0, before.mean((0, 1, 2)) - 5 * before.std((0, 1, 2)))
  assert (shift > 0).tolist() == [True, True, False, False]
  np.testing.assert_allclose(network.layers['layer'].bias - found.layers['layer'].bias, shift, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(run(found, x), apply(variables, x), rtol=1e-4, atol=1e-4)


def test_nothing_is_absorbed_into_a_layer_that_pads_with_zeros():
  apply, variables, x = absorbing('SAME')
  network = lowering.lower(apply, variables, x)
  found = equalization.absorb(network, x)
  assert (found.layers['layer'].bias == network.layers['layer'].bias).all()


def test_bias_correction_gives_every_channel_the_mean_that_it_had_before_its_kernel_was_rounded(mobile):
  images, network = mobile[2:]
  rough = simulation.quantize(network, simulation.calibrate(network, images), weight_bits=3)
  corrected = bias.correct(network, rough, images)
  for before, after in ((True, rough), (False, corrected)):
    means = {}

    def visit(site, means=means, after=after):
      rounded = after.network.layers[site.node.name]
      exact, found = (program.affine(site.node, layer, site.x_quantized) for layer in (site.layer, rounded))
      axes = tuple(range(exact.ndim - 1))
      means[site.node.name] = float(jnp.abs(exact.mean(axes) - found.mean(axes)).max())
      return site.kernel, rounded.bias

    simulation.sweep(network, after, images, visit)
    assert max(means.values()) > 1e-2 if before else max(means.values()) < 1e-5
  exact = run(network, images)
  assert report.sqnr_db(exact, simulate(corrected, images)) > report.sqnr_db(
    exact, simulate(rough, images))


def test_adaround_rounds_to_neighbours_and_lowers_the_error():
  apply, variables, images = absorbing('SAME')
  network = lowering.lower(apply, variables, images)
  nearest = simulation.quantize(network, simulation.calibrate(network, images), weight_bits=3)
  learned = rounding.adaround(network, nearest, images, key=jax.random.key(0), steps=300, positions=100, batch=64)
  for name, kernel in learned.kernels.items():
    exact = network.layers[name].kernel / kernel.scale
    assert (jnp.abs(kernel.codes - jnp.clip(exact, -3, 3)) < 1 + 1e-4).all()
  assert any((kernel.codes != nearest.kernels[name].codes).any() for name, kernel in learned.kernels.items())
  exact = run(network, images)
  gain = report.sqnr_db(exact, simulate(learned, images)) - report.sqnr_db(
    exact, simulate(nearest, images))
  assert gain > 1


def test_the_rectified_sigmoid_reaches_both_ends():
  h = rounding.rectified_sigmoid(jnp.array([-10.0, 0.0, 10.0]))
  assert h.tolist() == [0.0, 0.5, 1.0]


def test_report_and_sensitivity_are_what_their_names_say(mobile):
  images, network = mobile[2:]
  rough = simulation.quantize(network, simulation.calibrate(network, images), weight_bits=4)
  lines = report.by_layer(network, rough, images)
  assert [line.layer for line in lines] == [node.name for node in network.program.layers]
  for line in lines:
    exact, kernel = (np.asarray(each.layers[line.layer].kernel, np.float64) for each in (network, rough.network))
    assert line.weight_sqnr_db == pytest.approx(10 * np.log10((exact**2).sum() / ((exact - kernel) ** 2).sum()))
  alone = report.sensitivity(network, rough, images)
  only = simulation.Quantized(
    network._replace(layers={**network.layers, 'last': rough.network.layers['last']}), {},
    {name: grid for name, grid in rough.grids.items() if name == network.program.grids[
      next(node for node in network.program.layers if node.name == 'last').inputs[0]]})
  expected = report.sqnr_db(run(network, images), simulate(only, images))
  assert alone['last'] == pytest.approx(expected, abs=0.1)
  text = report.table([line._replace(alone_sqnr_db=alone[line.layer]) for line in lines])
  assert text.splitlines()[0].split() == ['layer', 'bits', 'low', 'high', 'weight', 'dB', 'output', 'dB', 'alone', 'dB']
  ends = {line.layer: (line.low, line.high) for line in lines}
  assert ends['stem/conv'][0] == 0 and 0 < ends['stem/conv'][1] <= 6  # of a ReLU6
  assert ends['head'] == (None, None)  # the logits are not rounded
  assert len(text.splitlines()) == 10
