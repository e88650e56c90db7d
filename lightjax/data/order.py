"""Which examples a training step sees: a pure function of (seed, epoch, index), independent of what ran before.

The order of an epoch is the stable sort of words of the counter-based Philox generator, keyed by (seed, epoch). Raw
Philox words are fixed for ever, whereas NumPy may change how `permutation` uses them.
"""
from __future__ import annotations

import functools
import operator
from collections.abc import Iterator

import numpy as np

from lightjax.data.sources import Source

# Streams beyond any epoch number, so that a seed may serve the order, the validation split and synthetic images alike.
VALIDATION_STREAM = 2**64 - 1
TEMPLATE_STREAM = 2**64 - 2


def random_words(seed: int, stream: int, count: int) -> np.ndarray:
  """`count` uint64 words of Philox keyed by (seed, stream), both 0..2**64-1."""
  if not 0 <= seed < 2**64:
    raise ValueError(f'seed {seed} is outside 0..2**64-1; pass a non-negative integer.')
  return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(count)


# Each entry is one permutation: a run needs the current epoch's, and the next one's where batches are read ahead.
@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
  """The permutation of 0..size-1 that epoch `epoch` follows.

  Args:
    seed: of the order, 0..2**64-1.
    epoch: counted from 0.
    size: number of training examples.
  Returns:
    Read-only int64 [size].
  Example:
    >>> sorted(epoch_order(0, 3, 5).tolist())
    [0, 1, 2, 3, 4]
  """
  order = np.argsort(random_words(seed, epoch, size), kind='stable')
  order.setflags(write=False)
  return order


def steps_per_epoch(size: int, batch_size: int) -> int:
  """Full batches in an epoch; the incomplete last one is dropped.

  Raises:
    ValueError: no full batch fits.
  """
  if not 1 <= batch_size <= size:
    raise ValueError(f'batch_size {batch_size} is outside 1..{size}, the number of training examples.')
  return size // batch_size


def batch_indices(step: int, *, seed: int, size: int, batch_size: int) -> np.ndarray:
  """The training examples of step `step`, counted from 0 over all epochs.

  Args:
    step: 0, 1, ...; step s lies in epoch s // steps_per_epoch(size, batch_size).
    seed: of the order, 0..2**64-1.
    size: number of training examples.
    batch_size: examples per step; the incomplete last batch of an epoch is dropped.
  Returns:
    int32 [batch_size]; no index occurs twice within an epoch.
  Raises:
    ValueError: a negative step, or no full batch fits.
  """
  step = operator.index(step)
  if step < 0:
    raise ValueError(f'step {step} is negative; steps are counted from 0.')
  epoch, position = divmod(step, steps_per_epoch(size, batch_size))
  return epoch_order(seed, epoch, size)[position * batch_size:(position + 1) * batch_size].astype(np.int32)


def evaluation_batches(source: Source | int, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
  """Every example once, in order, in batches of one size; the last one is padded.

  Args:
    source: a source, or only its number of examples.
    batch_size: examples per batch.
  Yields:
    `index` int32 [b] and `mask` bool [b], and for a source `image` uint8 [b, h, w, c] and `label` int32 [b]. Where
    `mask` is False the example repeats the first one and belongs in no metric.
  Raises:
    ValueError: batch_size below 1.
  Example:
    >>> [(batch['index'].tolist(), batch['mask'].tolist()) for batch in evaluation_batches(3, 2)]
    [([0, 1], [True, True]), ([2, 0], [True, False])]
  """
  if batch_size < 1:
    raise ValueError(f'batch_size {batch_size} is below 1.')
  return _evaluation_batches(source, batch_size)


def _evaluation_batches(source: Source | int, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
  size = len(source) if isinstance(source, Source) else source
  for start in range(0, size, batch_size):
    positions = np.arange(start, start + batch_size, dtype=np.int32)
    mask = positions < size
    batch = {'index': np.where(mask, positions, np.int32(0)), 'mask': mask}
    if isinstance(source, Source):
      batch['image'], batch['label'] = source.take(batch['index'])
    yield batch
