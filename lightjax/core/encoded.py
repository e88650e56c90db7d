"""What a chain of transforms stores: the part of a parameter or an activation range that is not a float array."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lightjax.core.typing import Array, Path


class Integers(NamedTuple):
  """A parameter on a grid: value = (codes - zero point) * scale, exactly as the simulation computes it in float32.

  Attributes:
    codes: the parameter's shape; int8, or an 8-bit float dtype (float8_e4m3fn, float8_e5m2).
    scale: float32; broadcastable to `codes`, or one for each block of codes (see `spread`).
    bits: bits per code, 2..8; 8 for floats; 1 where each code is 1 or -1.
    zero_point: float32, of the scale's shape or a number: the code that stands for zero, half a code where none does;
      None: 0.
  """
  codes: Array
  scale: Array
  bits: int
  zero_point: Array | None = None

  def decode(self) -> Any:
    """The float32 values, of NumPy if codes and scale are."""
    codes = self.codes.astype('float32')
    if self.zero_point is not None:
      codes = codes - spread(self.zero_point, codes.shape)
    return codes * spread(self.scale, codes.shape)


def spread(scale: Array | np.ndarray | np.generic, shape: tuple[int, ...]) -> Any:
  """What each entry of a parameter is scaled by, where an entry of the scale may stand for a block.

  Args:
    scale: of any shape that broadcasts to `shape`; or of its rank, the size of each axis dividing that of the shape;
      of JAX or NumPy.
    shape: of the parameter.
  Returns:
    The scale, with what stands for a block repeated, so that it broadcasts to `shape`.
  Raises:
    ValueError: the sizes do not divide.
  Example:
    >>> spread(np.array([1, 2]), (4,))
    array([1, 1, 2, 2])
  """
  if scale.ndim < len(shape):
    return scale
  for axis, (each, size) in enumerate(zip(scale.shape, shape, strict=True)):
    if each not in (1, size):
      if not each or size % each:
        raise ValueError(f'a scale of shape {scale.shape} does not divide a parameter of shape {shape} into blocks.')
      scale = scale.repeat(size // each, axis)
  return scale


class Encoded(NamedTuple):
  """How a compressed network is stored; whatever is not named here is stored as the final view's floats.

  Attributes:
    parameters: path to its integers.
    activations: module path to the frozen quantizers of its inputs, as plain data (see `quantize.activations`).
  """
  parameters: Mapping[Path, Integers]
  activations: Mapping[str, Any]


NOTHING = Encoded({}, {})


def merge(parts: Iterable[Encoded]) -> Encoded:
  """All parts of a chain as one.

  Raises:
    ValueError: two stages store the same parameter or the same input; the message names it.
  """
  merged: tuple[dict[str, Any], dict[str, Any]] = {}, {}
  for part in parts:
    for whole, new in zip(merged, part, strict=True):
      for path in new:
        if path in whole:
          raise ValueError(f'{path!r} is stored by two stages of the chain; leave it to one of them by a rule.')
      whole.update(new)
  return Encoded(*merged)
