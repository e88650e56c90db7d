"""Save, load and verify a compressed network as one file.

    sizes = save('network.ljx', network={'name': 'lenet300', 'widths': [300, 100]}, variables=view, encoded=encoded)
    print(sizes)                       # every byte of the file, by parameter and part
    stored = load('network.ljx')       # the model is built from stored.network and run on stored.variables
"""
from __future__ import annotations

import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lightjax.artifact import container, layout
from lightjax.artifact.container import ArtifactError
from lightjax.artifact.sizes import Sizes
from lightjax.core import trees
from lightjax.core.encoded import NOTHING, Encoded, Integers
from lightjax.core.typing import Path, Variables

# Folding may compute (codes * scale) / s where the file says codes * (scale / s): three roundings, under 4 ulp.
ROUNDING = 4 * float(np.finfo(np.float32).eps)


class Stored(NamedTuple):
  """What a file holds.

  Attributes:
    network: how to build the model, as it was given to `save` (tuples are lists).
    variables: nested dict of NumPy arrays; integers are decoded to float32, (codes - zero point) * scale.
    encoded: the integers and the activation ranges, with NumPy arrays.
    meta: as it was given to `save`; {} where nothing was.
    sizes: the bytes of the file.
  """
  network: Any
  variables: dict[str, Any]
  encoded: Encoded
  meta: dict[str, Any]
  sizes: Sizes


def save(
  path: str | os.PathLike[str],
  *,
  network: Any,
  variables: Variables,
  encoded: Encoded = NOTHING,
  meta: Mapping[str, Any] | None = None,
) -> Sizes:
  """Write a network as one file, whole or not at all.

  Args:
    path: the file; its folder exists. An older file is replaced in one step, after the new one is on the disk.
    network: plain JSON data that says how to build the model.
    variables: the final view, nested mappings of arrays; pruned weights are exactly zero. Every array comes back bit
      for bit, but -0.0 as 0.0: a pruned negative weight is -0.0 after `weight * mask`, and its sign is not stored.
    encoded: the parameters that are stored as integers instead, and the ranges of activations.
    meta: plain JSON data to keep beside.
  Returns:
    The bytes of the file, in total and by parameter.
  Raises:
    ValueError: something cannot be stored, or the integers are not the values in `variables`; the message names it.
    OSError: the disk is full or the place not writable; an older file is untouched.
  """
  data = to_bytes(network=network, variables=variables, encoded=encoded, meta=meta)
  sizes = from_bytes(data).sizes  # what cannot be read again does not replace an older file
  _write(pathlib.Path(path).resolve(), data)
  return sizes


def load(path: str | os.PathLike[str]) -> Stored:
  """Read a file that `save` wrote; no code of the file is run, and its memory is bounded by its length.

  Args:
    path: the file.
  Returns:
    The network's description, its variables, what was encoded, meta, sizes.
  Raises:
    ArtifactError: the file is no intact artifact; the message says why.
    OSError: the file cannot be read.
  """
  try:
    return from_bytes(pathlib.Path(path).read_bytes())
  except ArtifactError as error:
    raise ArtifactError(f'{os.fspath(path)}: {error}') from None


def verify(path: str | os.PathLike[str]) -> None:
  """Check all of a file: checksum, header and the coding of every array.

  Args:
    path: the file.
  Raises:
    ArtifactError: the file is no intact artifact; the message says why.
    OSError: the file cannot be read.
  """
  load(path)


def to_bytes(
  *, network: Any, variables: Variables, encoded: Encoded = NOTHING, meta: Mapping[str, Any] | None = None,
  entropy_coded: bool = True,
) -> bytes:
  """The bytes that `save` writes; errors are the same.

  Args:
    network: as for `save`, and so are the next three.
    variables: the final view.
    encoded: what is stored as integers.
    meta: what is kept beside.
    entropy_coded: False for gaps, indices and codes of fixed width, to show what entropy coding is worth.
  Returns:
    The whole file; equal arguments give equal bytes.

  Example:
    >>> data = to_bytes(network={'name': 'one'}, variables={'params': {'fc': {'kernel': np.eye(2)}}})
    >>> from_bytes(data).variables['params']['fc']['kernel'].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
  """
  if not isinstance(variables, Mapping):
    raise ValueError(f'variables must be nested mappings of arrays, not {type(variables).__name__}.')
  writer = layout.Writer(entropy_coded=entropy_coded)
  left = dict(encoded.parameters)
  in_collection = trees.has_collections(variables)

  def write(value: Any, keys: layout.Keys) -> dict[str, Any]:
    path = _path(keys)
    if path not in left or (in_collection and keys[0] != 'params'):
      return write_array(value, keys)
    integers = left.pop(path)
    description = writer.integers(integers, path)
    _refuse_other_values(integers, np.asarray(value, np.float32), path)
    return description

  def write_array(value: Any, keys: layout.Keys) -> dict[str, Any]:
    return writer.array(value, _path(keys))

  header = {
    'network': layout.describe(network, ('network',), None),
    'activations': layout.describe(encoded.activations, ('activations',), write_array),
    'variables': layout.describe(variables, (), write),
    'meta': layout.describe(meta or {}, ('meta',), None),
  }
  for path in left:
    nearest = trees.nearest(path, trees.flatten(variables))
    raise ValueError(f'encoded: {path!r} is no parameter of these variables; nearest: {nearest}.')
  return container.wrap(header, b''.join(writer.sections))


