"""Mock images for smoke tests and benchmarks: any shape, made from a seed, with classes that a network can learn."""
from __future__ import annotations

import numpy as np

from lightjax.data.order import TEMPLATE_STREAM, random_words
from lightjax.data.sources import DataError, Parts, Source

GRID = 4  # a class is a coarse pattern of at most 4 x 4 patches
NOISE = 64  # uniform in -64..63, added to patches of 64..191
TEST_STREAM = 2**40  # example i of train has the stream i of the generator, example i of test this one + i


def synthetic(
  *,
  seed: int,
  shape: tuple[int, int, int] = (28, 28, 1),
  classes: int = 10,
  examples: int = 1000,
  test_examples: int = 200,
) -> Parts:
  """Noisy copies of one coarse random pattern per class; example i has label i modulo `classes`.

  Args:
    seed: 0..2**64-1; each image is a pure function of (seed, part, index).
    shape: (h, w, c).
    classes: number of classes.
    examples: training examples, validation included.
    test_examples: test examples.
  """
  shape = (int(shape[0]), int(shape[1]), int(shape[2]))
  if min(*shape, classes, examples, test_examples) < 1:
    raise DataError(
      f'synthetic: shape {shape}, classes {classes}, examples {examples} and test_examples {test_examples} '
      f'must all be 1 or more.')
  reads = (_Draw(seed, shape, classes, size, stream) for size, stream in ((examples, 0), (test_examples, TEST_STREAM)))
  train, test = (
    Source(read, size=read.size, shape=shape, classes=classes, name=f'synthetic {part}', read_labels=read.all_labels)
    for part, read in zip(('train', 'test'), reads, strict=True))
  return Parts(train, test)


class _Draw:
  def __init__(self, seed: int, shape: tuple[int, int, int], classes: int, size: int, stream: int) -> None:
    height, width, channels = shape
    rows, columns = min(GRID, height), min(GRID, width)
    words = _random_bytes(seed, TEMPLATE_STREAM, classes * rows * columns * channels)
    self.patterns = (64 + words.reshape(classes, rows, columns, channels) // 2).astype(np.int16)
    self.rows, self.columns = np.arange(height) * rows // height, np.arange(width) * columns // width
    self.seed, self.shape, self.classes, self.size, self.stream = seed, shape, classes, size, stream

  def all_labels(self) -> np.ndarray:
    return np.arange(self.size) % self.classes

  def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = indices % self.classes
    count = int(np.prod(self.shape))
    noise = np.stack([_random_bytes(self.seed, self.stream + index, count) for index in indices.tolist()])
    noise = noise.reshape(-1, *self.shape) // 2 - np.int16(NOISE)
    clean = self.patterns[labels][:, self.rows[:, None], self.columns]
    return (clean + noise).astype(np.uint8), labels


def _random_bytes(seed: int, stream: int, count: int) -> np.ndarray:
  words = random_words(seed, stream, -(-count // 8))
  return words.astype('<u8').view(np.uint8)[:count].astype(np.int16)
