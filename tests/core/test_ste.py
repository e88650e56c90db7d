import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightjax.core import ste

# Bounds included, and a few values on and beside them, where gradients go wrong.
POINTS = jnp.array([-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 1.5, 2.5], jnp.float32)


def floats(bound=100.0):
  return hnp.arrays(np.float32, 16, elements=st.floats(-bound, bound, width=32, allow_subnormal=False)).map(jnp.asarray)


def bits(x):
  return np.asarray(x).view(np.int32)


def int4(x):
  return jnp.clip(jnp.round(x / 0.1), -7, 7) * jnp.asarray(0.1, x.dtype)


QUANTIZED = {
  'straight_through': (
    lambda x: ste.straight_through(x, int4(x)),
    lambda x: np.clip(np.round(x / np.float32(0.1)), -7, 7) * np.float32(0.1)),
  'round_': (ste.round_, np.round),
  'clip': (lambda x: ste.clip(x, -1.0, 1.0), lambda x: np.clip(x, np.float32(-1), np.float32(1))),
  'sign': (ste.sign, lambda x: np.where(x >= 0, np.float32(1), np.float32(-1))),
}


@jax.jit
def every_way(x):
  """Name to the estimator's value as it is under jit, and as it is in a forward pass that is differentiated."""
  def with_gradient(estimator):
    return jax.value_and_grad(lambda x: (estimator(x).sum(), estimator(x)), has_aux=True)(x)[0][1]
  return {name: (estimator(x), with_gradient(estimator)) for name, (estimator, _) in QUANTIZED.items()}


@given(x=floats())
def test_trap_1_the_value_is_the_quantizers_to_the_last_bit_alone_and_under_jit_and_grad(x):
  for name, values in every_way(x).items():
    estimator, exact = QUANTIZED[name]
    for value in (estimator(x), *values):
      np.testing.assert_array_equal(value, exact(np.asarray(x)), err_msg=name)


def test_trap_1_the_textbook_form_is_off_the_grid():
  """Why there is a module: the control that these tests can see the fault."""
  x = jax.random.normal(jax.random.key(0), (10_000,)) / 2
  textbook = jax.jit(lambda x: x + jax.lax.stop_gradient(int4(x) - x))(x)
  assert len(np.unique(textbook)) > 15
  assert len(np.unique(jax.jit(lambda x: ste.straight_through(x, int4(x)))(x))) == 15


@given(x=floats(bound=1.0))
def test_round_gives_zeros_of_one_sign_as_integers_do(x):
  rounded = ste.round_(x)
  np.testing.assert_array_equal(bits(rounded), bits(np.asarray(rounded).astype(np.int8).astype(np.float32)))


def test_trap_2_the_gradient_of_clip_is_full_on_the_closed_range():
  x = jnp.array([-1.5, -1.0, 0.0, 1.0, 1.5])
  np.testing.assert_array_equal(jax.grad(lambda x: ste.clip(x, -1.0, 1.0).sum())(x), [0, 1, 1, 1, 0])
  assert jax.grad(lambda x: jnp.clip(x, -1.0, 1.0))(1.0) == 0.5  # what this is for


def test_a_bound_of_clip_gets_the_gradient_of_what_lies_beyond_it():
  x = jnp.array([-3.0, -1.0, 0.0, 1.0, 2.0, 5.0])
  low, high = jax.grad(lambda low, high: ste.clip(x, low, high).sum(), argnums=(0, 1))(-1.0, 1.0)
  assert (low, high) == (1, 2)


def test_trap_3_the_sign_of_zero_is_plus_one():
  x = jnp.array([-1e-30, -0.0, 0.0, 1e-30])
  np.testing.assert_array_equal(jax.jit(ste.sign)(x), [-1, 1, 1, 1])


SLOPES = {
  'straight_through': np.ones(10),
  'round_': np.ones(10),
  'clip': np.array([0, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
  'sign': np.array([0, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
}


@pytest.mark.parametrize('name', QUANTIZED)
def test_forward_and_reverse_mode_agree_with_the_declared_slope(name):
  estimator, _ = QUANTIZED[name]
  np.testing.assert_array_equal(jax.vmap(jax.grad(estimator))(POINTS), SLOPES[name])
  np.testing.assert_array_equal(jax.jvp(estimator, (POINTS,), (jnp.ones_like(POINTS),))[1], SLOPES[name])


@pytest.mark.parametrize('name', QUANTIZED)
def test_second_derivatives_pass_through_as_through_the_identity_or_a_constant(name):
  """d/dx (q^3) = 3 q^2 q', and d2/dx2 = 6 q q'^2 as q'' = 0: a Hessian of a quantized loss."""
  estimator, exact = QUANTIZED[name]
  expected = 6 * exact(np.asarray(POINTS)) * SLOPES[name] ** 2
  for second in (jax.grad(jax.grad(lambda x: estimator(x) ** 3)), jax.jacfwd(jax.grad(lambda x: estimator(x) ** 3))):
    np.testing.assert_allclose(jax.vmap(second)(POINTS), expected, rtol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize('name', QUANTIZED)
def test_values_and_gradients_keep_the_dtype(name, dtype):
  x = jnp.asarray(POINTS, dtype)
  value, gradient = jax.value_and_grad(lambda x: QUANTIZED[name][0](x).sum())(x)
  assert value.dtype == gradient.dtype == dtype


def test_straight_through_gives_the_value_no_gradient():
  by_value = jax.grad(lambda value: ste.straight_through(jnp.ones(3), value).sum())(jnp.zeros(3))
  np.testing.assert_array_equal(by_value, np.zeros(3))


def test_a_scaled_gradient_leaves_the_value_bit_for_bit():
  x = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)
  factor = jnp.float32(0.037)
  value, gradient = jax.value_and_grad(lambda x: (ste.scale_gradient(x, factor) * 2).sum())(x)
  np.testing.assert_array_equal(bits(ste.scale_gradient(x, factor)), bits(x))
  np.testing.assert_allclose(gradient, np.full(1000, 2 * 0.037), rtol=1e-6)
  assert jax.grad(lambda factor: ste.scale_gradient(x, factor).sum())(factor) == 0
  assert value == (x * 2).sum()
