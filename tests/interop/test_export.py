"""Files for other runtimes against JAX and against our own integers; ONNX and LiteRT where the extra is installed."""
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from jax import lax

from lightjax import graph, models
from lightjax.interop import export
from lightjax.interop.export import marking, onnx_graph, processes, saving
from lightjax.nn.layers import ConvNorm
from lightjax.prune import surgery
from lightjax.quantize import integer, lowering, simulation

NETWORKS = {'lenet5': ({}, (28, 28, 1)), 'resnet8': ({}, (16, 16, 3)),
            'mobilenet_v2': ({'width': 0.35, 'stem': 'mnist', 'classes': 10}, (28, 28, 1))}
IN_INTEGERS = ['lenet5', 'small', *(pytest.param(name, marks=pytest.mark.exhaustive) for name in (
  'resnet8', 'mobilenet_v2'))]
RUNTIMES = [pytest.param(name, marks=pytest.mark.skipif(bool(export.missing(name)), reason=export.missing(name)))
            for name in ('onnx', 'litert')]


class Small(nn.Module):
  """An inverted residual, squeeze and excite, hard swish, a concatenation, a pooling and a shuffle of channels."""

  @nn.compact
  def __call__(self, x, train=False):
    x = ConvNorm(8, strides=2, activation=nn.relu6, name='stem')(x, train)
    y = ConvNorm(8, groups=8, activation=nn.hard_swish, name='depthwise')(x, train)
    x = nn.relu(x + ConvNorm(8, 1, activation=None, name='project')(y, train))
    x = x * nn.sigmoid(nn.Dense(8, name='gate')(x.mean((1, 2))))[:, None, None]
    x = jnp.concatenate([x, nn.max_pool(x, (3, 3), padding='SAME')], -1)
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, c // 2).swapaxes(3, 4).reshape(b, h, w, c)
    x = ConvNorm(8, groups=2, name='grouped')(x[:, ::2, ::2], train)
    return nn.Dense(5, name='head')(x.mean((1, 2)))


def built(name):
  """(apply, variables, images): statistics are none of a fresh network's."""
  arguments, shape = NETWORKS.get(name, ({}, (12, 12, 3)))
  random = np.random.default_rng(0)
  model = Small() if name == 'small' else models.create(name, **arguments)
  images = random.standard_normal((8, *shape), np.float32)
  variables = jax.jit(lambda key: model.init(key, images[:1], train=False))(jax.random.key(0, impl='rbg'))
  if 'batch_stats' in variables:
    variables = {**variables, 'batch_stats': jax.tree.map(
      lambda leaf: jnp.asarray(random.uniform(0.1, 0.5, leaf.shape), jnp.float32), variables['batch_stats'])}
  return lambda variables, x: model.apply(variables, x, train=False), variables, images


def quantized(name):
  apply, variables, images = built(name)
  network = lowering.lower(apply, variables, images)
  return simulation.quantize(network, simulation.calibrate(network, images)), images


def test_stablehlo_takes_any_batch_on_all_platforms(tmp_path):
  apply, variables, images = built('small')
  report = export.save(tmp_path / 'network.stablehlo', apply, variables, images, format='stablehlo')
  loaded = jax_export.deserialize(bytearray(report.path.read_bytes()))
  assert set(loaded.platforms) == {'cpu', 'cuda', 'tpu'}
  for batch in (1, 3):
    np.testing.assert_allclose(loaded.call(images[:batch]), apply(variables, images[:batch]), atol=1e-5)
  assert report.size_bytes == report.path.stat().st_size and report.examples == report.same == 8
  assert [path.name for path in tmp_path.iterdir()] == ['network.stablehlo']


def test_a_network_without_some_channels_takes_any_batch_as_well(tmp_path):
  apply, variables, images = built('lenet5')
  coupling = graph.channels(apply, variables, images[:1])
  half = {group.name: np.arange(group.size) % 2 == 0 for group in coupling.prunable}
  smaller = surgery.remove(apply, coupling, variables, half)
  report = export.save(
    tmp_path / 'network.stablehlo', smaller.apply, smaller.variables, images, format='stablehlo')
  logits = jax_export.deserialize(bytearray(report.path.read_bytes())).call(images[:3])
  np.testing.assert_allclose(logits, smaller.apply(smaller.variables, jnp.asarray(images[:3])), atol=1e-5)


def test_integers_as_stablehlo_are_bit_identical(tmp_path):
  network, images = quantized('lenet5')
  report = export.save_integers(tmp_path / 'network.stablehlo', network, images, format='stablehlo')
  logits = jax_export.deserialize(bytearray(report.path.read_bytes())).call(images[:5])
  assert (logits == integer.convert(network).apply(images[:5])).all()
  assert report.difference == 0


def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path, monkeypatch):
  apply, variables, images = built('lenet5')
  write = saving._stablehlo
  monkeypatch.setattr(saving, '_stablehlo', lambda function, shape: write(lambda x: 1.001 * function(x), shape))
  with pytest.raises(export.ExportError, match='computes something else'):
    export.save(tmp_path / 'network.stablehlo', apply, variables, images, format='stablehlo')
  assert not list(tmp_path.iterdir())


