"""Optimizers against their published update rules in NumPy, learning rates against closed forms."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.train import optimizers

DECAY, RATE = 0.1, 0.05
BIASES = ('.*/bias',)


@pytest.fixture
def trained():
  rng = np.random.default_rng(0)
  return {
    'params': {'fc': {'kernel': jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), 'bias': jnp.ones(2)}},
    'transform': {'step': jnp.float32(0.5)},
  }


def follow(optimizer, trained, count=3):
  """The values after each of some steps under fixed random gradients, and the gradients, by leaf."""
  rng = np.random.default_rng(1)
  state = optimizer.init(trained)
  values, gradients = [jax.tree.leaves(trained)], []
  for _ in range(count):
    gradient = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), trained)
    updates, state = optimizer.update(gradient, state, trained)
    trained = jax.tree.map(jnp.add, trained, updates)
    values.append(jax.tree.leaves(trained))
    gradients.append(jax.tree.leaves(gradient))
  return values, gradients


# The leaves in their order: the bias and the transform's step are not decayed, the kernel is.
DECAYS = (0.0, DECAY, 0.0)


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_decays_in_the_gradient_before_the_momentum(trained, nesterov):
  optimizer = optimizers.optimizer(
    optimizers.sgd, lambda step: RATE / (1 + step), weight_decay=DECAY, no_decay=BIASES, momentum=0.8,
    nesterov=nesterov)
  values, gradients = follow(optimizer, trained)
  for leaf, decay in enumerate(DECAYS):
    w, v = np.asarray(values[0][leaf], np.float64), 0.0
    for step, gradient in enumerate(gradients):
      g = np.asarray(gradient[leaf], np.float64) + decay * w
      v = 0.8 * v + g
      w = w - RATE / (1 + step) * (g + 0.8 * v if nesterov else v)
      np.testing.assert_allclose(values[step + 1][leaf], w, rtol=1e-5, atol=1e-6)


def test_adamw_decays_after_the_scaling(trained):
  optimizer = optimizers.optimizer(
    optimizers.adamw, lambda step: RATE / (1 + step), weight_decay=DECAY, no_decay=BIASES, b1=0.8, b2=0.9, eps=1e-6)
  values, gradients = follow(optimizer, trained)
  for leaf, decay in enumerate(DECAYS):
    w, m, v = np.asarray(values[0][leaf], np.float64), 0.0, 0.0
    for step, gradient in enumerate(gradients):
      g = np.asarray(gradient[leaf], np.float64)
      m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
      corrected = (m / (1 - 0.8**(step + 1))) / (np.sqrt(v / (1 - 0.9**(step + 1))) + 1e-6)
      w = w - RATE / (1 + step) * (corrected + decay * w)
      np.testing.assert_allclose(values[step + 1][leaf], w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('bound', [0.5, 1e3])
def test_the_norm_over_all_gradients_is_clipped(trained, bound):
  optimizer = optimizers.optimizer(optimizers.sgd, lambda step: 1.0, clip_norm=bound, momentum=0.0)
  values, gradients = follow(optimizer, trained, count=1)
  norm = np.sqrt(sum((np.asarray(leaf)**2).sum() for leaf in gradients[0]))
  for before, after, gradient in zip(*values, gradients[0], strict=True):
    np.testing.assert_allclose(before - after, gradient * min(1, bound / norm), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('warmup', [0, 5])
def test_cosine(warmup):
  rate = optimizers.cosine(0.4, total=25, warmup=warmup)
  for step in range(26):
    expected = 0.4 * step / warmup if step < warmup else (
      0.2 * (1 + np.cos(np.pi * (step - warmup) / (25 - warmup))))
    assert float(rate(step)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('warmup', [0, 5])
def test_steps_and_constant(warmup):
  rate = optimizers.steps(0.4, total=40, warmup=warmup, at=(0.5, 0.75), factor=0.1)
  same = optimizers.constant(0.4, total=40, warmup=warmup)
  for step in range(45):
    warm = min(1, step / warmup) if warmup else 1
    factor = 1 if step < 20 else 0.1 if step < 30 else 0.01
    assert float(rate(step)) == pytest.approx(0.4 * warm * factor, rel=1e-5)
    assert float(same(step)) == pytest.approx(0.4 * warm, rel=1e-5)


def test_the_papers_fractions_are_the_steps_they_state():
  """He et al. 2016, section 4.2: divided by 10 at 32,000 and 48,000 of 64,000 steps."""
  rate = optimizers.steps(0.1, total=64_000)
  seen = [float(rate(step)) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
  np.testing.assert_allclose(seen, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)
