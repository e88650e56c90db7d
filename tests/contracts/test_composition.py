"""Every criterion with every pattern and budget, every integer grid, and what chains of them must keep."""
import inspect
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import prune, quantize
from lightjax.core import schedules, trees
from lightjax.core.transform import Own, chain, transform, where
from lightjax.prune import budgets, criteria, patterns
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (4, 6, 6, 3))
KEY = jax.random.key(2)


class Network(nn.Module):
  """Normal, depthwise and pointwise convolutions, normalization and dense layers."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(4, (3, 3), name='stem')(x))
    x = nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False, name='depthwise')(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name='norm')(x))
    x = nn.relu(nn.Conv(8, (1, 1), name='pointwise')(x))
    x = nn.relu(nn.Dense(6, name='fc')(x.mean((1, 2))))
    return nn.Dense(3, name='head')(x)


VARIABLES = Network().init(jax.random.key(0), X)
# A channel that is empty gives no step and no NaN.
VARIABLES['params']['pointwise']['kernel'] = VARIABLES['params']['pointwise']['kernel'].at[..., 3].set(0)
SIZES = {path: leaf.size for path, leaf in trees.flatten(VARIABLES).items()
         if path in ('depthwise/kernel', 'pointwise/kernel', 'fc/kernel')}


# Arguments of what is no piece by itself but makes one.
ARGUMENTS = {
  'n_of_m': dict(n=1, m=2, axis=-1), 'block': dict(rows=1, columns=2), 'by_path': dict(ratios=(('.*', 1.0),)),
  'equal_macs': dict(budget=budgets.erk)}


def piece(namespace, name):
  each = getattr(namespace, name)
  return each(**ARGUMENTS[name]) if name in ARGUMENTS else each


def names(namespace):
  return [name for name in namespace.__all__ if not inspect.isclass(getattr(namespace, name))]


def pruner(criterion='magnitude', pattern='unstructured', budget='uniform', sparsity=0.5):
  pieces = ((criteria, criterion), (patterns, pattern), (budgets, budget))
  schedule = schedules.cubic(0.0, sparsity, begin=1, end=3)
  return prune.prune(*(piece(*each) for each in pieces), schedule, every=1)


def shifting():
  """A transform that makes a zero into something else, as a binarizer does."""
  def view(variables, own, key):
    leaves = trees.flatten(variables)
    return trees.replace(variables, {path: leaves[path] + 1 for path in own.state})

  def init(variables, context):
    return Own(state={path: jnp.zeros(()) for path in context.select(variables)})

  return transform('shifting', init=init, view=view)


def trained(method):
  """The network under a method, and what the method owns after three observed steps with dense gradients."""
  compressed = bind(Network(), VARIABLES, method, X)
  own = compressed.init(VARIABLES, key=KEY)

  @jax.jit
  def step(own, number):
    view = method.view(VARIABLES, own, KEY)

    def loss(params):
      output, observed = compressed.apply_view({**view, 'params': params}, own, X, observe=True)
      return (output**2).sum(), observed

    gradients, observed = jax.grad(loss, has_aux=True)(view['params'])
    return compressed.update(
      VARIABLES, own, step=number, key=KEY, observed=observed, gradients=gradients, batch=(X,),
      loss=lambda variables: (Network().apply(variables, X)**2).sum())[1]

  for number in (1, 2, 3):
    own = step(own, number)
  return compressed, own


def decodes_to_the_view(method, own):
  """Integers as a file holds them, computed without jit, against the view that a compiled step computes."""
  view = trees.flatten(jax.jit(method.view)(VARIABLES, own, None))
  stored = method.finalize(VARIABLES, own).parameters
  for path, integers in stored.items():
    decoded = np.asarray(integers.codes).astype(np.float32) * np.asarray(integers.scale)
    np.testing.assert_array_equal(decoded.view(np.int32), np.asarray(view[path]).view(np.int32), err_msg=path)
    assert np.isfinite(decoded).all()
  return stored


# Every criterion, and every pattern with every budget: what is ranked and how it is ranked do not know of each other.
PRUNERS = [(name, 'unstructured', 'uniform') for name in names(criteria)] + [
  ('magnitude', *each) for each in itertools.product(names(patterns), names(budgets))]


@pytest.mark.parametrize('criterion, pattern, budget', PRUNERS)
def test_every_pruner_gives_exact_counts_and_may_be_followed_by_integers(criterion, pattern, budget):
  sparsity = 0.3 if pattern == 'n_of_m' else 0.5  # of which a budget may want 0.5 in one layer
  method = chain(pruner(criterion, pattern, budget, sparsity), quantize.weights(bits=4))
  compressed, own = trained(method)
  support, layouts = method.support(own), compressed.layouts
  assert set(support) == set(SIZES)
  tiles = {path: piece(patterns, pattern).grid(path, mask.shape, layouts[path]) for path, mask in support.items()}
  counts = budgets.ask(
    piece(budgets, budget), sizes={path: int(np.prod(tiles[path])) for path in SIZES}, sparsity=sparsity,
    shapes={path: mask.shape for path, mask in support.items()}, macs={path: layouts[path].macs for path in SIZES})
  size = {path: SIZES[path] // int(np.prod(tiles[path])) for path in SIZES}
  for group, count in counts.items():
    assert sum(int((~np.asarray(support[path])).sum()) // size[path] for path in group) == count > 0
  stored = decodes_to_the_view(method, own)
  assert set(stored) == set(SIZES)
  for path, mask in support.items():
    assert not np.asarray(stored[path].codes)[~np.asarray(mask)].any()


@pytest.mark.parametrize('criterion, pattern, budget', [
  ('magnitude', name, budget) for name, budget in zip(names(patterns), itertools.cycle(names(budgets)))])
def test_a_later_stage_that_loses_zeros_is_refused_and_an_earlier_one_is_not(criterion, pattern, budget):
  first = pruner(criterion, pattern, budget)
  for wrapped in (first, where((('fc/.*', first),)), chain(first, quantize.weights(bits=8))):
    with pytest.raises(ValueError, match=r"'shifting' does not keep the zeros that .* makes in"):
      bind(Network(), VARIABLES, chain(wrapped, shifting()), X).init(VARIABLES, key=KEY)
  bind(Network(), VARIABLES, chain(shifting(), first), X).init(VARIABLES, key=KEY)


@pytest.mark.parametrize('granularity', ['channel', 'tensor'])
@pytest.mark.parametrize('bits', range(2, 9))
def test_every_grid_decodes_to_the_compiled_view_to_the_last_bit(bits, granularity):
  method = quantize.weights(bits=bits, granularity=getattr(quantize.granularities, granularity))
  own = bind(Network(), VARIABLES, method, X).init(VARIABLES)
  stored = decodes_to_the_view(method, own)
  assert set(stored) == set(SIZES)
  for path, integers in stored.items():
    channels = VARIABLES['params'][path.partition('/')[0]]['kernel'].shape[-1]
    assert integers.scale.size == (channels if granularity == 'channel' else 1)
    assert np.abs(np.asarray(integers.codes, np.int32)).max() == 2 ** (bits - 1) - 1
  assert not np.asarray(stored['pointwise/kernel'].codes)[..., 3].any()


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_the_stored_network_computes_the_simulations_logits_to_the_last_bit(bits):
  method = chain(pruner(), quantize.weights(bits=bits), quantize.activations(bits=bits))
  compressed, own = trained(method)
  stored = method.finalize(VARIABLES, own)
  view = method.view(VARIABLES, own, None)
  decoded = trees.replace(view, {path: integers.decode() for path, integers in stored.parameters.items()})

  @jax.jit
  def loaded(variables, x):
    with nn.intercept_methods(quantize.frozen_interceptor(stored.activations)):
      return Network().apply(variables, x)

  assert set(stored.activations) == {'depthwise', 'pointwise', 'fc'}
  np.testing.assert_array_equal(loaded(decoded, X), jax.jit(compressed.apply)(VARIABLES, own, X))
