"""Saliency of single weights: a criterion is a formula, and its parameters name what it needs.

A criterion is a function of any of `weight`, `gradient` and `key` that returns scores of the weight's shape; the lowest
scores are pruned. What its signature does not name is not computed. To use your own, write it in a file of yours and
name it 'my_file:my_criterion' in a config.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

__all__ = ['magnitude', 'random', 'saliency']


def magnitude(weight: Float[Array, '*s']) -> Float[Array, '*s']:
  """The weight's absolute value, |w|.

  Args:
    weight: any shape.
  Returns:
    Scores, same shape; the lowest are pruned.
  Source: Han et al. 2015, arXiv:1506.02626, section 3; LeCun et al. 1990 compare it with saliency.
  """
  return jnp.abs(weight)


def random(weight: Float[Array, '*s'], key: Key[Array, '']) -> Float[Array, '*s']:
  """Uniform noise: the control of every pruning experiment.

  Args:
    weight: any shape.
    key: PRNG key, one for each parameter and update.
  Returns:
    Scores in 0..1, same shape.
  """
  return jax.random.uniform(key, weight.shape)


def saliency(weight: Float[Array, '*s'], gradient: Float[Array, '*s']) -> Float[Array, '*s']:
  """First-order saliency: the change of the loss when a weight is removed, |w dL/dw|.

  Args:
    weight: any shape.
    gradient: the dense gradient of the loss at the view, same shape.
  Returns:
    Scores, same shape.
  Source: Molchanov et al. 2017, arXiv:1611.06440, eq. 8 (there for a channel; here for each weight).
  """
  return jnp.abs(weight * gradient)
