"""What the gradient of a feature map that many layers read costs on CPU.

A dense block's feature map is read by all later layers, and its gradient is a sum with one term for each. XLA's CPU
backend joins that sum with everything that reads it and computes it again in every place: work and code grow with the
square of the layers. With the sum computed once, 32 layers of 12 channels compiled in 17 s for 40 s, and a training
step of DenseNet-BC-100 fell from 2.83 to 1.47 times that of PyTorch (batch 64, 2 cores).
"""
from __future__ import annotations

from typing import Any

import jax
from jax.experimental import xla_metadata
from jaxtyping import Array

from lightjax.core import modes


def summed_once(x: Array) -> Array:
  """The identity, at which the gradient that has come together is computed and stored before anything reads it.

  Elsewhere than on CPU in 'fast' mode it is nothing at all. Gradients of gradients work, first-order forward mode does
  not.

  Args:
    x: any array.
  Returns:
    x.
  """
  return _summed_once(x) if modes.takes_own_forms() else x


@jax.custom_vjp
def _summed_once(x: Array) -> Array:
  return x


def _forward(x: Array) -> tuple[Array, None]:
  return x, None


def _backward(saved: None, gradient: Array) -> tuple[Any]:
  # A call that is not inlined is the one border that fusion on CPU respects: it removes `lax.optimization_barrier`
  # before it fuses.
  with xla_metadata.set_xla_metadata(inlineable='false'):
    return (_identity(gradient),)


_summed_once.defvjp(_forward, _backward)


@jax.jit
def _identity(gradient: Array) -> Array:
  return gradient
