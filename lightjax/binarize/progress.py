"""Part of the training that is over, for binarizers and estimators that change with it."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from lightjax.core.typing import Array


class Progress(NamedTuple):
  """Steps of the whole training, None where nothing asks for the progress: then it stays 0."""
  steps: int | None

  @classmethod
  def asked_by(cls, function: Callable[..., Any], steps: int | None, name: str) -> Progress:
    """The progress that a function asks for by a parameter of that name.

    Args:
      function: a binarizer or an estimator.
      steps: of the training, if known.
      name: of the transform, for messages.
    Returns:
      The progress.
    Raises:
      ValueError: it asks, and the steps are not known.
    """
    if 'progress' not in inspect.signature(function).parameters:
      return cls(None)
    if steps is None or steps < 1:
      raise ValueError(f'{name} asks for the progress of the training, and steps={steps}; say how many steps it has.')
    return cls(steps)

  def at(self, step: Array | int) -> Array:
    """After so many steps, float32 0..1."""
    return jnp.minimum(jnp.asarray(step, jnp.float32) / (self.steps or 1), 1) * (self.steps is not None)
