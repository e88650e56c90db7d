"""The end of most networks: global average, dropout, one dense layer."""
from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

# The default of `flax.linen.Dense`.
lecun_normal = nn.initializers.lecun_normal()


def classify(
    x: Float[Array, 'b h w c'],
    classes: int,
    *,
    dropout: float = 0.0,
    train: bool = False,
    kernel_init: nn.initializers.Initializer = lecun_normal,
    name: str = 'classifier',
) -> Float[Array, 'b classes']:
  """Global average, dropout and a dense layer, in float32; to be called in the compact method of a network.

  Args:
    x: features of the last layer.
    classes: number of logits.
    dropout: rate before the dense layer; needs the rng 'dropout' in training.
    train: whether dropout acts.
    kernel_init: of the dense layer.
    name: of the dense layer.
  Returns:
    Logits.
  """
  features = x.mean((1, 2), dtype=jnp.float32)
  if dropout:
    features = nn.Dropout(dropout, deterministic=not train)(features)
  return nn.Dense(classes, kernel_init=kernel_init, dtype=jnp.float32, name=name)(features)
