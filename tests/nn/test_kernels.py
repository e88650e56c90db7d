"""The contract of the convolution's forms and of the batch norm: what lax and flax compute, in every type and twice."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from lightjax.core.modes import convolution_mode
from lightjax.nn import batch_norm, dense, depthwise, layers

# Window, strides, padding: odd and even sizes, asymmetric SAME at stride 2, strides that differ, VALID, a wide window.
GEOMETRIES = [
    ((3, 3), (1, 1), ((1, 1), (1, 1))), ((3, 3), (2, 2), ((0, 1), (0, 1))), ((5, 3), (2, 1), ((2, 2), (0, 1))),
    ((2, 4), (3, 2), ((0, 0), (0, 0))), ((1, 1), (1, 1), ((0, 0), (0, 0))), ((1, 1), (2, 2), ((0, 0), (1, 0))),
    ((1, 3), (4, 1), ((0, 0), (1, 1))), ((7, 7), (2, 2), ((3, 3), (3, 3))),
]
# Relative to the largest entry: the sums are of up to a few hundred terms.
TOLERANCE = {'float64': 1e-12, 'float32': 3e-5, 'bfloat16': 2e-2}


def dense_form(x, kernel, strides, padding):
  return dense.dense(x, kernel, strides, padding, None)


FORMS = {'dense': (dense_form, 1), 'depthwise': (depthwise.depthwise, 4)}


def reference(groups):
  def convolve(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups)
  return convolve


def draw(shape, seed, dtype='float64'):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def arguments(window, groups, dtype='float64', size=(9, 10)):
  return draw((2, *size, 4), 0, dtype), draw((*window, 4 // groups, 4), 1, dtype)


def assert_close(ours, theirs, tolerance):
  for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert one.dtype == other.dtype and one.shape == other.shape
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(np.abs(other).max(), 1e-30))


def for_all_geometries(compute, form, groups, dtype, exact=False, **options):
  """What `compute` makes of each geometry, in one compiled program; computed in float32 and rounded where `exact`."""
  inputs = [arguments(window, groups, dtype) for window, _, _ in GEOMETRIES]
  if exact:
    inputs = jax.tree.map(lambda each: each.astype('float32'), inputs)
  results = jax.jit(lambda inputs: [
      compute(lambda x, kernel, s=strides, p=padding: form(x, kernel, s, p), *each)
      for each, (_, strides, padding) in zip(inputs, GEOMETRIES, strict=True)], **options)(inputs)
  return jax.tree.map(lambda each: each.astype(dtype), results)


def values_and_gradients(convolve, x, kernel):
  y, pull_back = jax.vjp(convolve, x, kernel)
  return y, pull_back(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))


def hessian_vector_product(convolve, x, kernel):
  def gradients(x, kernel):
    return jax.grad(lambda x, kernel: jnp.sum(jnp.tanh(convolve(x, kernel)) ** 2), argnums=(0, 1))(x, kernel)
  return jax.jvp(gradients, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))[1]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('name', FORMS)
def test_values_and_both_gradients_are_those_of_lax(name, dtype):
  form, groups = FORMS[name]
  with jax.enable_x64(True):
    ours = for_all_geometries(values_and_gradients, form, groups, dtype)
    # lax rounds partial sums to bfloat16, ours are kept in float32: compare with the exact result of the same inputs.
    theirs = for_all_geometries(values_and_gradients, reference(groups), groups, dtype, exact=dtype == 'bfloat16')
    assert_close(ours, theirs, TOLERANCE[dtype])


@pytest.mark.parametrize('name', FORMS)
def test_second_derivatives_are_those_of_lax(name):
  form, groups = FORMS[name]
  with jax.enable_x64(True):
    quickly = {'compiler_options': {'xla_backend_optimization_level': 0}}  # large programs that run once
    ours = for_all_geometries(hessian_vector_product, form, groups, 'float64', **quickly)
    theirs = for_all_geometries(hessian_vector_product, reference(groups), groups, 'float64', **quickly)
    assert_close(ours, theirs, 1e-11)


@pytest.mark.parametrize('name', FORMS)
def test_gradients_under_vmap_are_those_of_a_loop(name):
  form, groups = FORMS[name]
  window, strides, padding = GEOMETRIES[1]
  x, kernel = arguments(window, groups, 'float32')
  kernels = jnp.stack([kernel, 2 * kernel + 1])

  def gradients(kernel):
    return values_and_gradients(lambda x, kernel: form(x, kernel, strides, padding), x, kernel)

  together = jax.jit(jax.vmap(gradients))(kernels)
  alone = jax.tree.map(lambda *each: jnp.stack(each), *[gradients(kernel) for kernel in kernels])
  assert_close(together, alone, 1e-5)


def test_large_images_take_a_product_an_example_with_the_same_gradient():
  size = (17, 18)
  assert size[0] * size[1] >= dense.LEAST_PIXELS
  x, kernel = arguments((3, 3), 1, 'float32', size)
  padding = ((1, 1), (1, 1))

  def gradients(form):
    compute = functools.partial(values_and_gradients, lambda x, kernel: form(x, kernel, (1, 1), padding))
    return jax.jit(compute)(x, kernel)

  assert_close(gradients(dense_form), gradients(reference(1)), 3e-5)


def normalized(dtype):
  """Loss of a norm that also reads the statistics, in float64 or of activations in bfloat16."""
  norm = layers.BatchNorm(use_running_average=False, dtype=dtype)
  params = {'scale': draw((3,), 2, 'float32'), 'bias': draw((3,), 3, 'float32')}
  stats = {'mean': draw((3,), 4, 'float32'), 'var': 1 + draw((3,), 5, 'float32') ** 2}

  def loss(params, x):
    y, moved = norm.apply({'params': params, 'batch_stats': stats}, x, mutable=['batch_stats'])
    read = sum(jnp.sum(jnp.cos(leaf)) for leaf in jax.tree.leaves(moved))
    return jnp.sum(jnp.sin(y.astype(jnp.float32)) * jnp.arange(y.size).reshape(y.shape)) + read, (y, moved)

  return loss, params


@pytest.mark.parametrize('dtype,tolerance', [('float32', 1e-4), ('bfloat16', 2e-2)])
def test_batch_norm_computes_what_flax_computes(dtype, tolerance):
  loss, params = normalized(dtype)
  x = (3 + draw((4, 5, 6, 3), 0, 'float32')).astype(dtype)
  assert batch_norm.is_quicker(x)

  def everything(params, x):
    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

  ours = jax.jit(everything)(params, x)
  with convolution_mode('lax'):
    theirs = jax.jit(everything)(params, x)
  assert_close(ours, theirs, tolerance)


def test_batch_norm_has_second_derivatives():
  loss, params = normalized('float32')
  x = draw((4, 5, 6, 3), 0, 'float32')

  def curvature(params, x):
    gradients = jax.grad(lambda params, x: loss(params, x)[0], argnums=(0, 1))
    return jax.jvp(lambda x: gradients(params, x), (x,), (jnp.cos(x),))[1]

  ours = jax.jit(curvature)(params, x)
  with convolution_mode('lax'):
    theirs = jax.jit(curvature)(params, x)
  assert_close(ours, theirs, 1e-3)


@pytest.mark.parametrize('is_frozen', [False, True])
def test_frozen_statistics_are_flaxs_running_ones_and_stand_still(is_frozen):
  """The choice is traced; gradients of scale, bias and input are those of the branch that is taken."""
  x, weights = draw((4, 5, 6, 3), 0, 'float32'), draw((4, 5, 6, 3), 6, 'float32')
  params = {'scale': draw((3,), 2, 'float32'), 'bias': draw((3,), 3, 'float32')}
  stats = {'mean': draw((3,), 4, 'float32'), 'var': 1 + draw((3,), 5, 'float32') ** 2}

  def everything(apply):
    def loss(params, x):
      y, moved = apply({'params': params, 'batch_stats': stats}, x)
      return (y * weights).sum(), (y, moved)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)

  ours = everything(lambda variables, x: layers.BatchNorm(use_running_average=False).apply(
    variables, x, is_frozen=jnp.asarray(is_frozen), mutable=['batch_stats']))
  theirs = everything(lambda variables, x: nn.BatchNorm(
    use_running_average=is_frozen, momentum=0.9, epsilon=1e-5).apply(variables, x, mutable=['batch_stats']))
  assert_close(ours, theirs, 1e-4)
  if is_frozen:
    assert jax.tree.all(jax.tree.map(np.array_equal, ours[0][1][1]['batch_stats'], stats))


def test_statistics_are_frozen_in_training_on_the_own_form_alone():
  x = draw((4, 3), 0, 'float32')
  variables = layers.BatchNorm().init(jax.random.key(0), x, True)
  with pytest.raises(ValueError, match='is_frozen is for training in its own form'):
    layers.BatchNorm(use_running_average=False).apply(variables, x, is_frozen=jnp.asarray(True))


@pytest.mark.parametrize('options', [{'use_scale': False}, {'axis': 1}])
def test_a_batch_norm_of_other_options_is_that_of_flax(options):
  x = draw((4, 5, 6, 3), 0, 'float32')
  ours = layers.BatchNorm(use_running_average=False, **options)
  theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, **options)
  variables = theirs.init(jax.random.key(0), x)
  assert jax.tree.structure(ours.init(jax.random.key(0), x)) == jax.tree.structure(variables)
  one, other = (norm.apply(variables, x, mutable=['batch_stats']) for norm in (ours, theirs))
  assert_close(one, other, 0)
