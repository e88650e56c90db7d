import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import NamedSharding, PartitionSpec

from lightjax.quantize import ranges

BATCHES = hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.just(6)), elements=st.floats(-100, 100, width=32))
observe = jax.jit(ranges.observe, static_argnames='decay')


@given(batches=BATCHES, decay=st.sampled_from([0.0, 0.5, 0.9, 0.99]))
def test_trap_8_limits_are_debiased_moving_averages(batches, decay):
  seen = ranges.empty()
  for batch in batches:
    seen = observe(seen, jnp.asarray(batch), decay=decay)
  weights = decay ** np.arange(len(batches))[::-1]
  weights = weights / weights.sum()
  low, high = ranges.limits(seen)
  np.testing.assert_allclose(low, weights @ batches.min(1).astype(np.float64), rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(high, weights @ batches.max(1).astype(np.float64), rtol=1e-4, atol=1e-3)


def test_trap_8_the_first_batch_counts_fully():
  low, high = ranges.limits(ranges.observe(ranges.empty(), jnp.array([-3.0, 5.0]), decay=0.999))
  np.testing.assert_allclose((low, high), (-3, 5), rtol=1e-4)


def test_what_was_never_observed_is_empty_and_no_nan():
  assert ranges.limits(ranges.empty()) == (0, 0)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_trap_8_averages_are_float32_whatever_the_activations_are(dtype):
  seen = ranges.observe(ranges.empty(), jnp.array([-1.5, 2.5], dtype), decay=0.999)
  assert {each.dtype for each in seen} == {jnp.dtype('float32')}


def test_no_gradient_passes_through_an_observer():
  gradient = jax.grad(lambda x: sum(ranges.limits(ranges.observe(ranges.empty(), x, decay=0.5))))(jnp.arange(3.0))
  np.testing.assert_array_equal(gradient, np.zeros(3))


def test_trap_8_a_sharded_batch_has_the_range_of_the_whole(devices):
  x = jnp.arange(24.0).reshape(4, 6) - 7
  mesh = jax.make_mesh((2,), ('batch',), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))
  sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec('batch')))
  assert len(sharded.sharding.device_set) == 2
  assert observe(ranges.empty(), x, decay=0.9) == observe(ranges.empty(), sharded, decay=0.9)
