"""The inner layout of an artifact: nested data with arrays <-> JSON that describes them, and the payload's sections.

An array stands in the JSON as `{'': description}`, which is why the empty string is no name. Its description is
`[dtype, shape]` when it is stored dense and plain, else `[dtype, shape, positions, values, stored, position bytes,
value bytes]` with the names of `codecs`. Codes have the keys 'bits' and 'scale' beside it, and 'zero_point' where they
have one. The sections follow one another in the order of the JSON's arrays: positions, values, then those of the scale
and of the zero point.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from lightjax.artifact import codecs
from lightjax.artifact.container import ArtifactError
from lightjax.artifact.sizes import ArraySize
from lightjax.core.encoded import Integers

ARRAY = ''
DTYPES = {np.dtype(each).name: np.dtype(each) for each in (
  bool, 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8',
  ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
)}
BITS = range(1, 9)
FLOAT8 = ('float8_e4m3fn', 'float8_e5m2')
MOST_AXES = 32
# A file of n bytes may hold arrays of 64 MiB + 4096 n bytes in memory: sparse arrays expand a lot (some 3000 times at
# 99.98 % zeros), but the header of a damaged or hostile file could claim any size.
EXPANSION = 4096
EXPANSION_FLOOR_BYTES = 64 * 2**20

Keys = tuple[str, ...]


class Writer:
  """Collects the sections while a tree is described.

  Args:
    entropy_coded: see `codecs.encode`.
  Attributes:
    sections: the payload's parts, in order.
  """

  def __init__(self, *, entropy_coded: bool = True) -> None:
    self.sections: list[bytes] = []
    self._entropy_coded = entropy_coded

  def array(self, value: Any, where: str) -> dict[str, Any]:
    """Store an array; returns its description."""
    return {ARRAY: self._coded(*_words(value, where))}

  def integers(self, value: Integers, where: str) -> dict[str, Any]:
    """Store the codes, the scale and the zero point of a parameter; returns their description.

    Raises:
      ValueError: the bits, a code, or the shape of scale or zero point is out of bounds.
    """
    codes, scale = np.asarray(value.codes), np.asarray(value.scale, np.float32)
    bits = int(value.bits)
    if bits not in BITS:
      raise ValueError(f'{where}: {value.bits} bits per code are not supported; use {BITS.start} to {BITS.stop - 1}.')
    if not _scales(scale.shape, codes.shape):
      raise ValueError(f'{where}: a scale of shape {scale.shape} does not broadcast to codes of shape {codes.shape}, '
                       'nor does it divide them into blocks.')
    if codes.dtype.name in FLOAT8:
      if bits != 8:
        raise ValueError(f'{where}: codes of {codes.dtype.name} have 8 bits, not {bits}.')
      words, dtype, _, _ = _words(codes, where)
    else:
      limit = 2 ** (bits - 1)
      is_sound = np.abs(codes) == 1 if bits == 1 else (-limit <= codes) & (codes < limit)
      if codes.dtype.kind not in 'iu' or not is_sound.all():
        allowed = 'be 1 or -1' if bits == 1 else f'be integers in {-limit}..{limit - 1}'
        raise ValueError(f'{where}: codes of {bits} bits must {allowed}.')
      words, dtype = _to_words(codes.astype(np.int16), bits).astype(np.uint8).reshape(-1), 'int8'
    description = {ARRAY: self._coded(words, dtype, codes.shape, bits), 'bits': bits, 'scale': self.array(scale, where)}
    if value.zero_point is not None:
      zero_point = np.asarray(value.zero_point, np.float32)
      if zero_point.shape not in ((), scale.shape):
        raise ValueError(
          f'{where}: a zero point of shape {zero_point.shape} does not go with a scale of shape {scale.shape}.')
      description['zero_point'] = self.array(zero_point, where)
    return description

  def _coded(self, words: np.ndarray, dtype: str, shape: tuple[int, ...], width: int) -> list[Any]:
    coded = codecs.encode(words, width, entropy_coded=self._entropy_coded)
    self.sections += [coded.position_bytes, coded.value_bytes]
    if (coded.positions, coded.values) == ('dense', 'plain'):
      return [dtype, list(shape)]
    lengths = [len(coded.position_bytes), len(coded.value_bytes)]
    return [dtype, list(shape), coded.positions, coded.values, coded.stored, *lengths]


class Reader:
  """Takes the sections of a payload one after another, and notes the bytes of each array.

  Args:
    payload: the sections, joined.
    file_bytes: length of the file, which bounds the memory that its arrays may take.
  Attributes:
    sizes: one entry for each array read so far.
  """

  def __init__(self, payload: bytes, file_bytes: int):
    self.sizes: list[ArraySize] = []
    self._payload = payload
    self._offset = 0
    self._memory_left = EXPANSION_FLOOR_BYTES + EXPANSION * file_bytes

  def array(self, node: Any, where: str) -> np.ndarray:
    """The array that a description stands for.

    Raises:
      ArtifactError: the description contradicts itself, the payload or the bound on memory.
    """
    if set(node) != {ARRAY}:
      raise ArtifactError(f'{where}: there is no array.')
    array, coded = self._decoded(node[ARRAY], None, where)
    is_plain = (coded.positions, coded.values) == ('dense', 'plain')
    self.sizes.append(ArraySize(where, rest=len(coded.value_bytes)) if is_plain else _size(coded, array, None, where))
    return array

  def integers(self, node: Any, where: str) -> Integers:
    """The codes and the scale that a description stands for.

    Raises:
      ArtifactError: as `array`.
    """
    bits = node.get('bits')
    parts = [part for part in ('scale', 'zero_point') if part in node]
    is_complete = set(node) == {ARRAY, 'bits', 'scale', *parts} and all(isinstance(node[part], dict) for part in parts)
    if not is_complete or not _is_count(bits) or bits not in BITS:
      raise ArtifactError(f'{where}: the description of the integers is malformed.')
    codes, coded = self._decoded(node[ARRAY], bits, where)
    found: list[Any] = [self.array(node[part], where) for part in parts]
    is_float32 = all(each.dtype == np.float32 for each in found)
    if not is_float32 or not _scales(found[0].shape, codes.shape) or found[-1].shape not in ((), found[0].shape):
      raise ArtifactError(f'{where}: the scale or the zero point does not fit the codes.')
    scale_bytes = sum(self.sizes.pop().total for _ in found)
    self.sizes.append(_size(coded, codes, bits, where)._replace(scales=scale_bytes))
    return Integers(codes, found[0], bits, *found[1:])

  def finish(self) -> None:
    """Raise ArtifactError unless the whole payload was read."""
    if self._offset != len(self._payload):
      raise ArtifactError(f'{len(self._payload) - self._offset} bytes of the payload belong to no array.')

  def _decoded(self, description: Any, bits: int | None, where: str) -> tuple[Any, codecs.Coded]:
    """An array, or codes of so many bits, and how it was coded."""
    described = _Description.checked(description, bits, where)
    # The product over max(axis, 1) also bounds the axes of an empty array, which NumPy limits too.
    memory = math.prod(max(axis, 1) for axis in described.shape) * (described.dtype.itemsize + (4 if bits else 0))
    if memory > self._memory_left:
      raise ArtifactError(f'{where}: shape {described.shape} is larger than a file of this length may hold.')
    self._memory_left -= memory
    coded = codecs.Coded(
      described.positions, described.values, described.stored,
      self._take(described.position_bytes, where), self._take(described.value_bytes, where))
    try:
      words = codecs.decode(coded, math.prod(described.shape), described.width)
    except ArtifactError as error:
      raise ArtifactError(f'{where}: {error}') from None
    if described.dtype == np.bool_ and np.any(words > 1):
      raise ArtifactError(f'{where}: a bool is neither 0 nor 1.')
    if bits and described.dtype == np.int8:
      words = _to_codes(words, bits)
    return words.view(described.dtype).reshape(described.shape), coded

  def _take(self, length: int, where: str) -> bytes:
    if length > len(self._payload) - self._offset:
      raise ArtifactError(f'{where}: {length} bytes are due, {len(self._payload) - self._offset} are left.')
    section = self._payload[self._offset:self._offset + length]
    self._offset += length
    return section


class _Description(NamedTuple):
  """One array as the header describes it."""
  dtype: np.dtype
  shape: tuple[int, ...]
  width: int
  positions: str
  values: str
  stored: int
  position_bytes: int
  value_bytes: int

  @classmethod
  def checked(cls, description: Any, bits: int | None, where: str) -> _Description:
    """The description with every type checked; nothing is known yet about whether it fits the payload."""
    wrong = ArtifactError(f'{where}: the description of the array is malformed.')
    if not isinstance(description, list) or len(description) not in (2, 7):
      raise wrong
    name, shape, *coding = description
    if not isinstance(name, str) or name not in DTYPES:
      raise ArtifactError(f'{where}: dtype {name!r:.40} is unknown.')
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(_is_count(axis) for axis in shape):
      raise wrong
    if bits and name != 'int8' and not (bits == 8 and name in FLOAT8):
      raise ArtifactError(f'{where}: codes of {bits} bits are int8, not {name}.')
    dtype = DTYPES[name]
    width = bits or 8 * dtype.itemsize
    if not coding:
      count = math.prod(shape)
      return cls(dtype, tuple(shape), width, 'dense', 'plain', count, 0, codecs.packed_bytes(count, width))
    if not all(isinstance(each, str) for each in coding[:2]) or not all(_is_count(each) for each in coding[2:]):
      raise wrong
    return cls(dtype, tuple(shape), width, *coding)


def describe(node: Any, keys: Keys, leaf: Callable[[Any, Keys], Any] | None) -> Any:
  """Nested plain data as JSON, mappings in the order of their sorted keys.

  Args:
    node: mappings with text as keys, lists, tuples, text, finite numbers, bool, None; arrays where `leaf` is given.
    keys: where the node stands, for error messages.
    leaf: (array, keys) -> its description; None: arrays are refused.
  Returns:
    JSON data; tuples become lists.
  Raises:
    ValueError: something else; the message names its place.
  """
  if isinstance(node, Mapping):
    for key in node:
      if not isinstance(key, str) or key == ARRAY:
        raise ValueError(f'{place(keys)}: the key {key!r} cannot be stored; keys are non-empty text.')
    return {key: describe(node[key], (*keys, key), leaf) for key in sorted(node)}
  if isinstance(node, list | tuple):
    return [describe(each, (*keys, str(i)), leaf) for i, each in enumerate(node)]
  if leaf is not None and isinstance(node, np.ndarray | np.generic | jax.Array):
    return leaf(node, keys)
  if node is None or type(node) in (bool, int, str) or (type(node) is float and math.isfinite(node)):
    return node
  allowed = 'a finite number, text, a list or a mapping' + ('' if leaf is None else ', or an array')
  raise ValueError(f'{place(keys)}: {node!r:.80} ({type(node).__name__}) cannot be stored; convert it to {allowed}.')


def restore(node: Any, keys: Keys, leaf: Callable[[Any, Keys], Any]) -> Any:
  """The inverse of `describe`.

  Args:
    node: JSON data.
    keys: where it stands.
    leaf: (description, keys) -> array.
  Returns:
    The nested data with its arrays.
  """
  if isinstance(node, dict):
    if ARRAY in node:
      return leaf(node, keys)
    return {key: restore(each, (*keys, key), leaf) for key, each in node.items()}
  if isinstance(node, list):
    return [restore(each, (*keys, str(i)), leaf) for i, each in enumerate(node)]
  return node


def place(keys: Keys) -> str:
  """Where something stands in nested data, as text."""
  return '/'.join(keys) or 'variables'


def _words(value: Any, where: str) -> tuple[np.ndarray, str, tuple[int, ...], int]:
  """The bit patterns of an array, its dtype's name, shape and bits per element."""
  if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
    raise ValueError(f'{where}: arrays of {value.dtype} cannot be stored; store jax.random.key_data of a key.')
  array = np.asarray(value)
  name = array.dtype.name
  if name not in DTYPES:
    raise ValueError(f'{where}: arrays of {name} cannot be stored; use one of {", ".join(DTYPES)}.')
  native = np.ascontiguousarray(array, DTYPES[name]).reshape(-1)
  words, width = native.view(f'u{native.itemsize}'), 8 * native.itemsize
  if jax.dtypes.issubdtype(native.dtype, np.floating):
    words = np.where(words == 1 << (width - 1), 0, words)  # -0.0, see `files.save`
  return words, name, array.shape, width


