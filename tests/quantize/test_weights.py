import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lightjax import graph
from lightjax.core import schedules, trees
from lightjax.core.transform import Context, chain, where
from lightjax.core.typing import Layout
from lightjax.prune import budgets, criteria, patterns, prune
from lightjax.quantize import granularities, weights

KERNEL = {'HWIO conv': ((3, 3, 2, 4), (3,)), 'depthwise': ((3, 3, 1, 6), (3,)), 'dense': ((5, 4), (1,)),
          'OIHW conv': ((4, 2, 3, 3), (0,)), 'OI dense': ((4, 5), (0,)), 'DenseGeneral': ((5, 2, 3), (1, 2)),
          'one channel': ((3, 3, 2, 1), (3,))}


def one(shape, axes, kind='conv'):
  """A network of a single kernel as its graph describes it, and rules that take it."""
  leaf = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
  return {'kernel': leaf}, Context({'kernel': Layout(kind, axes, 0)}, paths=('kernel',))


@pytest.mark.parametrize('name', KERNEL)
def test_trap_9_a_step_for_each_output_channel_of_the_layout(name):
  shape, axes = KERNEL[name]
  variables, context = one(shape, axes)
  method = weights(bits=4)
  own = method.init(variables, context)
  stored = method.finalize(variables, own).parameters['kernel']
  w = np.asarray(variables['kernel'])
  reduced = tuple(axis for axis in range(w.ndim) if axis not in axes)
  expected = np.abs(w).max(reduced, keepdims=True) / 7
  assert stored.scale.shape == tuple(size if axis in axes else 1 for axis, size in enumerate(shape))
  np.testing.assert_allclose(stored.scale, expected, rtol=1e-6)
  assert (np.abs(np.asarray(stored.codes)).max(reduced) == 7).all()


def test_per_tensor_steps_are_one():
  variables, context = one((3, 3, 2, 4), (3,))
  method = weights(bits=4, granularity=granularities.tensor)
  stored = method.finalize(variables, method.init(variables, context)).parameters['kernel']
  assert stored.scale.shape == (1, 1, 1, 1)
  np.testing.assert_allclose(stored.scale.item(), np.abs(variables['kernel']).max() / 7, rtol=1e-6)


class Linen(nn.Module):
  """Every layout that linen has: the axes come from the graph and from no one's name."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(4, (3, 3), name='first')(x)
    x = nn.Conv(4, (3, 3), feature_group_count=4, name='depthwise')(x)
    x = nn.ConvTranspose(6, (2, 2), name='up')(x)
    x = nn.DenseGeneral((2, 3), name='heads')(x.mean((1, 2)))
    return nn.Dense(2, name='head')(x.reshape(-1, 6))


def test_trap_9_linens_layouts():
  model, x = Linen(), jnp.ones((1, 4, 4, 3))
  variables = jax.jit(model.init)(jax.random.key(0), x)
  context = Context(graph.layouts(graph.trace(model.apply, variables, x)))
  method = where((('.*', weights(bits=8)),), skip=('not_kernel',))
  stored = method.finalize(variables, method.init(variables, context)).parameters
  scales = {path: each.scale.shape for path, each in stored.items()}
  assert scales == {
    'first/kernel': (1, 1, 1, 4), 'depthwise/kernel': (1, 1, 1, 4), 'up/kernel': (1, 1, 1, 6),
    'heads/kernel': (1, 2, 3), 'head/kernel': (1, 2)}


def test_trap_9_equinox_stores_output_channels_first():
  model = eqx.nn.Sequential([
    eqx.nn.Conv2d(2, 4, 3, key=jax.random.key(0)), eqx.nn.Lambda(jnp.ravel),
    eqx.nn.Linear(16, 5, key=jax.random.key(1))])
  variables, static = eqx.partition(model, eqx.is_array)
  x = jnp.ones((1, 2, 4, 4))
  context = Context(graph.layouts(graph.trace(
    lambda variables, x: jax.vmap(eqx.combine(variables, static))(x), variables, x)))
  method = where((('.*', weights(bits=8)),), skip=('not_kernel',))
  own = method.init(variables, context)
  scales = {path: each.scale.shape for path, each in method.finalize(variables, own).parameters.items()}
  assert scales == {'layers/0/weight': (4, 1, 1, 1), 'layers/2/weight': (5, 1)}
  assert jax.tree.structure(method.view(variables, own, None)) == jax.tree.structure(variables)


def test_nnx_after_split():
  model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
  definition, variables = nnx.split(model)
  x = jnp.ones((1, 3))
  context = Context(graph.layouts(graph.trace(lambda variables, x: nnx.merge(definition, variables)(x), variables, x)))
  method = weights(bits=2)
  view = method.view(variables, method.init(variables, context), None)
  assert jax.tree.structure(view) == jax.tree.structure(variables)
  assert len(np.unique(trees.flatten(view)['layers/0/kernel'][:, 0])) <= 3
  assert nnx.merge(definition, view)(x).shape == (1, 2)


def test_zeros_of_pruning_stay_zeros_and_a_pruned_channel_gives_no_nan():
  variables, context = one((4, 3), (1,), kind='dense')
  method = chain(
    prune(lambda weight: jnp.broadcast_to(jnp.arange(3.0), weight.shape), patterns.unstructured, budgets.uniform,
          schedules.constant(1 / 3), every=1),
    weights(bits=4))
  own = method.init(variables, context)
  own = method.update(variables, own, context._replace(step=1))
  view = jax.jit(lambda variables: method.view(variables, own, None))(variables)['kernel']
  np.testing.assert_array_equal(view[:, 0], np.zeros(4))
  assert (view[:, 1:] != 0).any(0).all() and np.isfinite(view).all()
  np.testing.assert_array_equal(method.finalize(variables, own).parameters['kernel'].decode(), view)


def test_quantizing_twice_is_quantizing_once():
  variables, context = one((6, 4), (1,), kind='dense')
  method = weights(bits=4)
  own = method.init(variables, context)
  once = method.view(variables, own, None)
  np.testing.assert_allclose(method.view(once, own, None)['kernel'], once['kernel'], rtol=1e-6)


def test_a_bad_number_of_bits_is_refused_where_it_is_written():
  with pytest.raises(ValueError, match='bits=16'):
    weights(bits=16)


def test_the_criterion_of_a_control_is_magnitude():
  """8 bits move no weight by more than half a step."""
  variables, context = one((30, 20), (1,), kind='dense')
  method = weights(bits=8)
  view = method.view(variables, method.init(variables, context), None)['kernel']
  step = criteria.magnitude(variables['kernel']).max(0) / 127
  assert (jnp.abs(view - variables['kernel']) <= step / 2 * 1.0001).all()
