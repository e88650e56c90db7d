"""Adaptive range coding of a row of symbols: encoder and decoder count alike, so that no table is stored.

Symbols are coded in blocks, each with the frequencies of what came before it. Counts are halved whenever they exceed a
window, so that what is long past is forgotten: in a kernel, inputs that few weights read lie together.
"""
from __future__ import annotations

from collections.abc import Iterator

import constriction
import numpy as np

from lightjax.artifact.container import ArtifactError

# Log2 of the windows that `encode` tries; the last forgets nothing.
WINDOWS = (10, 12, 40)
FIRST_BLOCK, LARGEST_BLOCK = 32, 2**16


def encode(symbols: np.ndarray, prior: np.ndarray) -> bytes:
  """The shortest coding over all windows.

  Args:
    symbols: integers in 0..k-1, shape [n].
    prior: what the counts begin with, positive float64, shape [k], k >= 2.
  Returns:
    One byte for the window, then 32-bit words of the range coder; nothing for no symbols.
  """
  symbols = np.ascontiguousarray(symbols, np.int32)
  if not symbols.size:
    return b''
  return min((_encode(symbols, prior, window) for window in WINDOWS), key=len)


def decode(data: bytes, count: int, prior: np.ndarray) -> np.ndarray:
  """The symbols that were encoded.

  Args:
    data: as `encode` returns it; nothing of it is trusted.
    count: number of symbols, already checked to fit memory.
    prior: as it was encoded with.
  Returns:
    Symbols, shape [count], of the narrowest unsigned type.
  Raises:
    ArtifactError: the bytes are not exactly what `encode` gives for some symbols.
  """
  narrow = np.uint8 if prior.size <= 256 else np.uint16
  symbols = np.zeros(count, narrow)
  if not count:
    if data:
      raise ArtifactError('bytes are coded where no symbol is due.')
    return symbols
  if len(data) % 4 != 1 or data[0] not in WINDOWS:
    raise ArtifactError('the coded symbols are no whole number of words, or have no window.')
  coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, '<u4', offset=1).astype(np.uint32))
  counts = _Counts(prior, data[0])
  try:
    for start, stop in counts.blocks(count):
      block = coder.decode(counts.model(), stop - start)
      symbols[start:stop] = block
      counts.add(block)
  except (AssertionError, ValueError) as error:
    raise ArtifactError(f'the coded symbols are damaged ({error}).') from None
  if _encode(symbols.astype(np.int32), prior, data[0]) != data:  # what is left over, or stands for the same symbols
    raise ArtifactError('the coded symbols are followed by others.')
  return symbols


def _encode(symbols: np.ndarray, prior: np.ndarray, window: int) -> bytes:
  coder = constriction.stream.queue.RangeEncoder()
  counts = _Counts(prior, window)
  for start, stop in counts.blocks(symbols.size):
    coder.encode(symbols[start:stop], counts.model())
    counts.add(symbols[start:stop])
  return bytes([window]) + coder.get_compressed().astype('<u4').tobytes()


class _Counts:
  """How often each symbol was seen lately, and where the blocks end."""

  def __init__(self, prior: np.ndarray, window: int):
    self._counts = prior.astype(np.float64)
    self._window = 2.0**window

  def blocks(self, size: int) -> Iterator[tuple[int, int]]:
    """Ranges that grow with what was seen, for counts that are an eighth out of date cost little."""
    start = 0
    while start < size:
      length = int(min(max(self._counts.sum() / 8, FIRST_BLOCK), LARGEST_BLOCK))
      yield start, min(start + length, size)
      start += length

  def model(self) -> constriction.stream.model.Categorical:
    """The distribution of the next block."""
    return constriction.stream.model.Categorical(self._counts / self._counts.sum(), perfect=False)

  def add(self, block: np.ndarray) -> None:
    """Count a block."""
    self._counts += np.bincount(block, minlength=self._counts.size)
    while self._counts.sum() > self._window:
      self._counts /= 2  # exact, but for what gets too small to matter
