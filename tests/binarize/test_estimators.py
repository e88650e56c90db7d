"""Signs are exact, and their gradients are the closed forms of the papers."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightjax.binarize import estimators

POINTS = np.array([-2.0, -1.0, -0.75, -0.25, -0.0, 0.0, 0.5, 1.0, 1.5], np.float32)
INSIDE = np.abs(POINTS) <= 1


def decaying(x, progress):
  """The paper's formula: t = T_min 10^(progress log10(T_max / T_min)), k = max(1 / t, 1)."""
  t = 1e-1 * 10 ** (progress * np.log10(1e1 / 1e-1))
  return max(1 / t, 1) * t * (1 - np.tanh(x.astype(np.float64) * t) ** 2)


SLOPES = {
  'identity': np.ones(9), 'hard_tanh': INSIDE.astype(float),
  # 2 + 2x on [-1, 0), 2 - 2x on [0, 1)
  'polynomial': np.where(POINTS < 0, 2 + 2 * POINTS, 2 - 2 * POINTS) * INSIDE,
  'unit': ((POINTS >= 0) & (POINTS <= 1)).astype(float),
}


def test_every_estimator_is_tested():
  assert set(estimators.__all__) == {*SLOPES, 'error_decay'}


def every():
  return {**{name: getattr(estimators, name) for name in SLOPES},
          'error_decay': lambda x: estimators.error_decay(x, jnp.float32(0.5))}


@settings(max_examples=10)
@given(x=hnp.arrays(np.float32, 16, elements=st.floats(-3, 3, width=32, allow_subnormal=False)))
def test_trap_1_and_3_the_value_is_plus_or_minus_one_and_zero_counts_as_plus(x):
  signs, units = np.where(x >= 0, np.float32(1), np.float32(-1)), np.float32(x >= 0.5)
  for name, estimator in every().items():
    value, pull = jax.vjp(estimator, jnp.asarray(x))
    np.testing.assert_array_equal(value, units if name == 'unit' else signs, err_msg=name)
    assert np.isfinite(pull(jnp.ones(16))[0]).all()


@pytest.mark.parametrize('name', SLOPES)
def test_slopes_are_the_papers(name):
  np.testing.assert_allclose(jax.vmap(jax.grad(getattr(estimators, name)))(POINTS), SLOPES[name], rtol=1e-6)


@pytest.mark.parametrize('progress', [0.0, 0.3, 0.5, 1.0])
def test_the_error_decay_estimator_has_the_papers_slope(progress):
  slope = jax.vmap(jax.grad(lambda x: estimators.error_decay(x, jnp.float32(progress))))(POINTS)
  np.testing.assert_allclose(slope, decaying(POINTS, progress), rtol=1e-4, atol=1e-6)


def test_the_error_decay_estimator_goes_from_the_identity_to_the_sign():
  def slope(x, progress):
    return float(jax.grad(lambda x: estimators.error_decay(x, jnp.float32(progress)))(jnp.float32(x)))

  assert abs(slope(0.5, 0.0) - 1) < 0.01
  assert slope(0.0, 1.0) == pytest.approx(10) and slope(1.0, 1.0) < 1e-6


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
def test_values_and_gradients_keep_the_dtype(dtype):
  for estimator in every().values():
    value, gradient = jax.value_and_grad(lambda x, f=estimator: f(x).sum())(jnp.asarray(POINTS, dtype))
    assert value.dtype == gradient.dtype == dtype


def test_what_passes_through_is_the_value_bit_for_bit_and_gets_its_gradient_too():
  x, value, slope = jnp.array([0.3, -2.0]), jnp.array([0.1, 7.0]), jnp.array([2.0, 0.0])
  seen, pull = jax.vjp(estimators.pass_through, x, value, slope)
  np.testing.assert_array_equal(seen, value)
  for gradient, expected in zip(pull(jnp.array([3.0, 5.0])), ([6, 0], [3, 5], [0, 0]), strict=True):
    np.testing.assert_array_equal(gradient, expected)
