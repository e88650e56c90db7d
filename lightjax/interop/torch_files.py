"""PyTorch's files, without PyTorch: the zip format (since 1.6) and the one before it.

    zip       NAME/data.pkl: one pickle; NAME/data/KEY: the bytes of a storage, not compressed
    legacy    five pickles: magic number, version, system, the object, list of storage keys; then for each key the
              number of elements (8 bytes) and the bytes

A tensor is a storage, an offset and strides into it.
"""
from __future__ import annotations

import io
import math
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from lightjax.interop import pickles
from lightjax.interop.errors import WeightsError, damage_named

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

# No weight has more; NumPy refuses 65 axes, and sizes whose bytes 64 bits cannot count.
MOST_AXES = 32
MOST_NUMBERS = 2**40

DTYPES = {
  'Float': np.float32, 'Double': np.float64, 'Half': np.float16, 'BFloat16': ml_dtypes.bfloat16, 'Long': np.int64,
  'Int': np.int32, 'Short': np.int16, 'Char': np.int8, 'Byte': np.uint8, 'Bool': np.bool_,
}


class Storage(NamedTuple):
  """A run of numbers elsewhere in the file."""
  key: str
  dtype: np.dtype[Any]
  elements: int


class Tensor(NamedTuple):
  """A strided view of a storage; offset and strides in elements."""
  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read_zip(data: bytes) -> Any:
  """The object of a zip file, its tensors as arrays that share the file's memory.

  Args:
    data: the whole file.
  Returns:
    Plain data with NumPy arrays, which cannot be written to.
  Raises:
    WeightsError: damaged, refused, or no file of PyTorch.
  """
  with damage_named('the zip file'), zipfile.ZipFile(io.BytesIO(data)) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if sum(entry.file_size for entry in archive.infolist()) > len(data):
      raise WeightsError('the members of the zip file claim more bytes than the file has; it is refused.')
    pickle = next((name for name in entries if name.endswith('/data.pkl')), None)
    if pickle is None:
      raise WeightsError('the zip file holds no data.pkl.')
    folder = pickle.removesuffix('data.pkl')
    if f'{folder}byteorder' in entries and _member(archive, entries[f'{folder}byteorder']) != b'little':
      raise WeightsError('the file was written on a big-endian machine; save it again on another.')
    found = _read_pickle(io.BytesIO(_member(archive, entries[pickle])))
    keys = {tensor.storage.key for tensor in _tensors(found)}
    stored = {key: _member(archive, entries[f'{folder}data/{key}']) for key in keys if f'{folder}data/{key}' in entries}
  return _with_arrays(found, stored)


def read_legacy(data: bytes) -> Any:
  """The object of a file in the format before PyTorch 1.6; arguments and errors are those of `read_zip`."""
  file = io.BytesIO(data)
  if _read_pickle(file) != LEGACY_MAGIC:
    raise WeightsError('this is a pickle, but no file that torch.save wrote.')
  version = _read_pickle(file)
  if version != LEGACY_VERSION:
    raise WeightsError(f'the file has another version than {LEGACY_VERSION}.')
  _read_pickle(file)  # sizes of C types on the machine that wrote it; storages are little-endian on all
  found = _read_pickle(file)
  keys = _read_pickle(file)
  if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
    raise WeightsError('the file is damaged: its list of storages is none.')
  sizes = {tensor.storage.key: tensor.storage.dtype.itemsize for tensor in _tensors(found)}
  stored: dict[str, bytes | memoryview] = {}
  view, position = memoryview(data), file.tell()
  for key in keys:
    elements = int.from_bytes(view[position:position + 8], 'little')
    length = elements * sizes.get(key, 1)
    position += 8
    if position + length > len(data):
      raise WeightsError(f'the file is truncated: storage {key:.40} ends at byte {position + length} of {len(data)}.')
    stored[key] = view[position:position + length]
    position += length
  return _with_arrays(found, stored)


