import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightjax.quantize import quantizers

BITS = range(2, 9)
ELEMENTS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
WEIGHTS = hnp.arrays(np.float32, (7, 4), elements=ELEMENTS).map(jnp.asarray)
BOUNDS = st.tuples(ELEMENTS, ELEMENTS).map(lambda pair: tuple(jnp.float32(each) for each in sorted(pair)))


def symmetric(weight, bits):
  scale = quantizers.scale_absmax(weight, bits=bits, reduced_axes=(0,))
  return quantizers.symmetric(weight, scale, bits=bits)


def stored(weight, bits):
  """What a file holds: int8 codes and float32 steps, computed without jit."""
  scale = quantizers.scale_absmax(weight, bits=bits, reduced_axes=(0,))
  return quantizers.codes(weight, scale, bits=bits).astype(jnp.int8), scale


@jax.jit
def every_way(weight):
  """Bits to the quantized weight under jit, and in a pass that is differentiated, and its gradient."""
  def differentiated(bits):
    (_, value), gradient = jax.value_and_grad(
      lambda weight: (symmetric(weight, bits).sum(), symmetric(weight, bits)), has_aux=True)(weight)
    return symmetric(weight, bits), value, gradient
  return {bits: differentiated(bits) for bits in BITS}


def same_bits(a, b):
  np.testing.assert_array_equal(np.asarray(a).view(np.int32), np.asarray(b).view(np.int32))


@given(WEIGHTS)
def test_trap_1_the_simulation_is_what_the_stored_integers_decode_to_to_the_last_bit(weight):
  for bits, (value, differentiated, _) in every_way(weight).items():
    codes, scale = stored(weight, bits)
    decoded = np.asarray(codes).astype(np.float32) * np.asarray(scale)
    same_bits(value, decoded)
    same_bits(differentiated, decoded)


@given(WEIGHTS)
def test_trap_2_every_weight_keeps_its_gradient_the_largest_of_a_channel_included(weight):
  for _, _, gradient in every_way(weight).values():
    np.testing.assert_allclose(gradient, 1, rtol=1e-6)


def test_trap_2_the_gradient_ends_half_a_step_beyond_the_last_level():
  weight = jnp.array([-3.6, -3.4, -3.0, 0.0, 3.0, 3.4, 3.6])
  gradient = jax.grad(lambda weight: quantizers.symmetric(weight, jnp.float32(1), bits=3).sum())(weight)
  np.testing.assert_array_equal(gradient, [0, 1, 1, 1, 1, 1, 0])


@pytest.mark.parametrize('bits', BITS)
def test_trap_1_a_tensor_has_as_many_levels_as_the_grid(bits):
  weight = jax.random.uniform(jax.random.key(0), (20_000,), minval=-1)
  scale = quantizers.scale_absmax(weight, bits=bits, reduced_axes=(0,))
  values = np.unique(jax.jit(lambda weight: quantizers.symmetric(weight, scale, bits=bits))(weight))
  assert len(values) == 2**bits - 1
  np.testing.assert_array_equal(values, -values[::-1])


@given(weight=WEIGHTS, bits=st.sampled_from(BITS))
def test_codes_restated_in_numpy(weight, bits):
  codes, scale = stored(weight, bits)
  w, s, limit = np.asarray(weight, np.float64), np.asarray(scale, np.float64), 2 ** (bits - 1) - 1
  largest = np.abs(w).max(0, keepdims=True)
  is_empty = largest / limit < np.finfo(np.float32).tiny
  np.testing.assert_allclose(s, np.where(is_empty, 1, largest / limit), rtol=1e-6)
  assert np.abs(w / s - np.asarray(codes)).max() <= 0.5 + 1e-4
  reached = np.abs(np.asarray(codes)).max(0)
  np.testing.assert_array_equal(reached, np.where(is_empty[0], 0, limit))


