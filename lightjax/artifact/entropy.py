"""Adaptive range coding of a row of symbols: encoder and decoder count alike, so that no table is stored.

Symbols are coded in short blocks, each with the frequencies of what came before it. Counts are halved whenever they
exceed a window, so that what is long past is forgotten: in a kernel, inputs that few weights read lie together. In a
large alphabet, symbols next to each other are taken to be about as frequent (an alphabet is in the order of its
values), which shortens what a few thousand symbols take to tell 256 frequencies.
"""
from __future__ import annotations

from collections.abc import Iterator

import constriction
import numpy as np

from lightjax.artifact.container import ArtifactError

# Log2 of the windows that there are; the last forgets nothing.
WINDOWS = (9, 12, 40)
# Symbols in the first block and in the largest; between, a block has 1/32 of what was seen, with the first window 1/8.
FIRST_BLOCK, LARGEST_BLOCK = 8, 2**16
# Below so many symbols in the alphabet neighbours say nothing; above, the mean of so many at most is taken.
SMALLEST_SMOOTHED, MOST_NEIGHBOURS = 16, 9


def encode(symbols: np.ndarray, prior: np.ndarray, *, windows: tuple[int, ...] = WINDOWS[-1:]) -> bytes:
  """The shortest coding over some windows.

  Args:
    symbols: integers in 0..k-1, shape [n].
    prior: what the counts begin with, positive float64, shape [k], k >= 2.
    windows: that are tried, of `WINDOWS`.
  Returns:
    One byte for the window, then 32-bit words of the range coder; nothing for no symbols.
  """
  if not symbols.size:
    return b''
  return min((_encode(symbols, prior, window) for window in windows), key=len)


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
  if _encode(symbols, prior, data[0]) != data:  # what is left over, or stands for the same symbols
    raise ArtifactError('the coded symbols are followed by others.')
  return symbols


def _encode(symbols: np.ndarray, prior: np.ndarray, window: int) -> bytes:
  coder = constriction.stream.queue.RangeEncoder()
  counts = _Counts(prior, window)
  for start, stop in counts.blocks(symbols.size):
    block = symbols[start:stop].astype(np.int32)
    coder.encode(block, counts.model())
    counts.add(block)
  return bytes([window]) + coder.get_compressed().astype('<u4').tobytes()


class _Counts:
  """How often each symbol was seen lately, and where the blocks end.

  A reader on another machine must get the same floats: sums are of integers, or of halves of two of them, and exact in
  any order; what is rounded is one operation on an element.
  """

  def __init__(self, prior: np.ndarray, window: int):
    self._prior = prior
    self._seen = np.zeros(prior.size)
    self._window = 2.0**window
    self._share = 1 / min(2 ** (window - 6), 32)
    self._width = min(prior.size // 16 | 1, MOST_NEIGHBOURS) if prior.size >= SMALLEST_SMOOTHED else 0

  def blocks(self, size: int) -> Iterator[tuple[int, int]]:
    """Ranges that grow with what was seen."""
    start = 0
    while start < size:
      length = int(min(max(self._seen.sum() * self._share, FIRST_BLOCK), LARGEST_BLOCK))
      yield start, min(start + length, size)
      start += length

  def model(self) -> constriction.stream.model.Categorical:
    """The distribution of the next block."""
    prior = self._prior
    if self._width:
      around = np.convolve(self._seen, np.ones(self._width), 'same') + 0.5
      prior = around * (self._width / 4 * prior.size / around.sum())
    return constriction.stream.model.Categorical(self._seen + prior, perfect=False)

  def add(self, block: np.ndarray) -> None:
    """Count a block."""
    self._seen += np.bincount(block, minlength=self._seen.size)
    while self._seen.sum() > self._window:
      self._seen /= 2  # exact: a power of two
