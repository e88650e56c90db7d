"""Networks that tests of post-training quantization share."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lightjax import models
from lightjax.nn.layers import BatchNorm, Conv, ConvNorm
from lightjax.quantize import integer, lowering, program


class Mobile(nn.Module):
  """An inverted residual with ReLU6, a branch with ReLU, hard swish, squeeze and excite, concatenation, pooling."""

  @nn.compact
  def __call__(self, x, train=False):
    x = ConvNorm(8, activation=nn.relu6, name='stem')(x, train)
    y = ConvNorm(24, 1, activation=nn.relu6, name='expand')(x, train)
    y = ConvNorm(24, 3, groups=24, activation=nn.relu6, name='depthwise')(y, train)
    x = x + ConvNorm(8, 1, activation=None, name='project')(y, train)
    gate = nn.sigmoid(nn.Dense(8, name='gate')(x.mean((1, 2))))
    x = x * gate[:, None, None]
    left = ConvNorm(8, activation=nn.hard_swish, name='left')(x, train)
    right = nn.max_pool(ConvNorm(8, name='right')(x, train), (3, 3), padding='SAME')
    x = jnp.concatenate([left, right], -1)
    x = nn.relu(BatchNorm(use_running_average=not train, name='norm')(x))
    x = Conv(12, (3, 3), padding='VALID', name='last')(x)
    return nn.Dense(5, name='head')(x.mean((1, 2)))


def randomized(variables, seed=0):
  """Statistics, scales and biases as training leaves them: none of them is 0 or 1."""
  random = np.random.default_rng(seed)

  def change(path, leaf):
    name = path[-1].key
    if name in ('mean', 'bias'):
      return jnp.asarray(random.normal(0, 0.3, leaf.shape), jnp.float32)
    if name in ('var', 'scale'):
      return jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32)
    return leaf

  return jax.tree_util.tree_map_with_path(change, variables)


@functools.cache
def built(model, shape, count):
  """(apply, variables, images, program)."""
  images = jnp.asarray(np.random.default_rng(0).standard_normal((count, *shape)), jnp.float32)
  variables = randomized(jax.jit(model.init)(jax.random.key(0, impl='rbg'), images))

  def apply(variables, x):
    return model.apply(variables, x, train=False)

  return apply, variables, images, lowering.lower(apply, variables, images)


@pytest.fixture(scope='session')
def steps_apart():
  """Measures how far each operation's codes are from its simulation, both given the same codes."""

  def measure(quantized, converted, images):
    @jax.jit
    def differences(images):
      values, found = converted.values(images), {}
      for node in quantized.network.program.nodes:
        given = [integer.decode(converted.grids[name], values[name]) if name in converted.grids else values[name]
                 for name in node.inputs]
        layer = quantized.network.layers.get(node.name)
        results = program.batched(lambda *given, node=node, layer=layer: program.evaluate(node, layer, given))(*given)
        for name, result in zip(node.outputs, results, strict=True):
          if name in converted.grids:
            codes = integer.encode(converted.grids[name], result).astype(int)
            found[name] = jnp.abs(codes - values[name].astype(int)).max()
          else:  # a float: half a step of the accumulators, in which the bias is rounded
            allowed = 1e-4 * jnp.abs(result).max() + jnp.max(converted.constants.get(node.name, {}).get('scale', 0)) / 2
            found[name] = 2 * (jnp.abs(result - values[name]).max() > allowed)
      return found

    return {name: int(each) for name, each in differences(images).items()}

  return measure


@pytest.fixture(scope='session')
def mobile():
  """A small network of everything, its variables, images and program."""
  return built(Mobile(), (12, 12, 3), 4)


@pytest.fixture(scope='session')
def zoo():
  """The same for a network of the zoo, by name and image size."""
  return lambda name, size, channels=3, **overrides: built(models.create(name, **overrides), (size, size, channels), 2)
