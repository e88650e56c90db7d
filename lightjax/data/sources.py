"""`Source`: labelled images with random access, wherever they lie; and the error that all sources raise."""
from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

Images = np.ndarray  # uint8 [n, h, w, c]
Labels = np.ndarray  # int32 [n]
Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class DataError(ValueError):
  """A data set that cannot be read as asked; the message names the place and the remedy."""


class Source:
  """Labelled images of one shape, read by index; after `arrays()` everything is served from memory.

  Args:
    read: indices int64 [n] -> (images uint8 [n, h, w, c], labels [n]); must pickle, for worker processes.
    size: number of examples.
    shape: (h, w, c) of every image.
    classes: labels lie in 0..classes-1.
    name: what error messages call this source.
    read_labels: () -> labels [size], where labels are cheaper to read than images.
  Example:
    >>> source = Source.from_arrays(np.zeros((3, 28, 28, 1), np.uint8), np.array([0, 1, 1]), classes=2, name='zeros')
    >>> len(source), source[2]['image'].shape, int(source[2]['label'])
    (3, (28, 28, 1), 1)
  """

  def __init__(
    self,
    read: Read,
    *,
    size: int,
    shape: tuple[int, int, int],
    classes: int,
    name: str,
    read_labels: Callable[[], np.ndarray] | None = None,
  ) -> None:
    self._read, self._read_labels, self._size = read, read_labels, size
    self._memory: tuple[Images, Labels] | None = None
    self.shape, self.classes, self.name = shape, classes, name

  @classmethod
  def from_arrays(cls, images: Images, labels: np.ndarray, *, classes: int, name: str) -> Source:
    """A source over arrays: images uint8 [n, h, w, c], labels [n]."""
    height, width, channels = images.shape[1:]
    source = cls(_Gather(images, labels), size=len(images), shape=(height, width, channels), classes=classes, name=name)
    source._memory = source._checked(images, labels)
    return source

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, index: Any) -> dict[str, Any]:
    position = operator.index(index)
    if not -self._size <= position < self._size:
      raise IndexError(f'{self.name}: index {position} is outside the {self._size} examples.')
    images, labels = self.take(np.array([position % self._size]))
    return {'image': images[0], 'label': labels[0]}

  def __iter__(self) -> Iterator[dict[str, Any]]:
    return (self[index] for index in range(self._size))

  @property
  def size_bytes(self) -> int:
    """Bytes of all images in memory, whether or not they are there now."""
    return self._size * int(np.prod(self.shape))

  def take(self, indices: np.ndarray) -> tuple[Images, Labels]:
    """The examples at `indices` (int [n], 0..len-1): images uint8 [n, h, w, c] and labels int32 [n]."""
    if self._memory is not None:
      images, labels = self._memory
      return images[indices], labels[indices]
    return self._checked(*self._read(np.asarray(indices)))

  def arrays(self) -> tuple[Images, Labels]:
    """All examples in memory: images uint8 [n, h, w, c] and labels int32 [n]; read once, then kept."""
    if self._memory is None:
      self._memory = self.take(np.arange(self._size))
    return self._memory

  def labels(self) -> Labels:
    """All labels, int32 [n], without decoding images where the storage allows it."""
    if self._memory is None and self._read_labels is not None:
      return self._checked_labels(self._read_labels())
    return self.arrays()[1]

  def subset(self, indices: np.ndarray, *, name: str) -> Source:
    """The examples at `indices`, in that order, as a source of their own."""
    if self._memory is not None:
      return Source.from_arrays(*self.take(indices), classes=self.classes, name=name)
    part = _Part(self, indices)
    return Source(
      part, size=len(indices), shape=self.shape, classes=self.classes, name=name, read_labels=part.labels)

  def _checked(self, images: np.ndarray, labels: np.ndarray) -> tuple[Images, Labels]:
    if images.dtype != np.uint8 or images.shape[1:] != self.shape:
      raise DataError(
        f'{self.name}: images are {images.dtype} of shape {images.shape[1:]}, expected uint8 of shape {self.shape}; '
        f'convert them to one shape and to 0..255.')
    return images, self._checked_labels(labels)

  def _checked_labels(self, labels: np.ndarray) -> Labels:
    if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
      wrong = labels[(labels < 0) | (labels >= self.classes)][0]
      raise DataError(
        f'{self.name}: label {wrong} is outside 0..{self.classes - 1}; renumber the labels, '
        f'or correct the number of classes.')
    return labels.astype(np.int32)


class Parts(NamedTuple):
  """What a reader returns: the two published parts of a set, before a validation split is taken."""
  train: Source
  test: Source


class _Gather:
  def __init__(self, images: Images, labels: np.ndarray) -> None:
    self.images, self.whole = images, labels

  def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return self.images[indices], self.whole[indices]


class _Part:
  def __init__(self, source: Source, indices: np.ndarray) -> None:
    self.source, self.indices = source, indices

  def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return self.source.take(self.indices[indices])

  def labels(self) -> np.ndarray:
    return self.source.labels()[self.indices]
