"""What a run minimizes, by name: losses of outputs and labels, one number an example, in float32."""
from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from lightjax.core.typing import Array

__all__ = ['cross_entropy', 'squared_hinge']


def cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
  """Softmax cross-entropy, the labels smoothed by Szegedy et al. 2016, arXiv:1512.00567, section 7.

  Args:
    logits: [b c].
    labels: [b], integers.
    smoothing: mass taken from the true class, 0..1.
  Returns:
    float32 [b].
  """
  targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
  return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def squared_hinge(logits: Array, labels: Array, smoothing: float) -> Array:
  """L2-SVM, one against the rest: the mean over the classes of max(0, 1 - t z)^2, t = 1 for the label and -1 otherwise.

  Args:
    logits: [b c], margins.
    labels: [b], integers.
    smoothing: 0; a margin has no mass to take.
  Returns:
    float32 [b].
  Raises:
    ValueError: smoothed labels.
  Source: Tang 2013, arXiv:1306.0239, without its weight penalty; the mean over classes is BinaryConnect's code.
  """
  if smoothing:
    raise ValueError(f'squared_hinge: label_smoothing={smoothing} is for cross_entropy; set it to 0.')
  targets = 2 * jax.nn.one_hot(labels, logits.shape[-1]) - 1
  return jnp.square(jnp.maximum(1 - targets * logits.astype(jnp.float32), 0)).mean(-1)