def _read_pickle(file: io.BytesIO) -> Any:
  return pickles.read(file, names=_NAMES, persistent=_storage)


def _storage(identity: Any) -> Storage:
  """('storage', type, key, device, elements) and, in old files, what the storage is a view of."""
  if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != 'storage':
    raise WeightsError('the file refers to something that is no storage.')
  _, dtype, key, _, elements = identity[:5]
  if len(identity) == 6 and identity[5] is not None:
    raise WeightsError('the file holds views of storages, as PyTorch before 0.4 wrote them; save it again.')
  if not isinstance(dtype, np.dtype) or not isinstance(key, str) or not isinstance(elements, int):
    raise WeightsError('the file refers to a storage of unknown kind.')
  return Storage(key, dtype, elements)


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
  """`torch._utils._rebuild_tensor_v2`; whether a gradient is wanted, and hooks, are left out."""
  numbers = (offset, *shape, *strides)
  if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > MOST_AXES or not all(
      isinstance(number, int) and 0 <= number < MOST_NUMBERS for number in numbers):
    raise WeightsError('the file holds a tensor without a sound shape.')
  return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
  return tensor


_NAMES = {
  'collections.OrderedDict': pickles.Function(lambda: OrderedDict()),
  'torch.Size': pickles.Function(lambda sizes: tuple(sizes)),
  'torch._utils._rebuild_tensor': pickles.Function(_rebuild),
  'torch._utils._rebuild_tensor_v2': pickles.Function(_rebuild),
  'torch._utils._rebuild_parameter': pickles.Function(_rebuild_parameter),
  **{f'torch.{name}Storage': np.dtype(dtype) for name, dtype in DTYPES.items()},
}


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
  """A stored member; PyTorch compresses none."""
  if entry.compress_type != zipfile.ZIP_STORED:
    raise WeightsError(f'{entry.filename:.80} in the zip file is compressed, as torch.save never writes it.')
  return archive.read(entry)


def _tensors(found: Any) -> list[Tensor]:
  """The tensors of an object and of the mappings in it, which is as deep as weights are looked for."""
  values = list(found.values()) if isinstance(found, dict) else []
  mappings = {id(value): value for value in values if isinstance(value, dict)}
  values += [each for mapping in mappings.values() for each in mapping.values()]
  return [value for value in values if isinstance(value, Tensor)]


def _with_arrays(found: Any, stored: Mapping[str, bytes | memoryview]) -> Any:
  """The object with its tensors as arrays, as deep as `_tensors` looks."""
  exchanged: dict[int, Any] = {}  # a pickle may refer to one mapping many times

  def exchange(value: Any, depth: int, name: str) -> Any:
    if isinstance(value, Tensor):
      return _array(value, stored.get(value.storage.key, b''), name)
    if isinstance(value, dict) and depth < 2:
      if id(value) not in exchanged:
        exchanged[id(value)] = {key: exchange(each, depth + 1, str(key)) for key, each in value.items()}
      return exchanged[id(value)]
    return value

  return exchange(found, 0, '')


def _array(tensor: Tensor, stored: bytes | memoryview, name: str) -> np.ndarray:
  dtype, elements = tensor.storage.dtype, tensor.storage.elements
  if len(stored) != elements * dtype.itemsize:
    raise WeightsError(
      f'{name:.80}: its storage has {len(stored)} bytes, not {elements} times {dtype.itemsize}; the file is damaged.')
  count = math.prod(tensor.shape)
  last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
  fits = count == 0 or (last < elements and count <= elements)
  if not fits or math.prod(max(size, 1) for size in tensor.shape) > MOST_NUMBERS:
    raise WeightsError(
      f'{name:.80}: a tensor of {count} numbers, the last at {last}, does not fit a storage of {elements}.')
  if count == 0:
    return np.empty(tensor.shape, dtype)
  flat = np.frombuffer(stored, dtype)[tensor.offset:]
  strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
  return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
