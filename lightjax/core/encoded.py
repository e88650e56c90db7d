"""What a chain of transforms stores: the part of a parameter or an activation range that is not a float array."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lightjax.core.typing import Array, Path


class Integers(NamedTuple):
  """A parameter on a uniform grid: value = codes * scale, exactly as the simulation computes it in float32.

  Attributes:
    codes: int8, the parameter's shape.
    scale: float32, broadcastable to `codes`.
    bits: bits per code, 2..8; 1 where each code is 1 or -1.
  """
  codes: Array
  scale: Array
  bits: int

  def decode(self) -> Array:
    """The float32 values."""
    return self.codes.astype('float32') * self.scale


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
