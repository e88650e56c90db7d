"""Integer arithmetic against Python's integers, which have as many bits as they need."""
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.quantize import fixed_point
from lightjax.quantize.program import Node, Window

INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.lists(INT32, min_size=4, max_size=4), st.lists(st.floats(1e-12, 1e6), min_size=4, max_size=4))
def test_rescaling_is_exact_rounding_with_halves_up(values, scales):
  m, shift = fixed_point.multiplier(np.array(scales))
  found = np.asarray(fixed_point.rescale(jnp.array(values, jnp.int32), m, shift))
  for value, each, bits, result in zip(values, m.tolist(), shift.tolist(), found.tolist(), strict=True):
    exact = (value * each + (1 << (bits - 1))) >> bits
    assert result == max(-(2**31), min(2**31 - 1, exact))


@pytest.mark.parametrize('value', [-3, -1, 1, 3, 2**31 - 1, -(2**31)])
def test_halves_go_up(value):
  m, shift = fixed_point.multiplier(0.5)
  assert int(fixed_point.rescale(jnp.int32(value), m, shift)) == (value + 1) // 2


@given(st.floats(2.0**-31, 2.0**29))
def test_a_multiplier_is_its_scale_to_31_bits(scale):
  m, shift = fixed_point.multiplier(scale)
  assert 2**30 <= int(m) < 2**31
  assert abs(int(m) / 2 ** int(shift) / scale - 1) <= 2.0**-30


@pytest.mark.parametrize('scale', [-1.0, float('nan'), 2.0**30])
def test_what_is_no_multiplier_is_refused(scale):
  with pytest.raises(ValueError, match=r'not in 0\.\.2\^30'):
    fixed_point.multiplier(scale)


def test_zero_scales_give_zero():
  m, shift = fixed_point.multiplier(np.zeros(2))
  assert np.asarray(fixed_point.rescale(jnp.array([7, -7], jnp.int32), m, shift)).tolist() == [0, 0]


@given(st.tuples(st.integers(-255, 255), st.integers(-255, 255)), st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)))
def test_a_rescaled_sum_is_near_the_sum(terms, scales):
  factors, shift = fixed_point.sum_multipliers(*scales)
  found = int(fixed_point.rescaled_sum([jnp.int32(term) for term in terms], factors, shift))
  exact = sum(term * scale for term, scale in zip(terms, scales, strict=True))
  # Half a unit of rounding, and half a unit of each factor's last place.
  assert abs(found - exact) <= 0.5 + 255 * 2.0**-shift + 1e-6 * abs(exact)


@pytest.mark.parametrize('rows,groups,window', [
  (5, 1, Window((2, 1), ((1, 0), (2, 1)), (1, 1), 1)), (1500, 1, Window((1, 1), ((0, 0), (0, 0)), (1, 1), 1)),
  (150, 2, Window((1, 1), ((1, 1), (1, 1)), (2, 1), 2)), (2, 3, Window((1, 1), ((1, 1), (1, 1)), (1, 1), 3)),
  (1700, 1, None)])
def test_both_forms_accumulate_what_numpy_does(rows, groups, window):
  random = np.random.default_rng(0)
  size = (3, 3) if window is not None and rows < 1000 else (1, 1)
  shape = (rows, 6) if window is None else (*size, rows, 6)
  node = Node('layer', 'conv', ('x',), ('conv',), window=window)
  codes = random.integers(-128, 128, (1, 5, 6, rows * groups), np.int8)
  kernel = random.integers(-127, 128, shape, np.int8)
  codes[0, 0, 0] = -128
  kernel[..., 0] = -127  # the largest sums that there can be
  offset = 17
  expected = products(codes.astype(np.int64), kernel.astype(np.int64), window, offset)
  for form in ('integer', 'float'):
    found = fixed_point.accumulate(node, jnp.asarray(codes), jnp.asarray(kernel), offset, form=form)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(np.asarray(found), expected)


def products(codes, kernel, window, offset):
  """Convolution by its definition."""
  if window is None:
    return codes @ kernel
  (top, bottom), (left, right) = window.padding
  x = np.pad(codes, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=offset)
  spans = [spread * (size - 1) + 1 for spread, size in zip(window.dilation, kernel.shape[:2], strict=True)]
  counts = [(size - span) // stride + 1 for size, span, stride in zip(
    x.shape[1:3], spans, window.strides, strict=True)]
  rows, outputs = kernel.shape[2:]
  each = outputs // window.groups
  result = np.zeros((1, *counts, outputs), np.int64)
  for top, left in np.ndindex(*counts):
    y, x0 = top * window.strides[0], left * window.strides[1]
    patch = x[0, y:y + spans[0]:window.dilation[0], x0:x0 + spans[1]:window.dilation[1]]
    for group in range(window.groups):
      part, own = patch[..., group * rows:(group + 1) * rows], slice(group * each, (group + 1) * each)
      result[0, top, left, own] = np.einsum('hwi,hwio->o', part, kernel[..., own])
  return result
