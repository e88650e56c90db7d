import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from lightjax.core.modes import convolution_mode, current_convolution_mode
from lightjax.nn import convolution

SPEC = ('NHWC', 'HWIO', 'NHWC')
GEOMETRIES = [
    ((3, 3), 1, 'SAME'), ((3, 3), 2, 'SAME'), ((5, 3), (2, 1), 'SAME'), ((2, 4), 3, 'VALID'), ((3, 3), 2, 1),
    ((5, 5), 2, ((2, 0), (1, 3))), ((1, 1), 1, 'SAME'),
]


def draw(shape, seed=0, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def in_lax_mode(function):
  def run(*arguments):
    with convolution_mode('lax'):
      return jax.jit(function)(*arguments)
  return run


def primitives(function, *arguments):
  return str(jax.make_jaxpr(function)(*arguments)).count('conv_general_dilated[')


@pytest.mark.parametrize(
    'window,strides,padding,groups', [(*each, 6) for each in GEOMETRIES] + [(*each, 3) for each in GEOMETRIES[::2]])
def test_values_and_gradients_are_those_of_lax(window, strides, padding, groups):
  channels = 6
  x, kernel = draw((3, 8, 9, channels)), draw((*window, channels // groups, channels), 1)

  def loss(x, kernel):
    y = convolution.conv(x, kernel, strides=strides, padding=padding, groups=groups)
    return jnp.sum(jnp.sin(y)), y

  differentiate = jax.grad(loss, argnums=(0, 1), has_aux=True)
  for ours, theirs in zip(
      jax.tree.leaves(jax.jit(differentiate)(x, kernel)), jax.tree.leaves(in_lax_mode(differentiate)(x, kernel)),
      strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_any_geometry_matches_lax(data):
  sizes = data.draw(st.tuples(st.integers(4, 7), st.integers(4, 7)))
  window = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
  strides = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
  pair = st.tuples(st.integers(0, 2), st.integers(0, 2))
  padding = data.draw(st.one_of(st.sampled_from(['SAME', 'VALID']), st.tuples(pair, pair)))
  x, kernel = draw((1, *sizes, 2)), draw((*window, 1, 2), 1)
  ours = convolution.conv(x, kernel, strides=strides, padding=padding, groups=2)
  theirs = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=SPEC, feature_group_count=2)
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_the_rounded_float32_result():
  x, kernel = draw((2, 6, 6, 4), dtype=jnp.bfloat16), draw((3, 3, 1, 4), 1, jnp.bfloat16)
  exact = convolution.conv(x.astype(jnp.float32), kernel.astype(jnp.float32), groups=4)
  ours = convolution.conv(x, kernel, groups=4)
  assert ours.dtype == jnp.bfloat16
  np.testing.assert_array_equal(ours, exact.astype(jnp.bfloat16))

  @jax.jit
  @jax.grad
  def differentiate(kernel, x):
    return convolution.conv(x, kernel, groups=4).astype(jnp.float32).sum()

  gradient, wanted = differentiate(kernel, x), differentiate(kernel.astype(jnp.float32), x.astype(jnp.float32))
  assert gradient.dtype == jnp.bfloat16
  np.testing.assert_allclose(gradient.astype(jnp.float32), wanted, rtol=2**-8)


@pytest.mark.parametrize('groups', [4, 2])
def test_second_derivatives_are_those_of_lax(groups):
  x, kernel, direction = draw((2, 5, 5, 4)), draw((3, 3, 4 // groups, 4), 1), draw((3, 3, 4 // groups, 4), 2)

  def loss(kernel, x):
    return jnp.sum(jnp.tanh(convolution.conv(x, kernel, strides=2, groups=groups)) ** 2)

  def forward_over_reverse(kernel, x):
    return jax.jvp(lambda kernel: jax.grad(loss, argnums=(0, 1))(kernel, x), (kernel,), (direction,))[1]

  def reverse_over_reverse(kernel, x):
    return jax.grad(lambda kernel, x: jnp.vdot(jax.grad(loss)(kernel, x), direction), argnums=(0, 1))(kernel, x)

  wanted = in_lax_mode(forward_over_reverse)(kernel, x)
  for ours in (forward_over_reverse, reverse_over_reverse):
    product = jax.jit(ours)(kernel, x)
    for mine, theirs in zip(product, wanted, strict=True):
      np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gradients_per_example_sum_to_the_gradient_of_the_batch():
  x, kernel = draw((4, 5, 5, 3)), draw((3, 3, 1, 3), 1)

  def loss(kernel, x):
    return jnp.sum(convolution.conv(x, kernel, groups=3) ** 3)

  differentiate = jax.jit(jax.grad(loss))
  each = jax.jit(jax.vmap(lambda example: differentiate(kernel, example[None])))(x)
  np.testing.assert_allclose(each.sum(0), differentiate(kernel, x), rtol=1e-4, atol=1e-4)


def test_kernels_under_vmap_match_a_loop():
  x, kernels = draw((2, 5, 5, 3)), draw((4, 3, 3, 1, 3), 1)
  together = jax.vmap(lambda kernel: convolution.conv(x, kernel, groups=3))(kernels)
  alone = jnp.stack([convolution.conv(x, kernel, groups=3) for kernel in kernels])
  np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_a_sharded_batch_gives_the_gradient_of_the_whole():
  devices = len(jax.devices())
  mesh = jax.make_mesh((devices,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  x, kernel = draw((2 * devices, 5, 5, 3)), draw((3, 3, 1, 3), 1)
  specs = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec('data')

  def loss(kernel, x):
    return jnp.sum(jnp.sin(convolution.conv(x, kernel, groups=3)))

  def step(kernel, x):
    return jax.grad(lambda kernel: lax.psum(loss(kernel, x), 'data'))(kernel)

  sharded = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=specs[0]))
  np.testing.assert_allclose(sharded(kernel, x), jax.jit(jax.grad(loss))(kernel, x), rtol=1e-4, atol=1e-4)


def test_each_form_is_taken_where_it_is_known_to_be_quick():
  def choose(channels, outputs, groups, dilated=False):
    shape = (1, 8, 8, channels)
    return convolution.implementation(shape, (3, 3, channels // groups, outputs), groups=groups, dilated=dilated)

  assert choose(8, 8, 8) == 'depthwise'
  assert choose(8, 16, 8) == choose(8, 8, 4) == 'split'  # a multiplier is no plain depthwise convolution
  assert choose(8, 8, 1) == choose(1, 8, 1) == choose(8, 8, 8, dilated=True) == choose(64, 128, 64) == 'lax'
  with convolution_mode('lax'):
    assert choose(8, 8, 8) == choose(8, 8, 4) == 'lax'


def test_dilated_and_integer_convolutions_stay_with_lax():
  x, kernel = draw((1, 7, 7, 3)), draw((3, 3, 1, 3), 1)
  arguments = dict(padding='SAME', window_strides=(1, 1), dimension_numbers=SPEC, feature_group_count=3)
  for extra in ({'rhs_dilation': (2, 2)}, {'lhs_dilation': (2, 1)}):
    extra = {'lhs_dilation': None, 'rhs_dilation': None, **arguments, **extra}
    extra['padding'] = ((1, 1), (1, 1))
    np.testing.assert_array_equal(
        convolution.conv_general_dilated(x, kernel, **extra), lax.conv_general_dilated(x, kernel, **extra))
  integers = [jnp.ones(each.shape, jnp.int32) * 3 for each in (x, kernel)]
  assert convolution.conv(*integers, groups=3).dtype == jnp.int32


def test_the_mode_reaches_a_function_that_was_jitted_before():
  x, kernel = draw((1, 4, 4, 3)), draw((3, 3, 1, 3), 1)
  jitted = jax.jit(lambda x, kernel: convolution.conv(x, kernel, groups=3))
  assert primitives(jitted, x, kernel) == 0
  with convolution_mode('lax'):
    assert primitives(jitted, x, kernel) == 1
    with convolution_mode('fast'):
      assert current_convolution_mode() == 'fast'
      assert primitives(jitted, x, kernel) == 0
  assert current_convolution_mode() == 'fast'


def test_an_unknown_mode_is_refused_and_an_error_inside_restores():
  with pytest.raises(ValueError, match=r"'quick'.*'fast', 'lax'"), convolution_mode('quick'):
    pass
  with pytest.raises(KeyError), convolution_mode('lax'):
    raise KeyError
  assert current_convolution_mode() == 'fast'
