import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightjax.quantize import formats, quantizers

INTEGERS = {f'{kind.__name__}{bits}': kind(bits) for kind, bits in itertools.product(
  (formats.symmetric, formats.affine, formats.half_step), (2, 3, 4, 8))}
SHIFTED = {f'power of two, {name}': formats.power_of_two(kind)(4)
           for name, kind in (('symmetric', formats.symmetric), ('affine', formats.affine))}
FLOATS = {'e4m3': (formats.e4m3(), ml_dtypes.float8_e4m3fn), 'e5m2': (formats.e5m2(), ml_dtypes.float8_e5m2)}
ALL = INTEGERS | SHIFTED | {name: each for name, (each, _) in FLOATS.items()}
WITH_ZERO = [name for name in ALL if 'half_step' not in name]
VALUES = hnp.arrays(np.float32, (12,), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


@jax.jit
def every_way(x):
  """Name -> (value, scale, zero point, value of the value) over the range of x."""
  def of(format_):
    scale, zero_point = format_.parameters(x.min(), x.max())
    value = format_.levels(x, scale, zero_point, None) * scale
    return value, scale, zero_point, format_.levels(value, scale, zero_point, None) * scale
  return {name: of(format_) for name, format_ in ALL.items()}


@settings(max_examples=40)
@given(VALUES)
def test_error_is_at_most_half_a_step_and_rounding_twice_is_rounding_once(x):
  for name, (value, scale, _, again) in every_way(jnp.asarray(x)).items():
    np.testing.assert_array_equal(again, value, err_msg=name)
    error, size = np.abs(np.asarray(value, np.float64) - x), np.abs(x).max()
    if name in FLOATS:  # half a unit of the last place of a normal number, half a step of the subnormal ones below
      relative = 2.0 ** -(4 if name == 'e4m3' else 3)
      assert (error <= relative * np.abs(x) * 1.0001 + scale).all(), name
    else:
      # An affine range is covered but for the rounding of its zero point, half a step more at its ends.
      steps = 1 if name.startswith(('affine', 'power of two, affine')) else 0.5
      assert (error <= steps * scale * 1.0001 + 1e-6 * size).all(), name


@settings(max_examples=40)
@given(VALUES)
def test_trap_7_zero_is_a_level_wherever_the_range_lies(x):
  for name, (value, _, zero_point, _) in every_way(jnp.asarray(np.append(x[:-1], np.float32(0)))).items():
    if name in WITH_ZERO:
      assert value[-1] == 0, name
      assert float(zero_point).is_integer()


@pytest.mark.parametrize('name', INTEGERS | SHIFTED)
def test_trap_1_a_dense_range_has_as_many_levels_as_the_format(name):
  format_ = ALL[name]
  x = jnp.linspace(-0.5 if name.startswith('affine') else -1, 1, 4001)
  scale, zero_point = format_.parameters(x.min(), x.max())
  values = np.unique(format_.levels(x, scale, zero_point, None) * scale)
  if name.startswith('power'):
    assert scale == 0.25 and set(np.diff(values)) == {0.25}
  else:
    assert len(values) == 2**format_.bits - (format_.kind == 'symmetric')
    assert (0 in values) == (name in WITH_ZERO)


@pytest.mark.parametrize('name', WITH_ZERO)
def test_trap_6_an_empty_range_gives_scale_one_and_zeros(name):
  zeros = jnp.zeros((3,))
  scale, zero_point = ALL[name].parameters(zeros, zeros)
  np.testing.assert_array_equal(scale, np.ones(3))
  np.testing.assert_array_equal(ALL[name].levels(zeros, scale, zero_point, None), zeros)


@pytest.mark.parametrize('name', ALL)
def test_what_is_encoded_decodes_to_the_value_to_the_last_bit(name):
  format_ = ALL[name]
  x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 0.0, 30.0] + [0.2, 0.0, -9.0], jnp.float32)
  scale, zero_point = format_.parameters(x.min(0, keepdims=True), x.max(0, keepdims=True))
  levels = format_.levels(x, scale, zero_point, None)
  stored = format_.encode(levels, scale, zero_point)
  np.testing.assert_array_equal(stored.decode(), levels * scale)
  assert stored.bits == format_.bits
  codes = np.asarray(stored.codes).astype(np.float32)
  if stored.codes.dtype == jnp.int8:
    assert -(2 ** (format_.bits - 1)) <= codes.min() and codes.max() < 2 ** (format_.bits - 1)


