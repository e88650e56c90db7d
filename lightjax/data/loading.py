"""`load`: one way to every data set, with a validation split and the figures that normalization needs."""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightjax.data import files
from lightjax.data.order import VALIDATION_STREAM, random_words
from lightjax.data.sources import DataError, Parts, Source
from lightjax.data.synthetic import synthetic
from lightjax.data.tfds_sets import tfds

OWN_NAMES = (*files.__all__, 'synthetic')
# Mean and standard deviation per channel of the whole training part, in 0..1: the figures that published recipes state.
STATISTICS = {
  'cifar10': ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
  'cifar100': ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
  'fashion_mnist': ((0.2860,), (0.3530,)),
  'imagenet2012': ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'mnist': ((0.1307,), (0.3081,)),
}
RESERVED = ('dir', 'own_names', 'seed')  # what `load` itself hands to readers: no options
IN_MEMORY_BYTES = 2**28  # training parts up to this size (CIFAR has 150 MB) are decoded once, at `load`
STATISTICS_EXAMPLES = 2000  # of a larger part, its mean and deviation are taken from this many, evenly spaced


class Sizes(NamedTuple):
  """Numbers of examples."""
  train: int
  validation: int
  test: int


class Info(NamedTuple):
  """What a network and its table need to know of a data set.

  Attributes:
    name: as given to `load`.
    classes: labels lie in 0..classes-1.
    shape: (h, w, c) of every image.
    mean: per channel, 0..1, of the published training part, validation included: it does not depend on the split.
    std: likewise; 1 for a channel without variation.
    sizes: examples in train, validation and test.
  """
  name: str
  classes: int
  shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  sizes: Sizes


class Splits(NamedTuple):
  """The three splits of a data set, and its figures."""
  train: Source
  validation: Source
  test: Source
  info: Info


def load(
  name: str, *, dir: str | Path | None = None, validation: float = 0.1, seed: int = 0, **options: Any,
) -> Splits:
  """A data set by name, with a class-balanced validation split taken from its training part; test stays as published.

  | name | dir | options |
  |---|---|---|
  | fashion_mnist_mini | - (comes with the package) | |
  | idx | folder of MNIST-style idx or idx.gz files | classes |
  | npz | file (or folder with one) of x_train, y_train, x_test, y_test | classes |
  | folder | folder of train/CLASS/*.png, test/CLASS/* | size |
  | synthetic | - | shape, classes, examples, test_examples |
  | mnist, fashion_mnist | folder of their idx files, or as below | |
  | any TFDS name | TFDS data_dir, gs:// included (default: TFDS's own) | size |

  Args:
    name: see the table.
    dir: see the table.
    validation: share of each class that is taken from train, a ratio 0..1 (below 1); 0 gives an empty one.
    seed: of the split, and of synthetic images; 0..2**64-1.
    **options: see the table and the reader of that name.
  Returns:
    train, validation, test and info. Training parts up to 256 MiB are in memory, larger ones are read when asked.
  Raises:
    DataError: an unknown name or option, or data that is missing, damaged or inconsistent.
  Example:
    >>> splits = load('synthetic', shape=(8, 8, 3), classes=2, examples=100, validation=0.2)
    >>> splits.info.sizes
    Sizes(train=80, validation=20, test=200)
  """
  if not 0 <= validation < 1:
    raise DataError(f'load: validation {validation} is outside 0..1; it is the share of train to hold out, below 1.')
  whole, test = _read(name, dir, seed, options)
  if whole.size_bytes <= IN_MEMORY_BYTES:
    whole.arrays()
  mean, std = STATISTICS.get(name) or channel_statistics(whole)
  if len(mean) != whole.shape[-1]:
    raise DataError(
      f'{name}: these images have {whole.shape[-1]} channels, those of {name} {len(mean)}; load them by their format.')
  held_out = np.zeros(len(whole), bool)
  if validation:
    held_out = validation_mask(whole.labels(), ratio=validation, seed=seed)
  train = whole.subset(np.flatnonzero(~held_out), name=f'{name} train') if held_out.any() else whole
  validation_source = whole.subset(np.flatnonzero(held_out), name=f'{name} validation')
  sizes = Sizes(len(train), len(validation_source), len(test))
  return Splits(train, validation_source, test, Info(name, whole.classes, whole.shape, mean, std, sizes))


def validation_mask(labels: np.ndarray, *, ratio: float, seed: int) -> np.ndarray:
  """Which training examples go into validation: of each class the same share, drawn by (seed, class, position).

  Args:
    labels: [n].
    ratio: share of each class, 0..1, rounded to whole examples.
    seed: 0..2**64-1.
  Returns:
    bool [n].
  """
  words = random_words(seed, VALIDATION_STREAM, len(labels))
  mask = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    drawn = np.argsort(words[members], kind='stable')
    mask[members[drawn[:round(ratio * len(members))]]] = True
  return mask


def channel_statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation per channel in 0..1, from exact counts of the 256 byte values.

  Args:
    source: all of it if it is in memory or small, otherwise 2,000 evenly spaced examples.
  """
  size = len(source)
  if source.size_bytes > IN_MEMORY_BYTES:
    size = min(size, STATISTICS_EXAMPLES)
  indices = np.linspace(0, len(source) - 1, size).round().astype(np.int64)
  channels = source.shape[-1]
  counts = np.zeros((channels, 256), np.int64)
  for start in range(0, size, 1000):
    images, _ = source.take(indices[start:start + 1000])
    for channel in range(channels):
      counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
  values = np.arange(256) / 255
  share = counts / counts.sum(axis=1, keepdims=True)
  mean = share @ values
  deviation = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
  return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def _read(name: str, place: str | Path | None, seed: int, options: dict[str, Any]) -> Parts:
  if '://' in str(place):  # a bucket, which only TFDS reads
    return _call(functools.partial(tfds, name, str(place), own_names=OWN_NAMES), options, name)
  dir = None if place is None else Path(place).expanduser()
  if dir is not None and not dir.exists():
    raise DataError(f'{name}: {dir} does not exist; correct dir, or create it if a TFDS set is to be prepared there.')
  if name == 'synthetic':
    return _call(synthetic, options, name, seed=seed)
  if name in files.__all__:
    if dir is None:
      raise DataError(f'{name}: reads your own files; pass dir=, the place where they lie.')
    return _call(getattr(files, name), options, name, dir=dir)
  if name in files.IDX_SETS and dir is not None and dir.is_dir() and files.has_idx(dir):
    return _call(files.idx, options, name, dir=dir)
  return _call(functools.partial(tfds, name, None if dir is None else str(dir), own_names=OWN_NAMES), options, name)


def _call(reader: Callable[..., Parts], options: dict[str, Any], name: str, **given: Any) -> Parts:
  taken = [parameter for parameter in inspect.signature(reader).parameters if parameter not in RESERVED]
  unknown = [option for option in options if option not in taken]
  if unknown:
    raise DataError(f'{name}: unknown option {unknown[0]!r}; it takes {", ".join(taken) or "none"}.')
  return reader(**given, **options)
