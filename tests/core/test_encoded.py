import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core.encoded import NOTHING, Encoded, Integers, merge, spread


def integers(*codes, scale):
  return Integers(jnp.array(codes, jnp.int8), jnp.float32(scale), 4)


def test_integers_decode_to_the_float32_product():
  decoded = integers(-7, 0, 3, scale=0.1).decode()
  np.testing.assert_array_equal(decoded, np.array([-7, 0, 3], np.float32) * np.float32(0.1))
  assert decoded.dtype == jnp.float32


def test_an_entry_of_a_scale_stands_for_a_block():
  scale = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
  for each in (scale, jnp.asarray(scale)):
    np.testing.assert_array_equal(spread(each, (4, 2)), np.repeat(scale, 2, axis=0))
    assert spread(each, (2, 2)) is each
  assert spread(scale[0], (9, 2)) is not None and spread(scale[:, :1], (2, 7)).shape == (2, 1)  # broadcasts as it is
  with pytest.raises(ValueError, match=r'scale of shape \(2, 2\) does not divide a parameter of shape \(3, 2\)'):
    spread(scale, (3, 2))


def test_a_zero_point_is_the_code_of_zero():
  decoded = Integers(np.array([-8, 1, 7], np.int8), np.float32(0.5), 4, np.array([-8.0], np.float32)).decode()
  np.testing.assert_array_equal(decoded, [0, 4.5, 7.5])


def test_parts_merge_and_a_conflict_is_named():
  first, second = Encoded({'a/kernel': integers(1, scale=1)}, {}), Encoded({}, {'a': [{'bits': 8}]})
  assert merge([first, NOTHING, second]) == Encoded(first.parameters, second.activations)
  assert merge([]) == NOTHING
  with pytest.raises(ValueError, match="'a/kernel' is stored by two stages"):
    merge([first, first])
  with pytest.raises(ValueError, match="'a' is stored by two stages"):
    merge([second, second])
