"""Saliency of single weights: a criterion is a formula, and its parameters name what it needs.

A criterion returns scores of the weight's shape; the lowest are pruned (or, where it says what to grow, the highest
grow). Its parameters are any of these, and what it does not name is not computed:

  weight            the weights at this stage
  gradient          the dense gradient of the loss at the final view
  key               a PRNG key, one for each parameter and move
  hessian_gradient  H g, the loss's Hessian times its gradient, at the weights as they are masked now
  squared_gradient  the gradient's square, averaged over all steps so far (state of its own)
  movement          -w g, summed over all steps so far (state of its own)
  flow              the gradient of the sum of all outputs for an input of ones, at the absolute weights
  input_norm        root mean square of the input that each weight is multiplied with, broadcastable to the weight
  inverse_hessian   diagonal of the inverse of the layer's second moment of inputs, broadcastable to the weight

To use your own, write it in a file of yours and name it 'my_file:my_criterion' in a config.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

__all__ = [
  'fisher', 'gradient_magnitude', 'grasp', 'lamp', 'magnitude', 'movement', 'optimal_brain_surgeon', 'random',
  'saliency', 'snip', 'synflow', 'wanda']


def magnitude(weight: Float[Array, '*s']) -> Float[Array, '*s']:
  """The weight's absolute value, |w|.

  Args:
    weight: any shape.
  Returns:
    Scores, same shape; the lowest are pruned.
  Source: Han et al. 2015, arXiv:1506.02626, section 3; LeCun et al. 1990 compare it with saliency.
  """
  return jnp.abs(weight)


def lamp(weight: Float[Array, '*s']) -> Float[Array, '*s']:
  """Magnitude made comparable between layers: w^2 over the sum of the squares that are at least as large.

  Args:
    weight: any shape, one layer.
  Returns:
    Scores, same shape, 0..1; rank them together (budget `global_`). The largest weight of a layer has score 1.
  Source: Lee et al. 2021, arXiv:2010.07611, eq. 1.
  Deviations from the paper: of equal weights the one with the lower index counts as the smaller, so that no two differ
  in their order from that of the masks.
  """
  squares = jnp.square(weight.ravel().astype(jnp.float32))
  order = jnp.argsort(squares, stable=True)
  survivors = jnp.cumsum(squares[order][::-1])[::-1]
  scores = jnp.where(survivors > 0, squares[order] / jnp.where(survivors > 0, survivors, 1.0), 0.0)
  return jnp.zeros_like(squares).at[order].set(scores).reshape(weight.shape)


def random(weight: Float[Array, '*s'], key: Key[Array, '']) -> Float[Array, '*s']:
  """Uniform noise: the control of every pruning experiment.

  Args:
    weight: any shape.
    key: PRNG key, one for each parameter and update.
  Returns:
    Scores in 0..1, same shape.
  """
  return jax.random.uniform(key, weight.shape)


def gradient_magnitude(gradient: Float[Array, '*s']) -> Float[Array, '*s']:
  """The dense gradient's absolute value, |dL/dw|: what RigL grows by.

  Args:
    gradient: the dense gradient of the loss at the view, any shape.
  Returns:
    Scores, same shape.
  Source: Evci et al. 2020, arXiv:1911.11134, algorithm 1.
  """
  return jnp.abs(gradient)


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


def snip(weight: Float[Array, '*s'], gradient: Float[Array, '*s']) -> Float[Array, '*s']:
  """Connection sensitivity: the gradient with respect to a mask c of ones, |dL/dc| = |w dL/dw|; before training.

  Args:
    weight: at initialization, any shape.
    gradient: of the loss on one batch or a few, same shape.
  Returns:
    Scores, same shape; rank them together (budget `global_`).
  Source: Lee et al. 2019, arXiv:1810.02340, eq. 3 and 5.
  Deviations from the paper: not divided by the sum over all weights, which changes no order.
  """
  return jnp.abs(weight * gradient)


def grasp(weight: Float[Array, '*s'], hessian_gradient: Float[Array, '*s']) -> Float[Array, '*s']:
  """Gradient signal preservation: w H g, the negative of how much removing w would raise the gradient's norm.

  Args:
    weight: at initialization, any shape.
    hessian_gradient: Hessian of the loss times its gradient, same shape.
  Returns:
    Scores, same shape; rank them together (budget `global_`).
  Source: Wang et al. 2020, arXiv:2002.07376, eq. 8: S = -w H g, and the *highest* S are removed.
  Deviations from the paper: none in the formula. The paper's code divides the logits by a temperature of 200, and so
  must the loss that is given: at temperature 1 the weights that stay raise the gradient by blowing up the logits
  (LeNet-300-100 at 90 %, uniform: standard deviation 8 and loss 13.4 before the first step; 1.8 and 2.2 at 200).
  """
  return weight * hessian_gradient


def synflow(weight: Float[Array, '*s'], flow: Float[Array, '*s']) -> Float[Array, '*s']:
  """Synaptic flow, |w| dR/d|w|: conserved from layer to layer, so that no layer is pruned as a whole; needs no data.

  Args:
    weight: any shape.
    flow: gradient of R, the sum of the outputs for an input of ones with all weights at their absolute value.
  Returns:
    Scores, same shape; rank them together (budget `global_`), in many rounds (100 in the paper).
  Source: Tanaka et al. 2020, arXiv:2006.05467, eq. 2 and algorithm 1.
  Deviations from the paper: R is computed in the network's precision, which overflows for very deep networks without
  normalization; the paper's code uses float64.
  """
  return jnp.abs(weight * flow)


def fisher(weight: Float[Array, '*s'], squared_gradient: Float[Array, '*s']) -> Float[Array, '*s']:
  """Second-order saliency with the diagonal of the empirical Fisher information as curvature, w^2 F / 2.

  Args:
    weight: any shape.
    squared_gradient: the gradient's square, averaged over steps, same shape.
  Returns:
    Scores, same shape.
  Source: Theis et al. 2018, arXiv:1801.05787, eq. 4 to 7; LeCun et al. 1990 with the Hessian in place of F.
  Deviations from the paper: squares of the gradients of batches and not of single examples.
  """
  return 0.5 * jnp.square(weight) * squared_gradient


def movement(movement: Float[Array, '*s']) -> Float[Array, '*s']:
  """How far training moves a weight away from zero, -sum of w dL/dw over the steps.

  Args:
    movement: that sum, any shape.
  Returns:
    Scores, same shape; weights that shrink have negative ones and go first.
  Source: Sanh et al. 2020, arXiv:2005.07683, eq. 2 to 4 (there with straight-through weights).
  Deviations from the paper: w is taken after the optimizer's step.
  """
  return movement


def wanda(weight: Float[Array, '*s'], input_norm: Float[Array, '...']) -> Float[Array, '*s']:
  """Weight times the norm of the input that it is multiplied with, |w| ||x||.

  Args:
    weight: a kernel.
    input_norm: root mean square of each input over the batch and positions, broadcastable to the weight.
  Returns:
    Scores, same shape.
  Source: Sun et al. 2024, arXiv:2306.11695, eq. 1.
  Deviations from the paper: ranked as the budget says; the paper ranks each output by itself (`post_training.wanda`).
  """
  return jnp.abs(weight) * input_norm


def optimal_brain_surgeon(weight: Float[Array, '*s'], inverse_hessian: Float[Array, '...']) -> Float[Array, '*s']:
  """The error of a layer's output when a weight is removed and the others of its row make up for it, w^2 / (2 H^-1).

  Args:
    weight: a kernel.
    inverse_hessian: diagonal of the inverse of the second moment of the layer's inputs, broadcastable to the weight.
  Returns:
    Scores, same shape. The weights that make up are `post_training.sparse_gpt`'s; here training does it.
  Source: Hassibi and Stork 1993, eq. 5, with the layer-wise Hessian of Dong et al. 2017, arXiv:1705.07565.
  """
  return jnp.square(weight) / (2 * inverse_hessian)
