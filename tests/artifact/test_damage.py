"""A file that is damaged, also by someone who recomputes the checksum, gives ArtifactError and nothing else."""
import hashlib
import json
import os
import resource
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from lightjax import artifact
from lightjax.artifact import container
from lightjax.core.encoded import Encoded, Integers

MANY = 3000


@pytest.fixture(scope='module')
def data(network):
  return artifact.to_bytes(**network)


def sealed(content, length=None):
  """The content with its length and its checksum made right."""
  content = content[:6] + struct.pack('<Q', len(content) + 32 if length is None else length) + content[14:]
  return content + hashlib.sha256(content).digest()


def with_header(data, change, compress=zlib.compress, payload=None):
  """The file with another header text; lengths and checksum are right."""
  header, old_payload = container.unwrap(data)
  text = change(header)
  text = text if isinstance(text, bytes) else json.dumps(text, separators=(',', ':')).encode()
  compressed = compress(text)
  prefix = container.PREFIX.pack(container.MAGIC, container.VERSION, 0, len(text), len(compressed))
  return sealed(prefix + compressed + (old_payload if payload is None else payload))


def mutated(data, rng):
  """Flip, cut, extend, splice or repeat some bytes."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    start, end = sorted(rng.integers(0, len(data) + 1, 2))
    kind = rng.integers(6)
    if kind <= 1 and data:
      data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif kind == 2:
      del data[start:end]
    elif kind == 3:
      data[start:start] = rng.bytes(rng.integers(1, 40))
    elif kind == 4:
      data[start:start] = data[end:end + 60]
    else:
      data[start:start + 8] = rng.choice([b'\xff' * 8, b'\0' * 8, b'\x7f' + b'\xff' * 7])
  return bytes(data)


def refused_or_loaded(data):
  """Whether it is refused; any other exception, or memory out of proportion, fails the test."""
  try:
    artifact.from_bytes(data)
  except artifact.ArtifactError as error:
    assert str(error).endswith('.') and len(str(error)) < 300
    return True
  return False


def test_any_change_of_a_file_is_noticed(data):
  rng = np.random.default_rng(0)
  for _ in range(MANY):
    changed = mutated(data, rng)
    assert changed == data or refused_or_loaded(changed)


def test_every_bit_and_every_length_is_covered(data):
  for i in range(len(data)):
    assert refused_or_loaded(data[:i])
    assert refused_or_loaded(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1:])


def test_damage_under_a_right_checksum_is_refused_or_harmless(data):
  rng = np.random.default_rng(1)
  refused = sum(refused_or_loaded(sealed(mutated(data[:-32], rng).ljust(22))) for _ in range(MANY))
  assert MANY // 2 < refused < MANY


def test_a_damaged_header_text_is_refused_or_harmless(data):
  rng = np.random.default_rng(2)
  refused = sum(
    refused_or_loaded(with_header(data, lambda header: mutated(json.dumps(header).encode(), rng))) for _ in range(MANY))
  assert refused > MANY // 2


@pytest.fixture(scope='module')
def pruned_and_shared():
  """Coded bitmaps, gaps, codebooks and codes: what an attacker of the entropy coder would send."""
  rng = np.random.default_rng(3)
  book = rng.normal(size=16).astype(np.float32)
  together = np.zeros((40, 30), np.float32)
  together[:, rng.integers(0, 30, 4)] = rng.choice(book, (40, 4))
  scattered = np.where(rng.random((50, 40)) < 0.1, book[rng.geometric(0.4, (50, 40)) % 16], np.float32(0))
  codes = np.clip(np.round(rng.normal(size=(30, 30))), -4, 3).astype(np.int8)
  data = artifact.to_bytes(
    network={'name': 'small'},
    variables={'params': {'together': together, 'scattered': scattered, 'codes': codes.astype(np.float32)}},
    encoded=Encoded({'codes': Integers(codes, np.ones((1, 1), np.float32), 3)}, {}))
  text = json.dumps(container.unwrap(data)[0])
  assert [name for name in ('coded bitmap', 'coded gaps', 'coded codebook', 'coded') if f'"{name}"' not in text] == []
  return data


@pytest.mark.parametrize('count', [300, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_damage_of_what_is_entropy_coded_is_refused_or_harmless(pruned_and_shared, count):
  """Bytes, header text and payload in turn, each under a right checksum: an answer within a second and 200 MiB."""
  data, rng = pruned_and_shared, np.random.default_rng(4)
  payload = container.unwrap(data)[1]
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  refused, slowest = 0, 0.0
  for i in range(count):
    changed = (
      sealed(mutated(data[:-32], rng).ljust(22)),
      with_header(data, lambda header: mutated(json.dumps(header).encode(), rng)),
      with_header(data, lambda header: header, payload=mutated(payload, rng)))[i % 3]
    start = time.process_time()
    refused += refused_or_loaded(changed)
    slowest = max(slowest, time.process_time() - start)
  assert count // 2 < refused and slowest < 1.0
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def spots(node, place=()):
  """Every place of a JSON tree."""
  yield place
  for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
    yield from spots(node[key], (*place, key))


STRANGE = (
  None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 0.5,
  '', 'bitmap', 'gaps', 'varint', 'codebook', 'plain', 'dense', 'coded', 'coded bitmap',
  'coded gaps', 'coded codebook', 'int8', 'float64', 'bool',
  [], [0], [2**62, 0], [10**9, 10**9], [1] * 80, {}, {'': 1}, {'': []}, {'': ['float32', [2**40]]},
  {'': ['float32', [2**24], 'varint', 'plain', 0, 0, 0]}, {'': ['float32', [2**22], 'coded bitmap', 'plain', 0, 5, 0]},
  {'': ['float32', [2**24], 'coded gaps', 'plain', 0, 5, 0]}, {'': ['float32', [9], 'dense', 'codebook', 9, 0, 5]},
)


def test_every_value_of_the_header_may_be_strange(data):
  header = container.unwrap(data)[0]
  refused = checked = 0
  for place in list(spots(header)):
    for strange in STRANGE:
      def change(header, place=place, strange=strange):
        if not place:
          return strange
        node = header
        for key in place[:-1]:
          node = node[key]
        node[place[-1]] = strange
        return header

      refused += refused_or_loaded(with_header(data, change))
      checked += 1
  assert refused > checked // 2 > 1000


@pytest.mark.parametrize('part', ['network', 'activations', 'variables', 'meta'])
@pytest.mark.parametrize('depth', [300, 900, 2000, 50_000])
def test_nesting_of_any_depth_ends_in_an_answer(data, part, depth):
  def change(header):
    parts = {key: b'{}' for key in header} | {part: b'{"a":' * depth + b'{}' + b'}' * depth}
    return b'{' + b','.join(b'"%s":%s' % (key.encode(), text) for key, text in parts.items()) + b'}'

  refused = refused_or_loaded(with_header(data, change, payload=b''))
  if depth == 300 or part in ('activations', 'variables'):  # how deep plain JSON may be depends on Python
    assert refused == (depth > 300)


def test_memory_is_bounded_by_the_length_of_the_file(data):
  def claims(shape, dtype='float32', stored=0):
    return lambda header: {**header, 'variables': {'a': {'': [dtype, shape, 'varint', 'plain', stored, 0, 0]}}}

  bombs = [
    with_header(data, claims([10**6, 10**6]), payload=b''),
    with_header(data, claims([2**30, 0, 2**30]), payload=b''),
    with_header(data, lambda header: {**header, 'variables': {
      f'a{i}': {'': ['float32', [2**22], 'varint', 'plain', 0, 0, 0]} for i in range(1000)}}, payload=b''),
    with_header(data, lambda header: {**header, 'variables': {'a': {'': [
      'float32', [2**40], 'dense', 'codebook', 2**40, 0, 5]}}}, payload=b'\0' * 5),
    with_header(data, lambda header: {**header, 'variables': {'a': {'': [
      'bool', [2**26], 'coded bitmap', 'plain', 9, 9, 2]}}}, payload=b'\x28' + b'\0' * 10),
    with_header(data, lambda header: {**header, 'variables': {'a': {'': [
      'float32', [2**24], 'dense', 'coded codebook', 2**24, 0, 18]}}}, payload=b'\1abcdefgh\x28' + b'\0' * 8),
    with_header(data, lambda header: b' ' * (5 * 2**20)),
    with_header(data, lambda header: b' ' * 1000, lambda text: zlib.compress(b' ' * 2**28)),
  ]
  for bomb in bombs:
    tracemalloc.start()
    assert refused_or_loaded(bomb)
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize('change, message', [
  (lambda data: b'', 'not a lightjax artifact'),
  (lambda data: b'PK\x03\x04' + data, 'not a lightjax artifact'),
  (lambda data: data[:2], 'truncated'),
  (lambda data: data[:-1], 'truncated: .* of .* bytes are there'),
  (lambda data: data + b'x', '1 bytes after its end'),
  (lambda data: data[:100] + b'\0\0\0' + data[103:], 'checksum differs'),
  (lambda data: data[:4] + b'\x09\0' + data[6:], 'version 9 is newer .* update lightjax'),
  (lambda data: data[:4] + b'\0\0' + data[6:], 'version 0 does not exist'),
  (lambda data: with_header(data, lambda header: b'[' * 100_000), 'no JSON'),
  (lambda data: with_header(data, lambda header: b'{"meta":NaN}'), 'NaN is no JSON number'),
  (lambda data: with_header(data, lambda header: {**header, 'code': 'print(1)'}), 'one that is unknown'),
  (lambda data: with_header(data, lambda header: header, payload=b''), 'bytes are due'),
  (lambda data: with_header(data, lambda header: {**header, 'variables': {}}), 'belong to no array'),
  (lambda data: with_header(data, lambda header: header, lambda text: zlib.compress(text) + b'x'), 'not as long as it'),
  (lambda data: with_header(data, lambda header: header, lambda text: b'x' * 30), 'cannot be decompressed'),
])
def test_the_message_says_what_is_wrong(tmp_path, data, change, message):
  path = tmp_path / 'network'
  path.write_bytes(change(data))
  for check in (artifact.load, artifact.verify):
    with pytest.raises(artifact.ArtifactError, match=f'^{os.fspath(path)}: .*{message}'):
      check(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    artifact.verify(tmp_path / 'missing')
