"""The outer shell of an artifact: magic, version, lengths, a compressed JSON header, the payload and a checksum.

    offset  bytes  content (little-endian)
    0       4      b'LJAX'
    4       2      format version
    6       8      length of the whole file
    14      4      length of the header's JSON
    18      4      length of the header's JSON, compressed (zlib)
    22      ...    the compressed header, then the payload: the sections in the order of the header's arrays
    -32     32     SHA-256 of everything before it

No date, host name or path is stored: the same content gives the same bytes.
"""
from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any, NoReturn

MAGIC = b'LJAX'
VERSION = 1
PREFIX = struct.Struct('<4sHQII')
DIGEST_BYTES = hashlib.sha256().digest_size
# Parsed JSON takes up to about twenty times its text in memory; ten thousand arrays need less than one MiB of text.
LARGEST_HEADER_BYTES = 4 * 2**20


class ArtifactError(ValueError):
  """A file that is no intact artifact; the message is one sentence that says what is wrong with it."""


def wrap(header: Any, payload: bytes) -> bytes:
  """The bytes of a file.

  Args:
    header: plain JSON data.
    payload: the sections that the header describes, joined.
  Returns:
    The whole file; equal arguments give equal bytes.
  Raises:
    ValueError: the header is too large to be read again.
  """
  text = json.dumps(header, separators=(',', ':'), sort_keys=True, allow_nan=False).encode()
  if len(text) > LARGEST_HEADER_BYTES:
    raise ValueError(
      f'the header takes {len(text)} bytes of JSON, at most {LARGEST_HEADER_BYTES} are allowed; '
      'keep large data out of network, meta and activations.'
    )
  compressed = zlib.compress(text, 9)
  length = PREFIX.size + len(compressed) + len(payload) + DIGEST_BYTES
  content = PREFIX.pack(MAGIC, VERSION, length, len(text), len(compressed)) + compressed + payload
  return content + hashlib.sha256(content).digest()


def unwrap(data: bytes) -> tuple[Any, bytes]:
  """The header and the payload of a file, after every check that needs no knowledge of the header's content.

  Args:
    data: the whole file.
  Returns:
    The header as JSON data, the payload.
  Raises:
    ArtifactError: no artifact, a newer version, truncated, extended, or damaged.
  """
  if data[:len(MAGIC)] != MAGIC[:len(data)] or not data:
    raise ArtifactError('this is not a lightjax artifact.')
  if len(data) < PREFIX.size + DIGEST_BYTES:
    raise ArtifactError(f'the file is truncated: {len(data)} bytes are less than the smallest artifact.')
  _, version, length, text_length, compressed_length = PREFIX.unpack_from(data)
  if version > VERSION:
    raise ArtifactError(f'format version {version} is newer than {VERSION}, the newest known here; update lightjax.')
  if version < 1:
    raise ArtifactError(f'format version {version} does not exist.')
  if len(data) < length:
    raise ArtifactError(f'the file is truncated: {len(data)} of {length} bytes are there.')
  if len(data) > length:
    raise ArtifactError(f'the file has {len(data) - length} bytes after its end.')
  content, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
  if hashlib.sha256(content).digest() != digest:
    raise ArtifactError('the checksum differs: the content was changed after the file was written.')
  payload_start = PREFIX.size + compressed_length
  if payload_start > len(content):
    raise ArtifactError(f'the header claims {compressed_length} bytes, more than the file holds.')
  return _parse(_decompress(content[PREFIX.size:payload_start], text_length)), content[payload_start:]


def _decompress(compressed: bytes, length: int) -> bytes:
  """Inflate at most `length` bytes, so that a small file cannot ask for a large memory."""
  if length > LARGEST_HEADER_BYTES:
    raise ArtifactError(f'the header claims {length} bytes of JSON, at most {LARGEST_HEADER_BYTES} are allowed.')
  stream = zlib.decompressobj()
  try:
    text = stream.decompress(compressed, length + 1)
  except zlib.error as error:
    raise ArtifactError(f'the header cannot be decompressed: {error}.') from None
  if len(text) != length or not stream.eof or stream.unused_data:
    raise ArtifactError('the header is not as long as it claims.')
  return text


def _parse(text: bytes) -> Any:
  try:
    return json.loads(text, parse_constant=_refuse_constant)
  except (ValueError, RecursionError) as error:  # RecursionError: JSON nested a thousand levels deep
    raise ArtifactError(f'the header is no JSON that lightjax writes: {error}.') from None


def _refuse_constant(name: str) -> NoReturn:
  raise ValueError(f'{name} is no JSON number')
