"""Any network under any transform, in a training loop of the user's own."""
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import lightjax
from lightjax import artifact, prune, quantize
from lightjax.core import schedules, trees
from lightjax.core.transform import chain, where

X = jax.random.normal(jax.random.key(0), (64, 8))
Y = jnp.argmax(X[:, :3], -1)
EVERYTHING = ('not_kernel',)  # what the defaults leave alone here: the last dense layer is compressed as well


def method():
  cubic = schedules.cubic(0.0, 0.75, begin=5, end=30)
  pruning = prune.prune(prune.criteria.magnitude, prune.patterns.unstructured, prune.budgets.uniform, cubic, every=5)
  return where((('.*', chain(pruning, quantize.weights(bits=8))),), skip=EVERYTHING)


class Net(nn.Module):

  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(nn.relu(nn.Dense(16)(x)))


def linen():
  model = Net()
  return model, model.init(jax.random.key(1), X)


def nnx_split():
  class Module(nnx.Module):

    def __init__(self, rngs):
      self.one, self.two = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
      return self.two(nnx.relu(self.one(x)))

  definition, state = nnx.split(Module(nnx.Rngs(0)))
  return (lambda state, x: nnx.merge(definition, state)(x)), state


def equinox_partition():
  arrays, rest = eqx.partition(eqx.nn.MLP(8, 3, 16, 1, key=jax.random.key(0)), eqx.is_array)
  return (lambda arrays, x: jax.vmap(eqx.combine(arrays, rest))(x)), arrays


def train(compressed, variables, own, steps=60):
  optimizer = optax.adamw(3e-2, weight_decay=1e-2)
  opt_state = optimizer.init(variables)

  @jax.jit
  def step(variables, own, opt_state, number):
    def loss(variables):
      logits, observed = compressed.apply(variables, own, X, observe=True)
      return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean(), observed

    (value, observed), gradients = jax.value_and_grad(loss, has_aux=True)(variables)
    updates, opt_state = optimizer.update(gradients, opt_state, variables)
    variables = optax.apply_updates(variables, updates)
    return *compressed.update(variables, own, opt_state, optimizer, step=number, observed=observed), value

  losses = []
  for number in range(1, steps + 1):
    variables, own, opt_state, value = step(variables, own, opt_state, number)
    losses.append(float(value))
  return variables, own, losses


@pytest.mark.parametrize('network', [linen, nnx_split, equinox_partition])
def test_a_loop_of_ones_own_prunes_and_quantizes_any_module(network, capsys):
  model, variables = network()
  compressed, own = lightjax.compress(model, variables, method(), X)
  table = capsys.readouterr().out
  variables, own, losses = train(compressed, variables, own)
  assert losses[-1] < 0.5 * losses[0]
  view = trees.flatten(compressed.transform.view(variables, own, None))
  kernels = [path for path in view if path in compressed.layouts]
  assert len(kernels) == 2
  for path in kernels:
    assert path in table
    size = view[path].size
    # Exactly the schedule's number of zeros in the parameters; rounding may add some to the view.
    assert (np.asarray(trees.flatten(variables)[path]) == 0).sum() == round(0.75 * size)
    assert (np.asarray(view[path]) == 0).sum() >= round(0.75 * size)
    levels = np.unique(np.abs(np.asarray(view[path])), axis=None)
    assert len(levels) <= 1 + 127 * max(view[path].shape)


def test_activations_need_linen_and_say_so():
  model, state = nnx_split()
  with pytest.raises(ValueError, match='linen'):
    lightjax.compress(model, state, quantize.activations(bits=8), X)


def test_the_stored_network_repeats_the_simulation(tmp_path):
  model, variables = linen()
  both = where((('.*', chain(method_without_rules(), quantize.activations(bits=8))),), skip=EVERYTHING)
  compressed, own = lightjax.compress(model, variables, both, X)
  variables, own, _ = train(compressed, variables, own)
  compressed.save(tmp_path / 'network.ljx', variables, own)
  stored = artifact.load(tmp_path / 'network.ljx')

  @jax.jit
  def forward(variables, x):
    with nn.intercept_methods(quantize.frozen_interceptor(stored.encoded.activations)):
      return model.apply(variables, x)

  np.testing.assert_array_equal(forward(stored.variables, X), jax.jit(compressed.apply)(variables, own, X))


def method_without_rules():
  return quantize.weights(bits=4)
