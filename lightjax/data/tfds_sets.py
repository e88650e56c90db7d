"""Any TensorFlow Datasets name, read and where possible prepared without TensorFlow; bundled sets go the same way."""
from __future__ import annotations

import difflib
import importlib.resources
import socket
import urllib.parse
import urllib.request
from typing import Any

import numpy as np
from etils import epath

from lightjax.data import files
from lightjax.data.recipes import without_tensorflow
from lightjax.data.sources import DataError, Parts, Source

BUNDLED = importlib.resources.files('lightjax.data') / 'bundled'
# The part that has public labels, where that is not `test`.
TEST_PARTS = {'imagenet2012': 'validation'}


def bundled_names() -> list[str]:
  """Names of the sets that come with the package."""
  return sorted(entry.name for entry in BUNDLED.iterdir() if entry.is_dir())


def tfds(name: str, dir: str | None, *, size: int | None = None, own_names: tuple[str, ...] = ()) -> Parts:
  """A set by its TFDS name ('cifar10', 'name/config', 'name:version'), downloaded and prepared if it is not there yet.

  The test part is `test`, or `validation` where the set has no test part with public labels (ImageNet).

  Args:
    name: the TFDS name.
    dir: the TFDS data_dir; None is the bundled folder for bundled sets, otherwise TFDS's default.
    size: resize every image so that its short side is this long (bicubic), and cut the central square.
    own_names: further names, suggested where `name` is unknown.
  Raises:
    DataError: unknown name, no labelled images of one shape, or a set that can neither be found nor prepared.
  """
  if dir is None and name in bundled_names():
    dir = str(BUNDLED)
  builder = _prepared(name, dir, own_names)
  test = TEST_PARTS.get(builder.name, 'test' if 'test' in builder.info.splits else 'validation')
  parts = []
  for part in ('train', test):
    if part not in builder.info.splits:
      raise DataError(f'{name}: has the parts {", ".join(builder.info.splits)}, but no {part!r}; choose another set.')
    read = _ReadRecords(builder, part, name=name, size=size)
    parts.append(Source(
      read, size=len(read.records), shape=read.shape, classes=read.classes, name=f'{name} {part}',
      read_labels=read.all_labels))
  return Parts(*parts)


class _ReadRecords:
  """Decodes records of one part by index."""

  def __init__(self, builder: Any, part: str, *, name: str, size: int | None) -> None:
    import tensorflow_datasets as catalogue

    features = builder.info.features
    keys: tuple[str, str] = builder.info.supervised_keys or ('image', 'label')
    self.image_key, self.label_key = keys
    if not {self.image_key, self.label_key} <= set(features) or len(features[self.image_key].shape) not in (2, 3):
      raise DataError(
        f'{name}: is no set of labelled images, its features are {", ".join(features)}; choose another set.')
    if not isinstance(features[self.label_key], catalogue.features.ClassLabel):
      raise DataError(f'{name}: the feature {self.label_key!r} is no class label; choose another set.')
    self.classes: int = features[self.label_key].num_classes
    height, width, channels = (*features[self.image_key].shape, 1)[:3]
    if size:
      height = width = size
    if None in (height, width, channels):
      raise DataError(f'{name}: its images differ in size; pass size= to resize all.')
    self.shape, self.size = (height, width, channels), size
    self.records = builder.as_data_source(part)
    skip = {key: catalogue.decode.SkipDecoding() for key in features if key != self.label_key}
    self.undecoded = builder.as_data_source(part, decoders=skip)

  def all_labels(self) -> np.ndarray:
    return np.array([self.undecoded[index][self.label_key] for index in range(len(self.undecoded))])

  def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    records = self.records.__getitems__(indices.tolist())
    images = np.stack([self._fitted(record[self.image_key]) for record in records])
    return images, np.array([record[self.label_key] for record in records])

  def _fitted(self, image: np.ndarray) -> np.ndarray:
    if self.size:
      from PIL import Image

      flat = image[..., 0] if image.shape[-1] == 1 else image
      image = np.asarray(files.fit(Image.fromarray(flat), self.size))
    return image.reshape(*image.shape[:2], -1)


def _prepared(name: str, dir: str | None, own_names: tuple[str, ...]) -> Any:
  """The builder of a set that lies ready in `dir`, downloaded and prepared if need be."""
  import tensorflow_datasets as catalogue

  place = {} if dir is None else {'data_dir': dir}
  try:
    builder = catalogue.builder(name, **place)
  except catalogue.core.registered.DatasetNotFoundError as error:
    known = {*own_names, *bundled_names(), *catalogue.list_builders(with_community_datasets=False)}
    nearest = difflib.get_close_matches(name, known, n=3)
    way_out = f'nearest: {", ".join(nearest)}' if nearest else f'name {", ".join(sorted(own_names))} or any TFDS set'
    raise DataError(f'unknown data set {name!r}; {way_out}.') from error
  except ModuleNotFoundError as error:
    raise _needs_module(name, error) from error
  except ValueError as error:
    raise DataError(f'{name}: TFDS cannot build it ({_first_line(error)}); correct the name or version.') from error
  if not (builder.data_path / 'dataset_info.json').exists():
    builder = catalogue.builder(name, **place, file_format='array_record')
    _prepare(builder, name, catalogue)
  formats = {format.value for format in builder.info.available_file_formats()}
  if 'array_record' not in formats:
    raise DataError(
      f'{name}: lies prepared as {", ".join(sorted(formats))} in {builder.data_dir}, which has no random access; '
      f"prepare it again with file_format='array_record', or pass another dir.")
  return builder


def _prepare(builder: Any, name: str, catalogue: Any) -> None:
  _refuse_without_network(builder, name)
  try:
    with without_tensorflow(builder):
      builder.download_and_prepare(download_config=catalogue.download.DownloadConfig(try_download_gcs=False))
  except ModuleNotFoundError as error:
    raise _needs_module(name, error) from error
  except Exception as error:  # recipes and the downloader raise anything; it is told with its remedy
    raise DataError(
      f'{name}: is not in {builder.data_dir} and could not be prepared ({_first_line(error)}); put what is missing '
      f'there, or {_elsewhere(name)}.') from error


def _refuse_without_network(builder: Any, name: str) -> None:
  """Says at once what TFDS says only after minutes of retries; files already downloaded and proxies are left to it."""
  downloads = epath.Path(builder.data_dir_root) / 'downloads'
  if urllib.request.getproxies() or (downloads.is_dir() and any(downloads.iterdir())):
    return
  hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()}
  for host in sorted(host for host in hosts if host):
    try:
      socket.getaddrinfo(host, 443)
    except OSError as error:
      raise DataError(
        f'{name}: is not in {builder.data_dir} and cannot be downloaded, {host} cannot be reached; '
        f'{_elsewhere(name)}.') from error


def _needs_module(name: str, error: ModuleNotFoundError) -> DataError:
  return DataError(
    f'{name}: its TFDS recipe needs a module that is not installed ({_first_line(error)}); install it to prepare the '
    f'set once, or {_elsewhere(name)}.')


def _elsewhere(name: str) -> str:
  idx_files = ', or a folder of its idx files' if name in files.IDX_SETS else ''
  return f'pass dir=, a TFDS folder where it lies prepared as array_record{idx_files}'


def _first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:300] if lines else type(error).__name__
