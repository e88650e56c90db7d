import jax
import jax.numpy as jnp
import numpy as np

from lightjax.prune import criteria

WEIGHT = jnp.array([[-3.0, 0.5], [1.0, -0.25]])
GRADIENT = jnp.array([[0.1, -4.0], [0.0, 2.0]])


def test_magnitude_by_hand():
  np.testing.assert_array_equal(criteria.magnitude(WEIGHT), [[3.0, 0.5], [1.0, 0.25]])


def test_saliency_by_hand():
  np.testing.assert_allclose(criteria.saliency(WEIGHT, GRADIENT), [[0.3, 2.0], [0.0, 0.5]], rtol=1e-6)


def test_saliency_is_the_first_order_change_of_the_loss_when_a_weight_is_removed():
  def loss(w):
    return jnp.sum(jnp.array([2.0, -3.0, 5.0]) * w)  # linear, so that the first order is exact

  weight = jnp.array([0.5, 1.0, -2.0])
  removed = [abs(loss(weight.at[i].set(0)) - loss(weight)) for i in range(3)]
  np.testing.assert_allclose(criteria.saliency(weight, jax.grad(loss)(weight)), removed, rtol=1e-6)


def test_random_is_uniform_noise_of_its_key():
  scores = criteria.random(jnp.zeros((100, 100)), jax.random.key(0))
  assert scores.shape == (100, 100)
  assert scores.min() >= 0 and scores.max() < 1
  assert abs(scores.mean() - 0.5) < 0.01
  assert not np.array_equal(scores, criteria.random(jnp.zeros((100, 100)), jax.random.key(1)))
