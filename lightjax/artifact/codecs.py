"""How one array becomes bytes: where its non-zeros stand, and what they are.

An array is a row of unsigned words, the bit patterns of its elements; a zero is the pattern of all zero bits, and every
round trip is exact. Two tables hold the codecs, `POSITIONS` and `VALUES`; each entry is tried and the shortest result
is kept. A new codec is one more entry: a reader that does not know it refuses the file.
"""
from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lightjax.artifact import entropy
from lightjax.artifact.container import ArtifactError

LARGEST_CODEBOOK = 256
LARGEST_ALPHABET_BITS = 8  # of words that are entropy-coded as they are
GAP_WIDTHS = range(2, 17)
CODED_GAP_WIDTHS = (4, 6, 8)
GAPS_HEAD = struct.Struct('<BI')
VARINT_GROUPS = 5  # of 7 bits: gaps up to 2**35
# What the description of a coded array adds to the compressed header; an array that gains less stays dense and plain.
DESCRIPTION_BYTES = 16


class Coded(NamedTuple):
  """An array's words as bytes.

  Attributes:
    positions: name in `POSITIONS`, or 'dense': every word is stored.
    values: name in `VALUES`.
    stored: number of words that are stored.
    position_bytes: their positions.
    value_bytes: their values.
  """
  positions: str
  values: str
  stored: int
  position_bytes: bytes
  value_bytes: bytes

  @property
  def size_bytes(self) -> int:
    """Bytes of both parts."""
    return len(self.position_bytes) + len(self.value_bytes)


def encode(words: np.ndarray, width: int, *, entropy_coded: bool = True) -> Coded:
  """The shortest coding of an array.

  Args:
    words: unsigned integers below 2**width, shape [n].
    width: bits per word, up to 64.
    entropy_coded: False leaves out what codes at the entropy, to show what it is worth.
  Returns:
    Names, count and bytes for `decode`.
  """
  stored = np.flatnonzero(words)
  plain = Coded('dense', 'plain', words.size, b'', pack(words, width))
  candidates = [plain]
  if 2 * stored.size >= words.size:
    found = _tried(VALUES, words, width, entropy_coded)
    candidates += [Coded('dense', name, words.size, b'', data) for name, data in found]
  if stored.size < words.size:
    gaps = np.diff(stored, prepend=-1) - 1
    positions, position_bytes = min(_tried(POSITIONS, gaps, words.size, entropy_coded), key=lambda each: len(each[1]))
    values, value_bytes = min(_tried(VALUES, words[stored], width, entropy_coded), key=lambda each: len(each[1]))
    candidates.append(Coded(positions, values, stored.size, position_bytes, value_bytes))
  best = min(candidates, key=lambda coded: coded.size_bytes)
  return best if best.size_bytes + DESCRIPTION_BYTES < plain.size_bytes else plain


def decode(coded: Coded, size: int, width: int) -> np.ndarray:
  """The words that were encoded; nothing of the coded bytes is trusted.

  Args:
    coded: as `encode` returns it, or as a file claims it.
    size: number of words, already checked to fit memory.
    width: bits per word.
  Returns:
    Unsigned words, shape [size].
  Raises:
    ArtifactError: the bytes do not describe `size` words.
  """
  if coded.values not in VALUES or coded.positions not in ('dense', *POSITIONS):
    raise ArtifactError(f'codec {coded.positions!r} with {coded.values!r} is unknown to this lightjax; update it.')
  if not 0 <= coded.stored <= size:
    raise ArtifactError(f'{coded.stored} values cannot stand in {size} places.')
  if coded.positions == 'dense' and (coded.stored != size or coded.position_bytes):
    raise ArtifactError('a dense array stores all of its values and no positions.')
  values = VALUES[coded.values].decode(coded.value_bytes, coded.stored, width)
  if coded.positions == 'dense':
    return values
  words = np.zeros(size, values.dtype)
  words[POSITIONS[coded.positions].decode(coded.position_bytes, size, coded.stored)] = values
  return words


def codebook_bytes(coded: Coded, width: int) -> int:
  """How many of the value bytes are a codebook; width is the bits per word."""
  if coded.values not in ('codebook', 'coded codebook'):
    return 0
  return 1 + packed_bytes(coded.value_bytes[0] + 1, width)


