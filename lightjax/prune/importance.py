"""Importance of channels: a formula over what belongs to a unit, and its parameters name what it needs.

A formula is asked once for each axis of a variable in a group of channels (`graph.Member`). It returns a number for
each unit; the lowest go first. Its parameters are any of these:

  weight      [n, k]     the weights of n units on that axis: a filter, the columns that read a channel
  gradients   [b, n, k]  the loss's gradient at them on each of b batches
  scale       [n, k]     BatchNorm's scales; asks for these members in place of the kernels
  activation  [n, k]     mean absolute value of the channels where they are read (k > 1 after a flatten)
  key                    a PRNG key, one for each member

`channel_scores.scores` gathers these and joins the members of a group. To use your own formula, write it in a file of
yours and name it 'my_file:my_importance' in a config.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

__all__ = ['activation_mean', 'batch_norm_scale', 'fisher', 'geometric_median', 'l1', 'l2', 'random', 'taylor']


def l1(weight: Float[Array, 'n k']) -> Float[Array, ' n']:
  """Sum of absolute weights, sum |w|.

  Args:
    weight: rows of units.
  Returns:
    Importance of each unit.
  Source: Li et al. 2017, arXiv:1608.08710, section 3.1.
  """
  return jnp.abs(weight).sum(-1)


def l2(weight: Float[Array, 'n k']) -> Float[Array, ' n']:
  """Euclidean norm of the weights, sqrt(sum w^2).

  Args:
    weight: rows of units.
  Returns:
    Importance of each unit.
  Source: He et al. 2018, arXiv:1808.06866, eq. 2 with p = 2.
  """
  return jnp.sqrt(jnp.square(weight).sum(-1))


def taylor(weight: Float[Array, 'n k'], gradients: Float[Array, 'b n k']) -> Float[Array, ' n']:
  """First-order change of the loss without the unit, |sum w dL/dw|, averaged over batches.

  Args:
    weight: rows of units.
    gradients: of the loss on each batch.
  Returns:
    Importance of each unit.
  Source: Molchanov et al. 2017, arXiv:1611.06440, eq. 8 (there on activations); for weights Molchanov et al. 2019,
    arXiv:1906.10771, eq. 8.
  Deviations from the paper: the absolute value of each batch's sum; the papers take each example's, the second one
  its square (`fisher`).
  """
  return jnp.abs((weight * gradients).sum(-1)).mean(0)


def fisher(weight: Float[Array, 'n k'], gradients: Float[Array, 'b n k']) -> Float[Array, ' n']:
  """Second-order change of the loss with the empirical Fisher information of the unit's gate, (sum w dL/dw)^2 / 2.

  Args:
    weight: rows of units.
    gradients: of the loss on each batch; the square is averaged over them.
  Returns:
    Importance of each unit.
  Source: Theis et al. 2018, arXiv:1801.05787, eq. 10; Liu et al. 2021, arXiv:2108.00708, eq. 6, for coupled channels.
  Deviations from the paper: squares of batches and not of single examples.
  """
  return 0.5 * jnp.square((weight * gradients).sum(-1)).mean(0)


def batch_norm_scale(scale: Float[Array, 'n k']) -> Float[Array, ' n']:
  """Absolute scale of the BatchNorm behind the unit, |gamma|.

  Args:
    scale: of each unit.
  Returns:
    Importance of each unit. Train with `regularizers.batch_norm_l1` first.
  Source: Liu et al. 2017, arXiv:1708.06519, section 3 (network slimming), ranked globally without a normalizer.
  """
  return jnp.abs(scale).sum(-1)


def geometric_median(weight: Float[Array, 'n k']) -> Float[Array, ' n']:
  """Distance to the other units, sum_j ||w_i - w_j||: what lies in the middle is replaced by the rest.

  Args:
    weight: rows of units.
  Returns:
    Importance of each unit.
  Source: He et al. 2019, arXiv:1811.00250, eq. 8 (FPGM).
  """
  return jax.lax.map(lambda row: jnp.sqrt(jnp.square(weight - row).sum(-1)).sum(), weight)


def activation_mean(activation: Float[Array, 'n k']) -> Float[Array, ' n']:
  """Mean absolute activation where the channel is read, after normalization and activation.

  Args:
    activation: mean over examples and positions, from `channel_scores.mean_activations`.
  Returns:
    Importance of each unit.
  Source: Molchanov et al. 2017, arXiv:1611.06440, section 2.2, 'mean activation'.
  """
  return activation.mean(-1)


def random(weight: Float[Array, 'n k'], key: Key[Array, '']) -> Float[Array, ' n']:
  """Uniform noise: the control of every pruning experiment.

  Args:
    weight: rows of units.
    key: PRNG key, one for each member.
  Returns:
    Numbers in 0..1.
  """
  return jax.random.uniform(key, weight.shape[:1])
