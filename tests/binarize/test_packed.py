"""Packed layers give the simulated layers' numbers, to the last bit."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import binarize, models
from lightjax.binarize import binarizers, packed
from lightjax.core.encoded import Integers
from lightjax.core.transform import chain, where
from lightjax.nn.blocks.binary import BinaryBlock
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.residual import PreActBlock
from lightjax.nn.layers import ConvNorm
from lightjax.train.compression import bind


def signs(x):
  return jnp.where(x >= 0, 1.0, -1.0)


def normal(rng, shape):
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def stored(weight, binarizer=binarizers.xnor):
  """The integers and the view of a kernel, as the transform has them."""
  axes = tuple(range(weight.ndim - 1))
  levels = binarizer(jnp.asarray(weight), axes)
  return Integers(np.asarray(levels.codes, np.int8), np.asarray(levels.scale), 1), levels.value


def equal(a, b):
  np.testing.assert_array_equal(np.asarray(a).view(np.int32), np.asarray(b).view(np.int32))


@pytest.mark.parametrize('n', [1, 31, 32, 33, 100])
def test_words_hold_the_bits_in_order_and_zeros_after_them(n):
  rows = 3
  x = normal(np.random.default_rng(n), (rows, n))
  words = np.asarray(packed.pack(x))
  assert words.dtype == np.uint32 and words.shape == (rows, -(-n // 32))
  bits = np.unpackbits(words.astype('<u4').view(np.uint8).reshape(rows, -1), axis=1, bitorder='little')
  np.testing.assert_array_equal(bits[:, :n], x >= 0)
  assert not bits[:, n:].any()


@pytest.mark.parametrize('words', [1, 7, 8, 9, 17])
def test_differing_bits_are_counted(words):
  rng = np.random.default_rng(words)
  x, w = (rng.integers(0, 2**32, shape, dtype=np.uint32) for shape in ((5, words), (words, 6)))
  expected = np.bitwise_count(x[:, :, None] ^ w[None]).sum(1)
  np.testing.assert_array_equal(jax.jit(packed.count_differences)(jnp.asarray(x), jnp.asarray(w)), expected)


@pytest.mark.parametrize('n, binarizer', [
  (1, binarizers.xnor), (32, binarizers.xnor), (100, binarizers.dorefa), (1024, binarizers.bi_real)])
def test_a_dense_layer_is_the_simulated_one_bit_for_bit(n, binarizer):
  rng = np.random.default_rng(n)
  x = normal(rng, (2, 3, n)).at[..., ::7].set(0)  # which counts as plus
  integers, kernel = stored(normal(rng, (n, 10)), binarizer)
  simulated = jax.jit(jnp.matmul)(signs(x), kernel)
  equal(jax.jit(packed.dense)(x, packed.pack_kernel(integers)), simulated)


CONVOLUTIONS = [
  (channels, window, strides, padding)
  for channels, window in ((3, (1, 1)), (32, (2, 3)), (70, (3, 3)))
  for strides, padding in (((2, 2), 'SAME'), ((2, 1), 'VALID'), ((1, 3), ((0, 2), (3, 0))))]


@pytest.mark.parametrize('channels, window, strides, padding', CONVOLUTIONS)
def test_trap_19_a_convolution_is_the_simulated_one_with_its_zero_padding_bit_for_bit(
  channels, window, strides, padding,
):
  rng = np.random.default_rng(channels)
  x = normal(rng, (2, 7, 8, channels))
  integers, kernel = stored(normal(rng, (*window, channels, 5)))
  simulated = jax.lax.conv_general_dilated(
    signs(x), kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  on_bits = jax.jit(lambda x, kernel: packed.conv(x, kernel, strides=strides, padding=padding))
  equal(on_bits(x, packed.pack_kernel(integers)), simulated)


def test_padding_with_zeros_is_neither_sign():
  """The control that the test above can see the fault: padding with -1 gives other numbers."""
  x = jnp.ones((1, 3, 3, 4))
  integers, _ = stored(jnp.ones((3, 3, 4, 1)))
  y = packed.conv(x, packed.pack_kernel(integers), padding='SAME')
  np.testing.assert_array_equal(y[0, :, :, 0], 4 * np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]]))


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('unit', [False, True], ids=['signs', 'units'])
@pytest.mark.parametrize('binarizer', [binarizers.xnor, binarizers.ternary])
def test_two_planes_of_bits_and_inputs_of_one_and_zero_are_the_simulated_ones_bit_for_bit(binarizer, unit, padding):
  rng = np.random.default_rng(0)
  x = normal(rng, (2, 6, 7, 40)).at[0, 0, :, ::3].set(0.5)
  integers, kernel = stored(normal(rng, (3, 3, 40, 5)), binarizer)
  on_bits = packed.pack_kernel(integers)
  assert (on_bits.nonzero is None) == (binarizer is binarizers.xnor)
  given = jnp.where(x >= 0.5, 1.0, 0.0) if unit else signs(x)
  simulated = jax.lax.conv_general_dilated(given, kernel, (2, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  equal(jax.jit(lambda x: packed.conv(x, on_bits, strides=(2, 1), padding=padding, unit=unit))(x), simulated)
  integers, kernel = stored(normal(rng, (40, 5)), binarizer)
  on_bits = packed.pack_kernel(integers)
  equal(jax.jit(lambda x: packed.dense(x, on_bits, unit=unit))(x), jax.jit(jnp.matmul)(given, kernel))


def test_a_packed_ternary_kernel_is_two_bits_a_weight():
  integers, _ = stored(normal(np.random.default_rng(0), (3, 3, 64, 16)), binarizers.ternary)
  kernel = packed.pack_kernel(integers)
  assert kernel.words.nbytes + kernel.nonzero.nbytes == 2 * 3 * 3 * 64 * 16 / 8
  codes = np.asarray(integers.codes)
  np.testing.assert_array_equal(kernel.terms, (codes != 0).sum((0, 1, 2)))
  bits = np.unpackbits(np.moveaxis(np.asarray(kernel.nonzero), 2, -1).copy().view(np.uint8), axis=-1, bitorder='little')
  np.testing.assert_array_equal(bits, np.moveaxis(codes != 0, 2, -1))


@pytest.mark.parametrize('shape, scale, codes, message', [
  ((3, 4, 5), 1.0, 1, r'codes of shape \(3, 4, 5\)'), ((4, 5), 1.0, 2, 'a weight is 1, -1 or 0'),
  ((4, 5), np.ones((4, 1)), 1, 'differs within an output channel'),
])
def test_kernels_that_cannot_be_packed_are_refused(shape, scale, codes, message):
  with pytest.raises(ValueError, match=message):
    packed.pack_kernel(Integers(np.full(shape, codes, np.int8), np.asarray(scale, np.float32), 1))


# Whole networks.


def both(model, x, method):
  """Output of the simulated network, and of the stored one on packed bits."""
  variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), x)
  variables = jax.tree.map(
    lambda leaf: leaf + np.float32(0.01) * np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape) % 0.3, variables)
  compressed = bind(model, variables, method, x)
  own = compressed.init(variables)
  view, encoded = jax.jit(compressed.transform.view)(variables, own, None), compressed.transform.finalize(
    variables, own)
  simulated = jax.jit(compressed.apply)(variables, own, x)
  seen = []

  def count(following, args, kwargs, about):
    if about.method_name == '__call__' and type(about.module).__name__ in ('Conv', 'Dense'):
      seen.append('/'.join(about.module.path))
    return following(*args, **kwargs)

  bits = packed.interceptor(encoded)

  @jax.jit
  def on_bits(view, x):
    signs_ = binarize.frozen_interceptor(encoded.activations)
    with nn.intercept_methods(signs_), nn.intercept_methods(bits), nn.intercept_methods(count):
      return model.apply(view, x)

  return simulated, on_bits(view, x), seen, encoded


def everywhere(weights, activations, rules, skip):
  return chain(where(rules(weights), skip=skip), where(rules(activations), skip=skip))


def test_a_perceptron_computes_the_same_outputs_on_packed_bits():
  method = everywhere(
    binarize.weights(binarizers.bnn, clip=1.0), binarize.activations(binarize.estimators.hard_tanh),
    lambda each: (('fc1/.*', None), ('.*', each)), ('not_kernel',))
  x = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
  simulated, on_bits, real, encoded = both(models.create('binary_mlp', width=70, activation='hard_tanh'), x, method)
  equal(on_bits, simulated)
  assert real == ['fc1'] and len(encoded.parameters) == 3


class Residual(nn.Module):
  """A block of each of the three residual networks."""

  @nn.compact
  def __call__(self, x, train=False):
    x = ConvNorm(6, activation=None, name='stem')(x, train)
    x = BinaryBlock(6, name='bi_real')(x, train)
    x = BinaryBlock(40, 2, learned=True, name='react')(x, train)
    x = PreActBlock(8, activation=nn.hard_tanh, name='xnor')(x, train)
    return classify(x, 5)


def test_a_residual_network_computes_the_same_logits_on_packed_bits():
  method = everywhere(
    binarize.weights(binarizers.xnor, clip=1.0), binarize.activations(binarize.estimators.polynomial),
    lambda each: (('.*/shortcut_conv/.*', None), ('.*', each)), ('not_kernel', 'first_conv', 'last_dense'))
  x = jax.random.normal(jax.random.key(2), (2, 9, 9, 3))
  simulated, on_bits, real, encoded = both(Residual(), x, method)
  equal(on_bits, simulated)
  assert sorted(real) == ['classifier', 'react/shortcut_conv', 'stem/conv', 'xnor/shortcut_conv']
  assert sorted(encoded.parameters) == [
    'bi_real/conv/kernel', 'react/conv/kernel', 'xnor/conv1/kernel', 'xnor/conv2/kernel']


@pytest.mark.parametrize('weights, activations', [
  (binarize.weights(binarizers.ternary, clip=None), binarize.activations(binarize.estimators.unit)),
  (binarize.weights(binarizers.xnor, clip=1.0), binarize.activations(binarize.estimators.hard_tanh, scaled=True))],
  ids=['ternary units', 'XNOR-Net with scaled inputs'])
def test_networks_of_other_levels_compute_the_same_on_packed_bits(weights, activations):
  class Small(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      x = nn.Conv(34, (3, 3), name='first')(x)
      x = nn.Conv(8, (3, 3), strides=2, name='second')(x)
      return nn.Dense(5, name='last')(x.mean((1, 2)))

  method = everywhere(weights, activations, lambda each: (('first/.*', None), ('.*', each)), ('not_kernel',))
  simulated, on_bits, real, encoded = both(Small(), jax.random.normal(jax.random.key(2), (2, 8, 8, 3)), method)
  equal(on_bits, simulated)
  assert real == ['first'] and sorted(encoded.parameters) == ['last/kernel', 'second/kernel']


def test_layers_that_are_not_plain_are_refused():
  class Grouped(nn.Module):
    groups: int = 1
    dtype: object = None

    @nn.compact
    def __call__(self, x):
      return nn.Conv(4, (3, 3), feature_group_count=self.groups, dtype=self.dtype, name='conv')(x)

  x = jnp.ones((1, 5, 5, 4))
  method = everywhere(
    binarize.weights(binarizers.bnn, clip=1.0), binarize.activations(binarize.estimators.hard_tanh),
    lambda each: (('.*', each),), ('not_kernel',))
  with pytest.raises(ValueError, match='conv: only plain convolutions'):
    both(Grouped(2), x, method)
  with pytest.raises(ValueError, match='conv: packed layers compute in float32, and this one in bfloat16'):
    both(Grouped(dtype=jnp.bfloat16), x, method)