@pytest.mark.parametrize('bits', BITS)
def test_trap_5_codes_are_clipped_before_the_cast(bits):
  limit = 2 ** (bits - 1) - 1
  assert quantizers.limit(bits) == limit
  codes = quantizers.codes(jnp.array([-1000.0, -128.0, 128.0, 1e30, jnp.inf]), jnp.float32(1), bits=bits)
  expected = [-limit, -limit, limit, limit, limit]
  np.testing.assert_array_equal(codes.astype(jnp.int8), expected)
  np.testing.assert_array_equal(np.asarray(codes).astype(np.int8), expected)  # NumPy's cast would wrap


@pytest.mark.parametrize('bits', [1, 9])
def test_other_grids_are_refused(bits):
  with pytest.raises(ValueError, match=f'bits={bits}: an integer grid has 2 to 8 bits'):
    quantizers.limit(bits)


@pytest.mark.parametrize('empty', [0.0, -0.0, 1e-38, 1e-40])
def test_trap_6_an_all_zero_channel_is_zero_with_and_without_a_mask(empty):
  weight = jnp.ones((5, 3)).at[:, 1].set(empty).at[0, 1].set(0)

  @jax.jit
  def loss(weight, mask):
    return symmetric(jnp.where(mask, weight, 0), 8).sum(), symmetric(jnp.where(mask, weight, 0), 8)

  for mask in (jnp.ones((5, 3), bool), jnp.ones((5, 3), bool).at[:, 2].set(False), jnp.zeros((5, 3), bool)):
    (_, value), gradient = jax.value_and_grad(loss, has_aux=True)(weight, mask)
    np.testing.assert_array_equal(value, np.where(mask & (np.arange(3) != 1), 1, 0))
    np.testing.assert_allclose(gradient, mask, rtol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_views_keep_the_dtype_and_steps_are_float32(dtype):
  weight = jax.random.normal(jax.random.key(0), (7, 4)).astype(dtype)
  scale = quantizers.scale_absmax(weight, bits=4, reduced_axes=(0,))
  assert scale.dtype == jnp.float32
  value = quantizers.symmetric(weight, scale, bits=4)
  assert value.dtype == quantizers.affine(weight, jnp.float32(0.1), jnp.float32(3), bits=4).dtype == dtype
  codes, _ = stored(weight, 4)
  np.testing.assert_array_equal(value, (codes.astype(jnp.float32) * scale).astype(dtype))


def test_trap_4_abs_max_steps_are_constants_for_the_gradient():
  weight = jnp.array([[1.0], [-3.0], [2.0]])
  gradient = jax.grad(lambda weight: quantizers.scale_absmax(weight, bits=8, reduced_axes=(0,)).sum())(weight)
  np.testing.assert_array_equal(gradient, np.zeros((3, 1)))


# Affine grids

@given(bounds=BOUNDS, bits=st.sampled_from(BITS))
def test_trap_7_zero_is_a_level_of_every_affine_grid(bounds, bits):
  scale, zero_point = quantizers.affine_parameters(*bounds, bits=bits)
  assert float(zero_point).is_integer() and 0 <= zero_point <= 2**bits - 1 and scale > 0
  assert quantizers.affine(jnp.float32(0), scale, zero_point, bits=bits) == 0


@pytest.mark.parametrize('bits', BITS)
@pytest.mark.parametrize('low, high, zero_point', [
  (2.0, 5.0, 'lowest'), (0.0, 5.0, 'lowest'), (-5.0, -2.0, 'highest'), (-5.0, 0.0, 'highest'), (0.0, 0.0, 'lowest')])
def test_trap_7_one_sided_ranges_reach_to_zero_and_use_every_level(bits, low, high, zero_point):
  levels = 2**bits - 1
  scale, seen = quantizers.affine_parameters(jnp.float32(low), jnp.float32(high), bits=bits)
  assert seen == {'lowest': 0, 'highest': levels}[zero_point]
  extent = max(high, 0) - min(low, 0)
  assert scale == pytest.approx(extent / levels if extent else 1)
  x = jnp.linspace(low, high, 5000)
  assert len(np.unique(quantizers.affine(x, scale, seen, bits=bits))) <= levels + 1
  np.testing.assert_allclose(quantizers.affine(x, scale, seen, bits=bits), x, atol=extent / levels / 2 * 1.001)


def test_trap_7_outputs_of_a_relu_get_zero_point_zero():
  x = jax.nn.relu(jax.random.normal(jax.random.key(0), (10_000,)))
  scale, zero_point = quantizers.affine_parameters(x.min(), x.max(), bits=4)
  assert zero_point == 0
  assert len(np.unique(quantizers.affine(x, scale, zero_point, bits=4))) == 16


def numpy_affine(x, low, high, bits):
  """The grid of Jacob et al., equations 1, 12 and 13, in float64."""
  levels, low, high = 2**bits - 1, min(float(low), 0.0), max(float(high), 0.0)
  scale = (high - low) / levels or 1.0
  zero_point = np.round(-low / scale)
  return np.clip(np.round(x / scale) + zero_point, 0, levels), scale, zero_point


@given(bounds=BOUNDS, bits=st.sampled_from(BITS), x=hnp.arrays(np.float32, 20, elements=st.floats(-2, 2, width=32)))
def test_affine_values_restated_in_numpy(bounds, bits, x):
  low, high = bounds
  x = np.float32(x * max(abs(float(low)), abs(float(high))))
  scale, zero_point = quantizers.affine_parameters(low, high, bits=bits)
  value = quantizers.affine(jnp.asarray(x), scale, zero_point, bits=bits)
  codes, exact_scale, exact_zero = numpy_affine(x.astype(np.float64), low, high, bits)
  if exact_scale < 1e-30:
    return
  assert abs(float(zero_point) - exact_zero) <= 1  # float32 may round a tie the other way
  off = np.abs(np.asarray(value, np.float64) / exact_scale - (codes - exact_zero))
  assert off.max() <= 1.001 + abs(float(zero_point) - exact_zero)
  ties = np.abs(x / exact_scale % 1 - 0.5) < 1e-3
  if float(zero_point) == exact_zero:
    assert (off[~ties] < 1e-2).all()


@given(bounds=BOUNDS, bits=st.sampled_from(BITS))
def test_trap_2_every_activation_in_the_seen_range_keeps_its_gradient(bounds, bits):
  low, high = bounds
  scale, zero_point = quantizers.affine_parameters(low, high, bits=bits)
  x = jnp.linspace(low, high, 9).at[-1].set(high)
  np.testing.assert_allclose(affine_gradient(x, scale, zero_point)[bits], 1, rtol=1e-6)


def test_affine_gradients_end_beyond_the_grid():
  gradient = affine_gradient(jnp.array([-2.0, -1.4, -1.0, 2.0, 2.4, 2.6]), jnp.float32(1), jnp.float32(1))[2]
  np.testing.assert_array_equal(gradient, [0, 1, 1, 1, 1, 0])


@jax.jit
def affine_gradient(x, scale, zero_point):
  def of(bits):
    return jax.grad(lambda x: quantizers.affine(x, scale, zero_point, bits=bits).sum())(x)
  return {bits: of(bits) for bits in BITS}


@pytest.mark.parametrize('scale', [0.1, 0.0123, 0.7, 3.3])
def test_a_constant_step_rounds_as_a_traced_one_does_at_every_tie(scale):
  """A stored network has its steps as constants, and XLA divides by a constant in another way than by a value."""
  ties = (np.arange(255, dtype=np.float32) - 99.5) * np.float32(scale)
  above, below = (np.nextafter(ties, np.float32(end)) for end in (np.inf, -np.inf))
  x = jnp.asarray(np.concatenate([ties, above, below]))
  scale, zero_point = jnp.float32(scale), jnp.float32(100)
  constant = jax.jit(lambda x: quantizers.affine(x, scale, zero_point, bits=8))
  traced = jax.jit(lambda x, scale, zero_point: quantizers.affine(x, scale, zero_point, bits=8))
  same_bits(constant(x), traced(x, scale, zero_point))
