"""The figures of compressed parameters against NumPy and by hand."""
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax.core.encoded import Encoded, Integers
from lightjax.measure import sizes
from lightjax.measure.sizes import LayerSize

VARIABLES = {
  'params': {
    'conv': {'kernel': np.array([[0.0, 1.5], [-0.5, 0.0]], np.float32), 'bias': np.zeros(2, np.float32)},
    'fc': {'kernel': jnp.array([1.0, 0.0, 0.0, -2.0], jnp.bfloat16)},
  },
  'batch_stats': {'norm': {'mean': np.ones(7, np.float32)}},
}
CODES = Integers(np.array([[0, 3], [-1, 0]], np.int8), np.float32(0.5), 4)


def test_figures_by_hand():
  assert sizes.layers(VARIABLES) == (
    LayerSize('conv/bias', 2, 0, 32), LayerSize('conv/kernel', 4, 2, 32), LayerSize('fc/kernel', 4, 2, 16))
  bias, kernel, _ = sizes.layers(VARIABLES, Encoded({'conv/kernel': CODES}, {}))
  assert kernel == LayerSize('conv/kernel', 4, 2, 4)
  assert (kernel.density, kernel.ideal_bytes) == (0.5, 1.0)
  assert (bias.density, bias.ideal_bytes) == (0.0, 0.0)


def test_the_zeros_of_codes_are_counted_and_negative_zero_is_a_zero():
  values = {'a': np.array([-0.0, 0.0, np.nan, 1e-45], np.float32)}
  assert sizes.layers(values) == (LayerSize('a', 4, 2, 32),)
  codes = Integers(np.array([1, 0, 2, 3], np.int8), np.array([0, 1, 1, 1], np.float32), 8)
  assert sizes.layers(values, Encoded({'a': codes}, {})) == (LayerSize('a', 4, 3, 8),)


def test_the_code_of_zero_is_the_zero_that_is_counted():
  values = {'a': np.array([0.0, 0.5, 1.5, 0.0], np.float32)}
  codes = Integers(np.array([-8, -7, -5, -8], np.int8), np.full(1, 0.5, np.float32), 4, np.full(1, -8, np.float32))
  assert sizes.layers(values, Encoded({'a': codes}, {})) == (LayerSize('a', 4, 2, 4),)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from([2, 3, 4, 8, 16, 32])), max_size=6))
@settings(deadline=None)
def test_totals_are_sums(entries):
  layers = [LayerSize(str(i), nonzeros + zeros, nonzeros, bits) for i, (nonzeros, zeros, bits) in enumerate(entries)]
  total = sizes.total(layers)
  assert total.parameters == sum(layer.parameters for layer in layers)
  assert total.nonzeros == sum(layer.nonzeros for layer in layers)
  assert total.ideal_bytes == pytest.approx(sum(layer.ideal_bytes for layer in layers))
  assert 0 <= total.density <= 1


def test_a_path_or_a_shape_that_does_not_fit_is_named():
  with pytest.raises(ValueError, match=r"'conv/kernal' is no parameter.*'conv/kernel'"):
    sizes.layers(VARIABLES, Encoded({'conv/kernal': CODES}, {}))
  with pytest.raises(ValueError, match='conv/bias: codes of shape'):
    sizes.layers(VARIABLES, Encoded({'conv/bias': CODES}, {}))
