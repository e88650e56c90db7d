"""Readers of a user's own files. `__all__` is the registry: `load('idx', dir=...)` calls `idx(dir)`."""
from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lightjax.data.sources import DataError, Parts, Source

__all__ = ('folder', 'idx', 'npz')

# Full sets whose original files have the idx layout; with a folder of such files they need no TFDS.
IDX_SETS = ('fashion_mnist', 'mnist')
IDX_UNSIGNED_BYTE = 8
IMAGE_SUFFIXES = frozenset(('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.ppm', '.pgm', '.tif', '.tiff', '.webp'))


def idx(dir: Path, *, classes: int | None = None) -> Parts:
  """MNIST-style idx or idx.gz files: {train,t10k}-{images,labels}-idx{3,1}-ubyte.

  Args:
    dir: the folder; `test-` may stand for `t10k-`, and images may have a fourth axis, channels.
    classes: number of classes; without it the highest training label + 1.
  Raises:
    DataError: a file is missing, damaged, empty or does not match its labels.
  """
  parts = []
  for prefixes in (('train',), ('t10k', 'test')):
    images_path, labels_path = (_find_idx(dir, prefixes, kind) for kind in ('images', 'labels'))
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim not in (3, 4):
      raise DataError(f'{images_path}: has {images.ndim} axes; images need [n, h, w] or [n, h, w, c].')
    parts.append((images_path, images, labels_path, labels))
  return _parts([(str(path), images, labels) for path, images, _, labels in parts], classes)


def has_idx(dir: Path) -> bool:
  """Whether the folder holds idx files, so that `mnist` and `fashion_mnist` may be read from there."""
  return any(dir.glob('train-images*idx*'))


def read_idx(path: Path) -> np.ndarray:
  """The array of one idx or idx.gz file of unsigned bytes.

  Raises:
    DataError: not an idx file, truncated, or longer than its header says.
  """
  try:
    content = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f'{path}: cannot be read ({error}); fetch the file again.') from error
  if len(content) < 4 or content[:3] != bytes((0, 0, IDX_UNSIGNED_BYTE)):
    found = f'begins {content[:4].hex()}' if content else 'is empty'
    raise DataError(f'{path}: is no idx file of unsigned bytes (it {found}); fetch it again.')
  header = 4 + 4 * content[3]
  shape = tuple(np.frombuffer(content[4:header].ljust(header - 4, b'\0'), '>u4').tolist())
  if len(content) != header + math.prod(shape):
    expected = header + math.prod(shape)
    raise DataError(
      f'{path}: has {len(content)} bytes where its header {list(shape)} means {expected}; fetch it again.')
  return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def npz(dir: Path, *, classes: int | None = None) -> Parts:
  """An .npz file with x_train, y_train, x_test, y_test: images uint8 [n, h, w] or [n, h, w, c], labels [n] or [n, 1].

  Args:
    dir: the file, or a folder with one .npz file.
    classes: number of classes; without it the highest training label + 1.
  Raises:
    DataError: the file is missing, damaged or lacks an array, or an array is empty or of the wrong type.
  """
  path = dir
  if dir.is_dir():
    found = sorted(dir.glob('*.npz'))
    if len(found) != 1:
      raise DataError(f'{dir}: holds {len(found)} .npz files, expected one; pass the file itself as dir.')
    path = found[0]
  names = ('x_train', 'y_train', 'x_test', 'y_test')
  try:
    with path.open('rb') as file, np.load(file, allow_pickle=False) as archive:
      missing = [name for name in names if name not in archive]
      if missing:
        raise DataError(f'{path}: lacks {", ".join(missing)}; it holds {", ".join(archive.files) or "nothing"}.')
      arrays = {name: archive[name] for name in names}
  except DataError:
    raise
  except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
    raise DataError(f'{path}: cannot be read as an .npz archive ({error}); save it again with numpy.savez.') from error
  for name, array in arrays.items():
    if name.startswith('x') and (array.dtype != np.uint8 or array.ndim not in (3, 4)):
      raise DataError(
        f'{path}: {name} is {array.dtype} {list(array.shape)}; save images as uint8 0..255, [n, h, w] or [n, h, w, c].')
    if name.startswith('y') and not np.issubdtype(array.dtype, np.integer):
      raise DataError(f'{path}: {name} is {array.dtype}; save class numbers as integers.')
  return _parts([(f'{path} {part}', arrays[f'x_{part}'], arrays[f'y_{part}']) for part in ('train', 'test')], classes)


