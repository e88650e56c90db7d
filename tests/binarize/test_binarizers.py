"""Levels against NumPy, gradients against closed forms, and sums that are exact whatever their order."""
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.binarize import binarizers

AXES = (0, 1, 2)
RNG = np.random.default_rng(0)
W = RNG.normal(scale=0.7, size=(3, 3, 4, 5)).astype(np.float32)
G = RNG.normal(size=W.shape).astype(np.float32)
N = 36


def call(name, weight, *, progress=0.5, key=None):
  function = getattr(binarizers, name)
  offered = {'weight': weight, 'axes': AXES, 'key': key, 'progress': jnp.float32(progress)}
  return function(**{each: offered[each] for each in inspect.signature(function).parameters})


def pulled(name, **options):
  """The gradient of sum(G * value) with respect to the weight."""
  return jax.grad(lambda weight: (G * call(name, weight, **options).value).sum())(jnp.asarray(W))


def signs(weight):
  return np.where(weight >= 0, np.float32(1), np.float32(-1))


def channel_mean(weight):
  return np.abs(weight).mean(AXES, keepdims=True)


SCALES = {
  'binary_connect': np.ones((1, 1, 1, 1)), 'bnn': np.ones((1, 1, 1, 1)), 'xnor': channel_mean(W),
  'dorefa': np.abs(W).mean(keepdims=True), 'bi_real': channel_mean(W),
}
INSIDE = np.abs(W) <= 1
GRADIENTS = {
  'binary_connect': G, 'dorefa': G, 'ternary': G, 'bnn': G * INSIDE, 'bi_real': G * channel_mean(W) * INSIDE,
  # Of sum_j g_j sign(w_j) mean|w|: g_i mean|w| through the sign, sign(w_i) / n sum_j g_j sign(w_j) through the mean.
  'xnor': G * channel_mean(W) * INSIDE + signs(W) / N * (G * signs(W)).sum(AXES, keepdims=True),
}


def test_every_binarizer_is_tested():
  assert set(binarizers.__all__) == {*GRADIENTS, 'ir_net', 'stochastic_binary_connect'}


@pytest.mark.parametrize('name', SCALES)
def test_two_levels_are_sign_times_scale(name):
  levels = jax.jit(lambda weight: call(name, weight))(W)
  np.testing.assert_array_equal(levels.codes, signs(W))
  np.testing.assert_allclose(levels.scale, SCALES[name], rtol=2**-18)  # 24 - ceil(log2 36) = 18 bits


@pytest.mark.parametrize('name', binarizers.__all__)
def test_trap_1_the_value_is_codes_times_scale_bit_for_bit_and_has_two_levels_a_channel(name):
  levels = call(name, jnp.asarray(W), key=jax.random.key(0))
  value = np.asarray(levels.value)
  np.testing.assert_array_equal(value, np.asarray(levels.codes) * np.asarray(levels.scale))
  count = 3 if name == 'ternary' else 2
  assert all(len(np.unique(value[..., channel])) == count for channel in range(5))


@pytest.mark.parametrize('name', binarizers.__all__)
def test_trap_3_zero_is_plus_and_trap_6_an_empty_channel_gives_no_nan(name):
  weight = jnp.asarray(W).at[..., 0].set(0).at[0, 0, 0, 1].set(0.0).at[0, 0, 0, 2].set(-0.0)
  levels = call(name, weight)
  if name == 'stochastic_binary_connect':
    np.testing.assert_array_equal(levels.value, weight)
    return
  codes = np.asarray(levels.codes)
  assert np.isfinite(levels.value).all() and np.isfinite(levels.scale).all()
  assert np.isfinite(jax.grad(lambda weight: (G * call(name, weight).value).sum())(weight)).all()
  if name == 'ternary':
    assert not codes[..., 0].any() and codes[0, 0, 0, 1] == codes[0, 0, 0, 2] == 0
  elif name != 'ir_net':  # which takes the mean away first
    assert (codes[..., 0] == 1).all() and codes[0, 0, 0, 1] == codes[0, 0, 0, 2] == 1


@pytest.mark.parametrize('name', GRADIENTS)
def test_gradients_are_the_closed_forms(name):
  np.testing.assert_allclose(pulled(name), GRADIENTS[name], rtol=1e-4, atol=1e-6)


