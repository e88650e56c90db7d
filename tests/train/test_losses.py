"""Losses of outputs and labels against NumPy."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.train import losses


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.4])
def test_label_smoothing(smoothing):
  logits = np.random.default_rng(0).normal(size=(5, 4))
  labels = np.array([0, 1, 2, 3, 1])
  targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
  log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  seen = losses.cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing)
  np.testing.assert_allclose(seen, -(targets * log).sum(-1), rtol=1e-5)


def test_squared_hinge_is_that_of_one_against_the_rest():
  outputs = np.array([[2.0, -0.5, 0.25], [-3.0, 1.0, 0.5]])
  labels = np.array([0, 1])
  # by hand: (max(0, 1-2)^2 + max(0, 1-0.5)^2 + max(0, 1+0.25)^2) / 3, and with t = (-1, 1, -1)
  expected = [(0 + 0.25 + 1.5625) / 3, (0 + 0 + 2.25) / 3]
  np.testing.assert_allclose(losses.squared_hinge(jnp.asarray(outputs), jnp.asarray(labels), 0.0), expected, rtol=1e-6)


def test_the_gradient_of_squared_hinge_ends_at_the_margin():
  def loss(z):
    return losses.squared_hinge(z[None], jnp.array([0]), 0.0)[0]

  gradient = jax.grad(loss)(jnp.array([0.5, 0.5, -2.0]))
  np.testing.assert_allclose(gradient, [-2 * 0.5 / 3, 2 * 1.5 / 3, 0], rtol=1e-6)


def test_margins_have_no_mass_to_smooth():
  with pytest.raises(ValueError, match=r'label_smoothing=0\.1 is for cross_entropy'):
    losses.squared_hinge(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32), 0.1)