def pack(words: np.ndarray, width: int) -> bytes:
  """Words below 2**width as a stream of `width` bits each, least significant first; the last byte is filled with zeros.

  Example:
    >>> pack(np.array([1, 2, 3], np.uint8), 4).hex()
    '2103'
  """
  little = np.ascontiguousarray(words, words.dtype.newbyteorder('<'))
  if width == 8 * little.itemsize:
    return little.tobytes()
  as_bytes = little.view(np.uint8).reshape(little.size, little.itemsize)
  bits = np.unpackbits(as_bytes, axis=1, bitorder='little', count=width)
  return np.packbits(bits.reshape(-1), bitorder='little').tobytes()


def unpack(data: bytes, count: int, width: int) -> np.ndarray:
  """The first `count` words of a stream that holds at least so many; shape [count], the narrowest unsigned type."""
  item = next(item for item in (1, 2, 4, 8) if width <= 8 * item)
  if width == 8 * item:
    return np.frombuffer(data, f'<u{item}', count).astype(f'u{item}')
  bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder='little', count=count * width).reshape(count, width)
  as_bytes = np.zeros((count, item), np.uint8)
  packed = np.packbits(bits, axis=1, bitorder='little')
  as_bytes[:, :packed.shape[1]] = packed
  return as_bytes.view(f'<u{item}').reshape(count).astype(f'u{item}')


def packed_bytes(count: int, width: int) -> int:
  """Bytes of `count` words at `width` bits."""
  return -(-count * width // 8)


def _tried(
  table: dict[str, Codec], words: np.ndarray, parameter: int, entropy_coded: bool
) -> list[tuple[str, bytes]]:
  """The result of every codec that can code these words."""
  results = (
    (name, codec.encode(words, parameter)) for name, codec in table.items()
    if entropy_coded or not name.startswith('coded'))
  return [(name, data) for name, data in results if data is not None]


def _expect(data: bytes, length: int, what: str) -> None:
  if len(data) != length:
    raise ArtifactError(f'{what} take {len(data)} bytes where {length} are due.')


# Positions: `gaps` are the numbers of zeros before each stored word.


def _bitmap_encode(gaps: np.ndarray, size: int) -> bytes:
  mask = np.zeros(size, bool)
  mask[np.cumsum(gaps + 1) - 1] = True
  return np.packbits(mask, bitorder='little').tobytes()


def _bitmap_decode(data: bytes, size: int, count: int) -> np.ndarray:
  _expect(data, packed_bytes(size, 1), 'the bits of a bitmap')
  indices = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8), bitorder='little', count=size))
  if indices.size != count:
    raise ArtifactError(f'a bitmap marks {indices.size} positions where {count} are due.')
  return indices


def _coded_bitmap_encode(gaps: np.ndarray, size: int) -> bytes:
  mask = np.zeros(size, np.uint8)
  mask[np.cumsum(gaps + 1) - 1] = 1
  return entropy.encode(mask, _density(size, gaps.size), windows=entropy.WINDOWS)


def _coded_bitmap_decode(data: bytes, size: int, count: int) -> np.ndarray:
  indices = np.flatnonzero(entropy.decode(data, size, _density(size, count)))
  if indices.size != count:
    raise ArtifactError(f'a bitmap marks {indices.size} positions where {count} are due.')
  return indices


def _density(size: int, count: int) -> np.ndarray:
  """The counts that a coded bitmap begins with: a few places at the density of the whole."""
  return 16 * (np.array([size - count, count]) + 0.5) / (size + 1)