def _size(coded: codecs.Coded, array: np.ndarray, bits: int | None, where: str) -> ArraySize:
  """Where the bytes of a coded array go."""
  codebook = codecs.codebook_bytes(coded, bits or 8 * array.itemsize)
  return ArraySize(where, len(coded.position_bytes), len(coded.value_bytes) - codebook, codebook)


def _to_words(codes: np.ndarray, bits: int) -> np.ndarray:
  """Codes as unsigned words: two's complement, and of one bit 1 for 1 and 0 for -1."""
  return codes > 0 if bits == 1 else codes & (2**bits - 1)


def _to_codes(words: np.ndarray, bits: int) -> np.ndarray:
  """The inverse of `_to_words`, int8."""
  if bits == 1:
    return np.where(words, 1, -1).astype(np.int8)
  sign = 2 ** (bits - 1)
  return ((words ^ sign).astype(np.int16) - sign).astype(np.int8)


def _scales(scale: tuple[int, ...], codes: tuple[int, ...]) -> bool:
  """Whether a scale broadcasts to the codes, or has one entry for each of equal blocks of them."""
  if len(scale) > len(codes):
    return False
  is_block = len(scale) == len(codes)
  pairs = zip(reversed(scale), reversed(codes), strict=False)
  return all(short in (1, long) or (is_block and short > 0 and long % short == 0) for short, long in pairs)


def _is_count(value: Any) -> bool:
  return type(value) is int and value >= 0
