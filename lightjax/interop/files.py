"""Weights from files: safetensors, Keras's HDF5, npz, and PyTorch's, which is read without PyTorch."""
from __future__ import annotations

import io
import os
import pathlib
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from lightjax.interop import torch_files
from lightjax.interop.errors import WeightsError, damage_named

HDF5 = b'\x89HDF\r\n\x1a\n'
ZIP = b'PK\x03\x04'
PICKLE = b'\x80'

# Weights hardly compress; a file that claims to unpack to more than this many times its length is refused.
MOST_TIMES_ITS_LENGTH = 64


def read_weights(path: str | os.PathLike[str], *, entry: str = '') -> dict[str, np.ndarray]:
  """The arrays of a file by name, as the file calls and shapes them. No code of the file is run.

  Args:
    path: .safetensors, .h5 (Keras), .npz, or .pth / .pt / .bin of PyTorch; what a file is, is read from its first
      bytes and not from its name.
    entry: the mapping to take, where a checkpoint of PyTorch holds several (weights and their moving average).
  Returns:
    Name to array, in the file's order and its dtypes. A Keras weight is called as its path in the file.
  Raises:
    WeightsError: damaged, of another kind, or it asks for more than tensors, numbers, strings and their containers.
    ModuleNotFoundError: safetensors or h5py is not installed; the message says how to get it.
    OSError: the file cannot be read.
  """
  try:
    return read_bytes(pathlib.Path(path).read_bytes(), entry=entry)
  except WeightsError as error:
    raise WeightsError(f'{os.fspath(path)}: {error}') from error
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"{os.fspath(path)}: {error.name} is not installed; pip install 'lightjax[interop]'.", name=error.name) from error


def read_bytes(data: bytes, *, entry: str = '') -> dict[str, np.ndarray]:
  """`read_weights` of the bytes of a file."""
  if data.startswith(ZIP) and any(name.endswith('.npy') for name in _zip_names(data)):
    return _npz(data)
  if data.startswith(ZIP):
    return _state_dict(torch_files.read_zip(data), entry)
  if data.startswith(PICKLE):
    return _state_dict(torch_files.read_legacy(data), entry)
  if data.startswith(HDF5):
    return _hdf5(data)
  if data[8:9] == b'{':
    return _safetensors(data)
  raise WeightsError('this is neither safetensors, nor HDF5, nor npz, nor a file of PyTorch.')


def _state_dict(found: Any, entry: str) -> dict[str, np.ndarray]:
  """The weights of what torch.save wrote: the mapping itself, or the one mapping of arrays in it."""
  if not isinstance(found, dict):
    raise WeightsError(f'the file holds a {type(found).__name__}, not a mapping of tensors.')
  if any(isinstance(value, np.ndarray) for value in found.values()):
    choices = {'': found}
  else:
    choices = {
      str(name): value for name, value in found.items()
      if isinstance(value, dict) and any(isinstance(each, np.ndarray) for each in value.values())}
  if entry not in choices and (entry or len(choices) != 1):
    raise WeightsError(
      f'entry={entry!r} names no mapping of tensors; the file holds '
      f'{", ".join(repr(name) for name in list(choices)[:8]) or "none"}.')
  weights = choices[entry] if entry in choices else next(iter(choices.values()))
  others = [str(name) for name, value in weights.items() if not isinstance(value, np.ndarray)]
  if others:
    raise WeightsError(f'{len(others)} entries among the tensors are none: {", ".join(others[:8])[:400]}.')
  return {str(name): value for name, value in weights.items()}


def _zip_names(data: bytes) -> list[str]:
  with damage_named('the zip file'), zipfile.ZipFile(io.BytesIO(data)) as archive:
    return archive.namelist()


def _npz(data: bytes) -> dict[str, np.ndarray]:
  with damage_named('the npz file'):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      _refuse_bomb(sum(entry.file_size for entry in archive.infolist()), len(data))
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}


def _safetensors(data: bytes) -> dict[str, np.ndarray]:
  import safetensors
  try:
    with damage_named('the safetensors file'):
      # `safetensors.numpy.load` knows no bfloat16.
      found = safetensors.deserialize(data)
      return {name: np.frombuffer(each['data'], _dtype(each['dtype'])).reshape(each['shape']) for name, each in found}
  except safetensors.SafetensorError as error:
    raise WeightsError(f'the safetensors file cannot be read: {error}.') from error


def _dtype(name: str) -> np.dtype[Any]:
  """Of safetensors' name: F32, BF16, I64, U8, BOOL, ..."""
  special = {'BOOL': np.bool_, 'BF16': ml_dtypes.bfloat16}
  kinds = {'F': 'f', 'I': 'i', 'U': 'u'}
  if name not in special and not (name[:1] in kinds and name[1:] in ('8', '16', '32', '64')):
    raise WeightsError(f'numbers of the kind {name} in the safetensors file are not known here.')
  return np.dtype(special[name] if name in special else f'<{kinds[name[0]]}{int(name[1:]) // 8}')


def _hdf5(data: bytes) -> dict[str, np.ndarray]:
  import h5py
  weights: dict[str, np.ndarray] = {}

  def take(name: str, node: Any) -> None:
    if not isinstance(node, h5py.Dataset):
      return
    if node.is_virtual or node.external:
      raise WeightsError(f'{name:.80} refers to another file; it is refused.')
    if node.dtype.kind not in 'fiub':
      raise WeightsError(f'{name:.80} holds no numbers.')
    _refuse_bomb(node.nbytes + sum(array.nbytes for array in weights.values()), len(data))
    weights[name] = np.asarray(node[()])

  with damage_named('the HDF5 file'), h5py.File(io.BytesIO(data), 'r') as file:
    file.visititems(take)
  if not weights:
    raise WeightsError('the HDF5 file holds no weights.')
  return weights


def _refuse_bomb(unpacked: int, length: int) -> None:
  if unpacked > MOST_TIMES_ITS_LENGTH * length:
    raise WeightsError(f'{length} bytes claim to unpack to {unpacked}; the file is refused.')