def test_trap_2_a_weight_on_the_bound_keeps_its_gradient():
  weight = jnp.array([1.0, -1.0, 1.01]).reshape(1, 1, 1, 3)
  gradient = jax.grad(lambda weight: call('bnn', weight).value.sum())(weight)
  np.testing.assert_array_equal(gradient.reshape(-1), [1, 1, 0])


def test_stochastic_signs_have_the_papers_probability():
  weight = jnp.broadcast_to(jnp.array([-1.5, -1.0, -0.5, 0.0, 0.8, 1.0]), (1, 1, 20_000, 6))
  levels = call('stochastic_binary_connect', weight, key=jax.random.key(1))
  seen = np.asarray(levels.value).mean((0, 1, 2))
  np.testing.assert_allclose(seen, [-1, -1, -0.5, 0, 0.8, 1], atol=0.03)  # E = clip(w, -1, 1)
  assert set(np.unique(levels.value)) == {-1, 1}
  np.testing.assert_array_equal(pulled('stochastic_binary_connect', key=jax.random.key(1)), G)
  other = call('stochastic_binary_connect', weight, key=jax.random.key(2))
  assert (other.value != levels.value).any()


def test_without_a_key_the_stochastic_ones_real_weights_are_tested_and_stored():
  levels = call('stochastic_binary_connect', jnp.asarray(W))
  np.testing.assert_array_equal(levels.value, W)
  assert levels.codes is None and levels.scale is None


@pytest.mark.parametrize('progress', [0.0, 0.7])
def test_ir_net_is_the_papers_in_numpy(progress):
  weight = W * RNG.uniform(0.1, 5, 5).astype(np.float32) + RNG.normal(size=5).astype(np.float32)
  centred = weight.astype(np.float64) - weight.mean(AXES, keepdims=True, dtype=np.float64)
  deviation = np.sqrt((centred**2).mean(AXES, keepdims=True))
  z = centred / deviation
  scale = 2 ** np.round(np.log2(np.abs(z).mean(AXES, keepdims=True)))
  levels = call('ir_net', jnp.asarray(weight), progress=progress)
  np.testing.assert_array_equal(levels.codes, np.where(z >= 0, 1, -1))
  np.testing.assert_array_equal(levels.scale, scale)
  # Through z: with u = g * scale * slope, dw = (u - mean u - z mean(u z)) / deviation.
  t = 0.1 * 100**progress
  u = G * scale * max(1 / t, 1) * t * (1 - np.tanh(t * z) ** 2)
  expected = (u - u.mean(AXES, keepdims=True) - z * (u * z).mean(AXES, keepdims=True)) / deviation
  gradient = jax.grad(lambda weight: (G * call('ir_net', weight, progress=progress).value).sum())(jnp.asarray(weight))
  np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


def test_ternary_weights_are_the_papers_in_numpy():
  weight = W
  delta = 0.7 * np.abs(weight).mean()
  codes = np.where(weight > delta, 1, np.where(weight < -delta, -1, 0))
  levels = call('ternary', jnp.asarray(weight))
  np.testing.assert_array_equal(levels.codes, codes)
  np.testing.assert_allclose(levels.scale.reshape(()), np.abs(W)[codes != 0].mean(), rtol=2**-18)


@given(scale=st.floats(2.0**-20, 2.0**13, width=32), channels=st.integers(1, 700), seed=st.integers(0, 99))
def test_sums_of_a_scale_are_exact_in_every_order(scale, channels, seed):
  weight = jnp.zeros((3, 3, channels, 1))
  rounded = np.asarray(binarizers.exact_scale(jnp.full((1, 1, 1, 1), scale, jnp.float32), weight, AXES)).item()
  terms = 9 * channels
  assert abs(rounded - scale) <= scale * 2.0 ** (np.ceil(np.log2(terms)) - 24)
  signs_ = np.random.default_rng(seed).choice([-1, 1], terms)
  partial = np.cumsum(signs_.astype(np.float32) * np.float32(rounded), dtype=np.float32)
  np.testing.assert_array_equal(partial, np.cumsum(signs_) * np.float64(rounded))


def test_a_rounded_scale_passes_its_gradient():
  slope = jax.grad(lambda scale: binarizers.exact_scale(scale, jnp.zeros((3, 3, 64, 1)), AXES))(jnp.float32(0.3))
  assert slope == 1