def folder(dir: Path, *, size: int | None = None) -> Parts:
  """An image folder, train/CLASS/*.png and test/CLASS/*; classes are numbered by their sorted names.

  Images are decoded when they are read. They are grey (one channel) if the first one is, otherwise RGB.

  Args:
    dir: the folder.
    size: resize every image so that its short side is this long (bicubic), and cut the central square.
  Raises:
    DataError: a part or class is missing or empty, or an image is damaged, of another size or coloured among grey.
  """
  train_files = _class_files(dir / 'train')
  test_files = _class_files(dir / 'test')
  unknown = sorted(set(test_files) - set(train_files))
  if unknown:
    raise DataError(f'{dir / "test" / unknown[0]}: is a class that {dir / "train"} does not have; rename or remove it.')
  numbers = {name: number for number, name in enumerate(train_files)}
  first = next(iter(train_files.values()))[0]
  _, grey = _measure(first)
  parts = []
  for part, files in (('train', train_files), ('test', test_files)):
    paths = [path for found in files.values() for path in found]
    labels = np.repeat([numbers[name] for name in files], [len(found) for found in files.values()])
    width, height = (size, size) if size else _measure(first)[0]
    read = _ReadImages(paths, labels, size=size, grey=grey)
    for path in paths:
      read.check(path, (width, height))
    parts.append(Source(
      read, size=len(paths), shape=(height, width, 1 if grey else 3), classes=len(numbers), name=str(dir / part),
      read_labels=read.all_labels))
  return Parts(*parts)


def fit(image: Any, size: int) -> Any:
  """A PIL image resized (bicubic) so that its short side is `size`, then cut to its central square."""
  from PIL import Image

  scale = size / min(image.size)
  width, height = (max(size, round(side * scale)) for side in image.size)
  left, top = (width - size) // 2, (height - size) // 2
  return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


class _ReadImages:
  """Decodes image files by index."""

  def __init__(self, paths: list[Path], labels: np.ndarray, *, size: int | None, grey: bool) -> None:
    self.paths, self.labels, self.size, self.grey = paths, labels, size, grey

  def check(self, path: Path, expected: tuple[int, int]) -> None:
    """Reads the header alone and refuses what could not be stacked with the others."""
    found, grey = _measure(path)
    if self.grey and not grey:
      raise DataError(f'{path}: is in colour, the first image is grey; convert all images to one of the two.')
    if self.size is None and found != expected:
      raise DataError(
        f'{path}: is {found[0]}x{found[1]} pixels, the first image {expected[0]}x{expected[1]}; '
        f'pass size= to resize all.')

  def all_labels(self) -> np.ndarray:
    return self.labels

  def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([self._decode(self.paths[index]) for index in indices.tolist()]), self.labels[indices]

  def _decode(self, path: Path) -> np.ndarray:
    from PIL import Image

    try:
      with Image.open(path) as opened:
        image = opened.convert('L' if self.grey else 'RGB')
    except (OSError, SyntaxError, ValueError) as error:
      raise DataError(f'{path}: is no readable image ({error}); replace or remove it.') from error
    image = fit(image, self.size) if self.size else image
    return np.asarray(image).reshape(image.height, image.width, -1)


def _measure(path: Path) -> tuple[tuple[int, int], bool]:
  """((width, height), is grey) from the header of an image file."""
  from PIL import Image

  try:
    with Image.open(path) as image:
      return image.size, image.mode in ('1', 'L')
  except (OSError, SyntaxError, ValueError) as error:
    raise DataError(f'{path}: is no readable image ({error}); replace or remove it.') from error


def _class_files(dir: Path) -> dict[str, list[Path]]:
  if not dir.is_dir():
    raise DataError(f'{dir}: does not exist; an image folder holds train/CLASS/*.png and test/CLASS/*.png.')
  files = {
    child.name: sorted(path for path in child.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    for child in sorted(dir.iterdir()) if child.is_dir() and not child.name.startswith('.')}
  if not files:
    raise DataError(f'{dir}: has no class folders; put the images into {dir}/CLASS/.')
  empty = [name for name, found in files.items() if not found]
  if empty:
    raise DataError(f'{dir / empty[0]}: holds no image; fill or remove this class folder.')
  return files


def _find_idx(dir: Path, prefixes: tuple[str, ...], kind: str) -> Path:
  found = [path for prefix in prefixes for path in sorted(dir.glob(f'{prefix}-{kind}*idx*'))]
  if not found:
    raise DataError(f'{dir}: has no {prefixes[0]}-{kind} idx file; put {prefixes[0]}-{kind}-idx*-ubyte[.gz] there.')
  return found[0]


def _parts(named: list[tuple[str, np.ndarray, np.ndarray]], classes: int | None) -> Parts:
  """Sources over (name, images, labels) of train and test, checked against each other."""
  for name, images, labels in named:
    if len(images) == 0:
      raise DataError(f'{name}: holds no image; write the set again.')
    if labels.size != len(images) or labels.shape[0] != len(images):
      raise DataError(f'{name}: {len(images)} images but labels of shape {list(labels.shape)}; write the set again.')
  if classes is None:
    classes = int(named[0][2].max()) + 1
  (_, first, _), _ = named
  shape = first.shape[1:] if first.ndim == 4 else (*first.shape[1:], 1)
  sources = []
  for name, images, labels in named:
    images = images.reshape(*images.shape[:3], -1)
    if images.shape[1:] != shape:
      raise DataError(f'{name}: images are {images.shape[1:]}, those of train {shape}; write the set again.')
    sources.append(Source.from_arrays(images, labels.reshape(-1), classes=classes, name=name))
  return Parts(*sources)