def _gap_symbols(gaps: np.ndarray, width: int) -> np.ndarray:
  """The largest symbol passes over that many zeros, any other is the rest of a gap."""
  escape = 2**width - 1
  ends = np.cumsum(gaps // escape + 1)
  symbols = np.full(int(ends[-1]) if ends.size else 0, escape, np.uint16)
  symbols[ends - 1] = gaps % escape
  return symbols


def _gaps_encode(gaps: np.ndarray, size: int) -> bytes:
  """One byte for the width, then the symbols."""
  width = min(GAP_WIDTHS, key=lambda width: width * (gaps.size + int(np.sum(gaps // (2**width - 1)))))
  symbols = _gap_symbols(gaps, width)
  return bytes([width]) + pack(symbols if width > 8 else symbols.astype(np.uint8), width)


def _gaps_decode(data: bytes, size: int, count: int) -> np.ndarray:
  if not data or data[0] not in GAP_WIDTHS:
    raise ArtifactError('the width of the gaps is missing or out of range.')
  width, stream = data[0], data[1:]
  symbols = unpack(stream, 8 * len(stream) // width, width)
  is_value = symbols != 2**width - 1
  ends = np.flatnonzero(is_value)[:count]  # the filling of the last byte may look like more
  if ends.size != count:
    raise ArtifactError(f'the gaps tell {ends.size} positions where {count} are due.')
  used = int(ends[-1]) + 1 if count else 0
  _expect(stream, packed_bytes(used, width), 'the gaps')
  return _inside(_indices(symbols[:used], width), size)


def _indices(symbols: np.ndarray, width: int) -> np.ndarray:
  """The inverse of `_gap_symbols`, as positions."""
  is_value = symbols != 2**width - 1
  return np.cumsum(symbols.astype(np.int64) + is_value)[is_value] - 1


def _coded_gaps_encode(gaps: np.ndarray, size: int) -> bytes:
  """Five bytes for the width and the number of symbols, then the symbols, entropy-coded."""

  def coded(width: int) -> bytes:
    symbols = _gap_symbols(gaps, width)
    return GAPS_HEAD.pack(width, symbols.size) + entropy.encode(symbols, _flat(2**width))

  return min(map(coded, CODED_GAP_WIDTHS), key=len)


def _coded_gaps_decode(data: bytes, size: int, count: int) -> np.ndarray:
  if len(data) < GAPS_HEAD.size or data[0] not in CODED_GAP_WIDTHS:
    raise ArtifactError('the width of the gaps is missing or out of range.')
  width, used = GAPS_HEAD.unpack_from(data)
  if used > count + size // (2**width - 1):
    raise ArtifactError(f'the gaps have {used} symbols, more than {count} positions in {size} places need.')
  symbols = entropy.decode(data[GAPS_HEAD.size:], used, _flat(2**width))
  indices = _indices(symbols, width)
  if indices.size != count or (used and symbols[-1] == 2**width - 1):
    raise ArtifactError(f'the gaps tell {indices.size} positions where {count} are due.')
  return _inside(indices, size)


def _flat(alphabet: int) -> np.ndarray:
  """The counts that symbols of which nothing is known begin with: a half each (Krichevsky and Trofimov 1981)."""
  return np.full(alphabet, 0.5)


def _varint_encode(gaps: np.ndarray, size: int) -> bytes:
  """Gaps in groups of seven bits, least significant first; the high bit of a byte says that another follows."""
  groups = 1 + np.sum([gaps >> 7 * i > 0 for i in range(1, VARINT_GROUPS)], axis=0)
  starts = np.cumsum(groups) - groups
  data = np.zeros(int(np.sum(groups)), np.uint8)
  for i in range(VARINT_GROUPS):
    longer = groups > i
    data[starts[longer] + i] = gaps[longer] >> 7 * i & 127 | np.where(groups[longer] > i + 1, 128, 0)
  return data.tobytes()


def _varint_decode(data: bytes, size: int, count: int) -> np.ndarray:
  stream = np.frombuffer(data, np.uint8)
  ends = np.flatnonzero(stream < 128)
  if ends.size != count or (stream.size and stream[-1] >= 128):
    raise ArtifactError(f'the gaps tell {ends.size} positions where {count} are due.')
  groups = np.diff(ends, prepend=-1)
  if np.any(groups > VARINT_GROUPS):
    raise ArtifactError('a gap is longer than any array.')
  gaps = np.zeros(count, np.int64)
  for i in range(VARINT_GROUPS):
    longer = groups > i
    gaps[longer] |= (stream[(ends - groups + 1)[longer] + i] & 127).astype(np.int64) << 7 * i
  _inside(gaps, size)  # before the sum, which could overflow otherwise
  return _inside(np.cumsum(gaps + 1) - 1, size)


def _inside(indices: np.ndarray, size: int) -> np.ndarray:
  if indices.size and indices.max() >= size:
    raise ArtifactError(f'a position lies outside the {size} elements of its array.')
  return indices


# Values.


def _plain_encode(words: np.ndarray, width: int) -> bytes:
  return pack(words, width)


def _plain_decode(data: bytes, count: int, width: int) -> np.ndarray:
  _expect(data, packed_bytes(count, width), 'the values')
  return unpack(data, count, width)


def _coded_encode(words: np.ndarray, width: int) -> bytes | None:
  """The words themselves as symbols."""
  return None if width > LARGEST_ALPHABET_BITS else entropy.encode(words, _flat(2**width))


def _coded_decode(data: bytes, count: int, width: int) -> np.ndarray:
  if width > LARGEST_ALPHABET_BITS:
    raise ArtifactError(f'words of {width} bits are not entropy-coded as they are.')
  return entropy.decode(data, count, _flat(2**width))


def _codebook(words: np.ndarray, width: int) -> tuple[bytes, int, np.ndarray] | None:
  """The number of distinct words less one with these words, their number, an index for each word; None: too many."""
  if not words.size:
    return None
  book = np.unique(words[:4096])  # a cheap no for almost every float array
  while book.size <= LARGEST_CODEBOOK:
    indices = np.minimum(np.searchsorted(book, words), book.size - 1)
    others = words[book[indices] != words]
    if not others.size:
      break
    book = np.union1d(book, others[:4096])
  else:
    return None
  return bytes([book.size - 1]) + pack(book, width), book.size, indices.astype(np.uint8)


def _split_codebook(data: bytes, width: int) -> tuple[np.ndarray, bytes]:
  """The entries of a codebook and the bytes after it."""
  if not data:
    raise ArtifactError('the codebook is missing.')
  entries = data[0] + 1
  end = 1 + packed_bytes(entries, width)
  if len(data) < end:
    raise ArtifactError(f'a codebook of {entries} entries takes {end} bytes, {len(data)} are there.')
  return unpack(data[1:end], entries, width), data[end:]


def _codebook_encode(words: np.ndarray, width: int) -> bytes | None:
  """A codebook, then an index for each word in as few bits as it needs."""
  found = _codebook(words, width)
  if found is None:
    return None
  book, entries, indices = found
  index_width = (entries - 1).bit_length()
  return book + (pack(indices, index_width) if index_width else b'')


def _codebook_decode(data: bytes, count: int, width: int) -> np.ndarray:
  book, rest = _split_codebook(data, width)
  entries = book.size
  index_width = (entries - 1).bit_length()
  _expect(rest, packed_bytes(count, index_width), 'the indices into a codebook')
  if not index_width:
    return np.full(count, book[0])
  indices = unpack(rest, count, index_width)
  if indices.size and indices.max() >= entries:
    raise ArtifactError(f'an index lies outside the {entries} entries of its codebook.')
  return book[indices]


def _coded_codebook_encode(words: np.ndarray, width: int) -> bytes | None:
  """A codebook, then the indices, entropy-coded."""
  found = _codebook(words, width)
  if found is None or found[1] == 1:
    return None
  book, entries, indices = found
  return book + entropy.encode(indices, _flat(entries))


def _coded_codebook_decode(data: bytes, count: int, width: int) -> np.ndarray:
  book, rest = _split_codebook(data, width)
  if book.size == 1:
    raise ArtifactError('a codebook of one entry has no coded indices.')
  return book[entropy.decode(rest, count, _flat(book.size))]


class Codec(NamedTuple):
  """One way to write words.

  Attributes:
    encode: (gaps, size of the array) or (words, bits per word) -> bytes; None: not these words.
    decode: (bytes, size of the array, count) -> increasing indices, or (bytes, count, bits per word) -> words;
      raises ArtifactError unless the bytes are exactly what it needs.
  """
  encode: Callable[[np.ndarray, int], bytes | None]
  decode: Callable[[bytes, int, int], np.ndarray]


POSITIONS = {
  'bitmap': Codec(_bitmap_encode, _bitmap_decode),  # a bit an element
  'gaps': Codec(_gaps_encode, _gaps_decode),  # distances of fixed width with an escape, as Han et al., arXiv:1510.00149
  'varint': Codec(_varint_encode, _varint_decode),  # distances of one to five bytes: where whole channels are gone
  'coded bitmap': Codec(_coded_bitmap_encode, _coded_bitmap_decode),  # at its entropy
  'coded gaps': Codec(_coded_gaps_encode, _coded_gaps_decode),  # likewise: where distances are not those of chance
}
VALUES = {
  'plain': Codec(_plain_encode, _plain_decode),  # the words as they are: floats, integer codes at their bits
  'codebook': Codec(_codebook_encode, _codebook_decode),  # few distinct words: shared, binary and ternary weights, bool
  'coded': Codec(_coded_encode, _coded_decode),  # integer codes at their entropy
  'coded codebook': Codec(_coded_codebook_encode, _coded_codebook_decode),  # few distinct words at theirs
}