def from_bytes(data: bytes) -> Stored:
  """What `load` returns, from the bytes of a file.

  Args:
    data: the whole file.
  Returns:
    See `load`.
  Raises:
    ArtifactError: the bytes are no intact artifact.
  """
  header, payload = container.unwrap(data)
  if not isinstance(header, dict) or set(header) != {'network', 'activations', 'variables', 'meta'}:
    raise ArtifactError('the header lacks a part or has one that is unknown.')
  for part in ('activations', 'variables', 'meta'):
    if not isinstance(header[part], dict):
      raise ArtifactError(f'{part} in the header is no mapping.')
  reader = layout.Reader(payload, len(data))
  parameters: dict[Path, Integers] = {}

  def read_array(node: Any, keys: layout.Keys) -> np.ndarray:
    return reader.array(node, _path(keys))

  def read(node: Any, keys: layout.Keys) -> np.ndarray:
    if set(node) == {layout.ARRAY}:
      return read_array(node, keys)
    integers = parameters[_path(keys)] = reader.integers(node, _path(keys))
    return _decode(integers)

  try:  # in the order in which `to_bytes` wrote the sections
    activations = layout.restore(header['activations'], ('activations',), read_array)
    variables = layout.restore(header['variables'], (), read)
    _refuse_other_than_arrays(variables, ())
  except RecursionError:
    raise ArtifactError('the header is nested too deep.') from None
  reader.finish()
  arrays = tuple(reader.sizes)
  sizes = Sizes(len(data), len(data) - sum(array.total for array in arrays), arrays)
  return Stored(header['network'], variables, Encoded(parameters, activations), header['meta'], sizes)


def _path(keys: layout.Keys) -> Path:
  return trees.path_string(tuple(jax.tree_util.DictKey(key) for key in keys))


def _decode(integers: Integers) -> np.ndarray:
  """`Integers.decode` in NumPy."""
  codes: Any = np.asarray(integers.codes)
  scale: Any = np.asarray(integers.scale, np.float32)
  zero_point: Any = None if integers.zero_point is None else np.asarray(integers.zero_point, np.float32)
  with np.errstate(all='ignore'):  # a file may hold a scale that is not finite
    return np.asarray(Integers(codes, scale, integers.bits, zero_point).decode())


def _refuse_other_values(integers: Integers, value: np.ndarray, path: Path) -> None:
  """The file must hold the network that was measured, up to the order of float32 multiplications; zeros exactly."""
  if np.shape(integers.codes) != value.shape:
    raise ValueError(f'{path}: codes of shape {np.shape(integers.codes)} stand for a parameter of shape {value.shape}.')
  decoded = _decode(integers)
  with np.errstate(invalid='ignore'):  # infinite values, which are refused here
    is_wrong = ~(np.abs(decoded - value) <= ROUNDING * np.abs(decoded))
  if is_wrong.any():
    where = np.unravel_index(np.argmax(is_wrong), value.shape)
    raise ValueError(
      f'{path}: codes * scale is not the final view in {is_wrong.sum()} of {value.size} places, the first is '
      f'{decoded[where]} where {value[where]} is due; save the view that the integers were made from.'
    )


def _refuse_other_than_arrays(node: Any, keys: layout.Keys) -> None:
  if isinstance(node, dict):
    for key, each in node.items():
      _refuse_other_than_arrays(each, (*keys, key))
  elif not isinstance(node, np.ndarray):
    raise ArtifactError(
      f'{layout.place(keys)}: variables hold arrays only, not {type(node).__name__}; convert it with numpy.asarray.')


def _write(path: pathlib.Path, data: bytes) -> None:
  """Replace a file in one step: a reader, also after a crash, sees the old one or the new one and nothing between."""
  if path.exists() and not path.is_file():
    raise FileExistsError(f'{path} is no regular file, it is not replaced by an artifact.')
  temporary = path.with_name(f'.{secrets.token_hex(8)}.tmp')
  try:
    with open(temporary, 'xb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
