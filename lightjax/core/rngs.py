"""Named random streams: every use of randomness has a name, and no two uses share a key.

A stream is a pure function of (seed, name, step): a resumed run draws what the uninterrupted one would have drawn.
"""
from __future__ import annotations

import zlib

import jax

from lightjax.core.typing import Array


def root(seed: int) -> Array:
  """The run's root key. Counter-based threefry: the same bits on every backend."""
  return jax.random.key(seed, impl='threefry2x32')


def fold(key: Array, *names: str | int | Array) -> Array:
  """A key of its own for each name or number: `fold(key, 'augment', step)`, `fold(key, 'fc1/kernel')`.

  Args:
    key: a typed PRNG key.
    *names: text (folded in by its CRC-32) or integers (step, index), in order.
  Returns:
    The derived key.
  """
  for name in names:
    key = jax.random.fold_in(key, zlib.crc32(name.encode()) if isinstance(name, str) else name)
  return key