def test_what_is_missing_is_one_sentence_with_the_command(tmp_path, monkeypatch):
  apply, variables, images = built('lenet5')
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'onnxruntime' else find(name))
  with pytest.raises(export.ExportError, match=r"onnxruntime: pip install 'lightjax\[export\]'$"):
    export.save(tmp_path / 'network.onnx', apply, variables, images, format='onnx')
  with pytest.raises(export.ExportError, match="'tflite' is none of stablehlo, onnx, litert"):
    export.save(tmp_path / 'network', apply, variables, images, format='tflite')


@pytest.mark.parametrize('format', RUNTIMES)
@pytest.mark.parametrize('name', [*NETWORKS, 'small'])
def test_floats_agree_in_other_runtimes(tmp_path, name, format):
  report = export.save(tmp_path / 'network', *built(name), format=format)
  assert report.difference < 1e-4 and report.same == 8


@pytest.mark.parametrize('format', RUNTIMES)
@pytest.mark.parametrize('name', IN_INTEGERS)
def test_integers_agree_with_ours(tmp_path, name, format):
  network, images = quantized(name)
  report = export.save_integers(tmp_path / 'network', network, images, format=format)
  assert report.steps < 0.5 and report.same >= 7
  if name != 'small':
    assert report.size_bytes < 0.4 * integer.memory_bytes(network.network)


@pytest.mark.parametrize('format', RUNTIMES[:1])
def test_scales_and_codes_of_an_onnx_file_are_ours(format):
  import onnx
  from onnx import numpy_helper
  network, _ = quantized('resnet8')
  graph = onnx.load_from_string(onnx_graph.model(network)).graph
  held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
  scales = {(float(held[node.input[1]]), int(held[node.input[2]])) for node in graph.node
            if node.op_type == 'QuantizeLinear'}
  assert scales == {(np.float32(grid.scale), grid.zero_point) for grid in network.grids.values()}
  kernels = [each for each in held.values() if each.dtype == np.int8 and each.ndim == 4]
  codes = network.kernels['stage2/block0/conv1'].codes
  assert any(each.shape == codes.transpose(3, 2, 0, 1).shape and (each == codes.transpose(3, 2, 0, 1)).all()
             for each in kernels)


def test_scales_of_a_litert_module_are_ours():
  network, _ = quantized('resnet8')
  text = marking.text(network)
  for grid in network.grids.values():
    assert f'!quant.uniform<i8:f32, {grid.scale!r}:{grid.zero_point - 128}>' in text
  assert 'stablehlo.composite' not in text
  assert 'stage2/block0/conv1' in text  # the name of an operation is where an error of the converter stands


@pytest.mark.parametrize(('low', 'high', 'bits', 'zero_point', 'expected'), [
  (0, np.inf, 8, 0, (-np.inf, np.inf)), (0, 6, 8, 0, (-np.inf, 6)), (0, np.inf, 8, 9, (0, np.inf)),
  (-np.inf, np.inf, 4, 0, (-np.inf, 1.5)), (-30, 30, 8, 100, (-np.inf, np.inf))])
def test_clips_that_codes_do_by_themselves_are_left_out(low, high, bits, zero_point, expected):
  assert marking.clips(low, high, simulation.Grid(0.1, zero_point, bits)) == pytest.approx(expected)


class Sorted(nn.Module):
  """An operation that neither our writer nor, in codes, any format has."""

  @nn.compact
  def __call__(self, x):
    return lax.cumsum(nn.Dense(4, name='fc')(x.reshape(x.shape[0], -1)), axis=1)


def of_sorted():
  images = np.random.default_rng(0).standard_normal((4, 2, 2, 1)).astype(np.float32)
  return Sorted().apply, Sorted().init(jax.random.key(0), images), images


def test_an_operation_without_a_place_is_named_with_its_module():
  apply, variables, images = of_sorted()
  network = lowering.lower(apply, variables, images)
  pytest.importorskip('onnx', reason="pip install 'lightjax[export]'")
  with pytest.raises(export.ExportError, match="cumsum: no ONNX operators are known for 'cumsum'"):
    onnx_graph.model(simulation.quantize(network, simulation.calibrate(network, images)))


@pytest.mark.exhaustive
@pytest.mark.skipif(bool(export.missing('jax2onnx')), reason=export.missing('jax2onnx'))
def test_jax2onnx_writes_what_our_writer_does_not_know(tmp_path):
  report = export.save(tmp_path / 'network.onnx', *of_sorted(), format='onnx')
  assert report.difference < 1e-5


@pytest.mark.skipif(bool(export.missing('litert')), reason=export.missing('litert'))
def test_a_converter_that_fails_is_one_sentence(tmp_path):
  with pytest.raises(export.ExportError, match=r'^litert_converter: .*[Ee]rror'):
    processes.to_litert('this is no module', tmp_path / 'network.tflite')
