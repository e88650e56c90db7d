import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core.encoded import NOTHING, Encoded, Integers, merge


def integers(*codes, scale):
  return Integers(jnp.array(codes, jnp.int8), jnp.float32(scale), 4)


def test_integers_decode_to_the_float32_product():
  decoded = integers(-7, 0, 3, scale=0.1).decode()
  np.testing.assert_array_equal(decoded, np.array([-7, 0, 3], np.float32) * np.float32(0.1))
  assert decoded.dtype == jnp.float32


def test_parts_merge_and_a_conflict_is_named():
  first, second = Encoded({'a/kernel': integers(1, scale=1)}, {}), Encoded({}, {'a': [{'bits': 8}]})
  assert merge([first, NOTHING, second]) == Encoded(first.parameters, second.activations)
  assert merge([]) == NOTHING
  with pytest.raises(ValueError, match="'a/kernel' is stored by two stages"):
    merge([first, first])
  with pytest.raises(ValueError, match="'a' is stored by two stages"):
    merge([second, second])
