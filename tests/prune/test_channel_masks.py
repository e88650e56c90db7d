"""Masks as arguments: they zero what `surgery.mask` does, and training under them is that of what is left."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lightjax import graph, models
from lightjax.core.transform import Context
from lightjax.nn.layers import BatchNorm, Conv
from lightjax.prune import channel_masks, selection, surgery
from lightjax.train import compression, step
from lightjax.train import state as states


class Small(nn.Module):
  """Convolutions with BatchNorm: plain, in groups with a shuffle, depthwise, and a residual sum."""

  @nn.compact
  def __call__(self, x, train=False):
    def block(x, features, window, groups, name):
      x = Conv(features, (window, window), feature_group_count=groups, use_bias=False, name=name)(x)
      return BatchNorm(use_running_average=not train, name=f'{name}_norm')(x)

    x = nn.relu(block(x, 12, 3, 1, 'stem'))
    y = nn.relu(block(x, 12, 1, 3, 'grouped'))
    y = y.reshape(*y.shape[:-1], 3, 4).swapaxes(-1, -2).reshape(y.shape)
    y = nn.relu(block(y, 12, 3, 12, 'depthwise'))
    x = nn.relu(x + block(y, 12, 1, 1, 'project'))
    return nn.Dense(4, name='classifier')(x.mean((1, 2)))


NETWORKS = {'small': Small, 'resnet8': lambda: models.create('resnet8', classes=4)}


def network(name):
  model = NETWORKS[name]()
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32))
  shapes = jax.eval_shape(model.init, jax.random.key(0), x)
  generator = np.random.default_rng(1)
  variables = jax.tree.map(lambda each: jnp.asarray(generator.uniform(0.1, 0.5, each.shape), each.dtype), shapes)
  return model, variables, x, graph.channels(model.apply, variables, x)


def some(coupling, seed=0):
  """About two thirds of the channels of each group, as convolutions in groups allow them."""
  generator = np.random.default_rng(seed)
  scores = {group.name: generator.random(group.size) for group in coupling.prunable}
  return selection.keep(coupling, scores, {name: max(1, 2 * len(each) // 3) for name, each in scores.items()})


@pytest.mark.parametrize('name', NETWORKS)
def test_masks_zero_what_surgery_zeroes(name):
  _, variables, _, coupling = network(name)
  kept = some(coupling)
  masks = channel_masks.channel_masks(coupling)
  own = masks.init(variables, Context({}))
  jax.tree.map(np.testing.assert_array_equal, masks.view(variables, own, None), variables)
  own = channel_masks.choose(own, kept)
  masked = jax.jit(lambda own: masks.view(variables, own, None))(own)
  jax.tree.map(np.testing.assert_array_equal, masked, surgery.mask(coupling, variables, kept))
  support = masks.support(own)
  for path, mask in support.items():
    leaf = variables['params']
    for part in path.split('/'):
      leaf = leaf[part]
    assert mask.shape == leaf.shape and not mask.all()


def test_steps_under_masks_are_those_of_the_smaller_network():
  model, variables, x, coupling = network('small')
  kept = some(coupling)
  masks = channel_masks.channel_masks(coupling)
  removed = surgery.remove(model.apply, coupling, variables, kept)
  optimizer = optax.chain(
    optax.clip_by_global_norm(0.5), optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9))
  generator = np.random.default_rng(1)
  batches = [(generator.standard_normal((8, 8, 8, 3)).astype(np.float32), generator.integers(4, size=8))
             for _ in range(3)]

  def train(apply, method, variables, own):
    compressed = compression.bind(apply, variables, method, x)
    advance = jax.jit(step.training_step(compressed, optimizer, prepare=lambda key, images: images))
    state = states.create(method.project(variables, own), own, optimizer, averaged=False)
    for images, labels in batches:
      state = advance(state, jax.random.key(0), images, labels)
    return state

  own = channel_masks.choose(masks.init(variables, Context({})), kept)
  whole = train(model.apply, masks, variables, own)
  smaller = train(removed.apply, masks._replace(
    view=lambda variables, own, key: variables, project=lambda variables, own: variables, support=lambda own: {}),
    removed.variables, own)
  expected = surgery.mask(coupling, whole.variables(), kept)
  jax.tree.map(np.testing.assert_array_equal, whole.params, expected['params'])
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5),
    removed.removal.cut(whole.variables()), smaller.variables())
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-5),
    removed.removal.cut(whole.opt_state), smaller.opt_state)


def test_other_groups_are_refused():
  _, variables, _, coupling = network('small')
  own = channel_masks.channel_masks(coupling).init(variables, Context({}))
  for wrong in ({'classifier': np.ones(4, bool)}, {'stem': np.ones(3, bool)}):
    with pytest.raises(ValueError, match='is none of the groups'):
      channel_masks.choose(own, wrong)