@pytest.mark.parametrize('name', FLOATS)
def test_floats_of_eight_bits_are_those_of_ml_dtypes(name):
  format_, dtype = FLOATS[name]
  largest = float(ml_dtypes.finfo(dtype).max)
  rng = np.random.default_rng(0)
  every = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
  every = np.sort(every[np.isfinite(every)])
  middles = (every[1:] + every[:-1]) / 2  # ties, to even
  x = np.concatenate([every, middles, np.nextafter(middles, np.float32(np.inf)),
                      rng.normal(size=3000) * rng.choice([1e-4, 1.0, 300.0, 1e5], 3000)]).astype(np.float32)
  value = jax.jit(lambda x: format_.levels(x, jnp.float32(1), jnp.float32(0), None))(x)
  np.testing.assert_array_equal(value, np.clip(x, -largest, largest).astype(dtype).astype(np.float32))
  assert len(np.unique(every)) == len(np.unique(np.asarray(value)))


def test_float_formats_have_eight_bits_and_round_to_nearest():
  with pytest.raises(ValueError, match='bits=4: e4m3 has 8 bits'):
    formats.e4m3(4)
  with pytest.raises(ValueError, match='e5m2 is rounded to nearest only'):
    formats.e5m2().levels(jnp.ones(2), jnp.float32(1), jnp.float32(0), quantizers.stochastic(jax.random.key(0)))


@pytest.mark.parametrize('largest, expected', [(7.0, 1.0), (7.1, 2.0), (3.5, 0.5), (1e-3, 2.0**-12)])
def test_powers_of_two_are_the_next_at_or_above(largest, expected):
  scale, _ = formats.power_of_two(formats.symmetric)(4).parameters(jnp.float32(-largest), jnp.float32(0))
  assert scale == expected


@pytest.mark.parametrize('format_', [formats.symmetric(4), formats.affine(4)], ids=['symmetric', 'affine'])
def test_stochastic_rounding_is_right_on_average_and_leaves_levels_alone(format_):
  x = jnp.broadcast_to(jnp.array([-1.25, -0.5, 0.0, 0.1, 2.0, 2.75]), (4000, 6))
  rounding = quantizers.stochastic(jax.random.key(1))
  value = format_.levels(x, jnp.float32(1), jnp.float32(format_.highest + 1) / 2 * (format_.kind == 'affine'), rounding)
  np.testing.assert_allclose(value.mean(0), x[0], atol=0.03)  # four standard errors
  assert (jnp.abs(value - x) < 1).all()
  assert (value[:, 2] == 0).all() and (value[:, 4] == 2).all()
  gradient = jax.grad(lambda x: format_.levels(x, jnp.float32(1), jnp.float32(8), rounding).sum())(x)
  np.testing.assert_array_equal(gradient, np.ones_like(x))


def test_half_steps_restate_dorefas_formula():
  """2 quantize_k(x / 2 + 1 / 2) - 1 with quantize_k(r) = round((2^k - 1) r) / (2^k - 1), in float64."""
  x = np.random.default_rng(0).uniform(-1, 1, 2000)
  for bits in (2, 3, 4):
    levels = 2**bits - 1
    expected = 2 * np.round(levels * (x / 2 + 0.5)) / levels - 1
    format_ = formats.half_step(bits)
    scale, zero_point = format_.parameters(jnp.float32(-1), jnp.float32(1))
    value = format_.levels(jnp.asarray(x, jnp.float32), scale, zero_point, None) * scale
    np.testing.assert_allclose(value, expected, atol=1e-6)


def test_gradients_pass_inside_and_end_half_a_step_beyond():
  x = jnp.array([-9.0, -7.4, 0.3, 7.4, 9.0])
  for format_, expected in ((formats.symmetric(4), [0, 1, 1, 1, 0]), (formats.half_step(4), [0, 1, 1, 1, 0])):
    gradient = jax.grad(lambda x, f=format_: f.levels(x, jnp.float32(1), jnp.float32(-0.5), None).sum())(x)
    np.testing.assert_array_equal(gradient, expected)
  for name, (format_, _) in FLOATS.items():
    gradient = jax.grad(lambda x, f=format_: f.levels(x, jnp.float32(1), jnp.float32(0), None).sum())(
      jnp.array([-1e6, -400.0, 0.0, 1e-3, 1e6]))
    np.testing.assert_array_equal(gradient, [0, 1, 1, 1, 0], err_msg=name)
