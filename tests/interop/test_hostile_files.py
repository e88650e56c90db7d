"""Files made to harm or damaged on the way: always a WeightsError, never an allocation beyond the file's length."""
import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from ml_dtypes import bfloat16

from lightjax.interop import WeightsError, read_weights

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
VALUES = np.arange(4, dtype='<f4')


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def plain(value):
  """The opcodes of a value, without the frame of a whole pickle and without its memo."""
  return pickle.dumps(value, 2)[2:-1].replace(b'q\x00', b'')


def tensor(*, offset=0, shape=(4,), strides=(1,)):
  """Opcodes that rebuild a tensor on the storage '0' of four float32."""
  storage = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu') + plain(4) + b'tQ'
  return (b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + plain(offset) + plain(shape) + plain(strides)
          + b'\x89ccollections\nOrderedDict\n)RtR')


def mapping(*items):
  return b'\x80\x02}(' + b''.join(items) + b'u.'


def legacy(pickled):
  return (MAGIC + pickle.dumps(1001, 2) + pickle.dumps({'little_endian': True}, 2) + pickled + pickle.dumps(['0'], 2)
          + struct.pack('<q', 4) + VALUES.tobytes())


def zipped(pickled, compression=zipfile.ZIP_STORED):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', pickled)
    archive.writestr('archive/data/0', VALUES.tobytes())
  return file.getvalue()


@pytest.fixture
def read(tmp_path):
  """Reads bytes as a file."""
  def read(data):
    (tmp_path / 'weights').write_bytes(data)
    return read_weights(tmp_path / 'weights')
  return read


@pytest.mark.parametrize('packed', [legacy, zipped])
def test_the_files_that_these_tests_make_are_read(read, packed):
  np.testing.assert_array_equal(read(packed(mapping(text('w') + tensor())))['w'], VALUES)
  turned = read(packed(mapping(text('w') + tensor(shape=(2, 2), strides=(1, 2)))))['w']
  np.testing.assert_array_equal(turned, VALUES.reshape(2, 2).T)


@pytest.mark.parametrize('packed', [legacy, zipped])
@pytest.mark.parametrize('call, name', [
  (b'cos\nsystem\n(' + text('true') + b'tR', 'os.system'),
  (b'cbuiltins\neval\n(' + text('1') + b'tR', 'builtins.eval'),
  (b'\x8c\x08builtins\x8c\x04exec\x93(' + text('1') + b'tR', 'builtins.exec'),
  (b'ccollections\nOrderedDict\n(](' + text('k') + b'cos\nsystem\n' + b'etR', 'os.system'),
])
def test_a_refused_global_is_named(read, packed, call, name):
  with pytest.raises(WeightsError, match=name):
    read(packed(mapping(text('w') + tensor(), text('x') + call)))


@pytest.mark.parametrize('opcodes', [
  b'(' + text('true') + b'ios\nsystem\n', b'\x82\x01', b'ctorch\nFloatStorage\n)R', b'ctorch\nFloatStorage\n)\x81',
  tensor() + b'}b', b'h\x63', b'R', b't', b'\x93',
])
def test_other_opcodes_and_calls_are_refused(read, opcodes):
  with pytest.raises(WeightsError):
    read(legacy(mapping(text('w') + tensor(), text('x') + opcodes)))


@pytest.mark.parametrize('view', [
  {'offset': 1}, {'shape': (5,)}, {'strides': (2,)}, {'shape': (2, 2), 'strides': (1, 3)},
  {'shape': (10**9,), 'strides': (0,)}, {'shape': (1,), 'strides': (2**70,)}, {'shape': (0, 2**70), 'strides': (1, 1)},
  {'shape': (0, 2**39, 2**39), 'strides': (1, 1, 1)}, {'shape': (0,) * 65, 'strides': (1,) * 65},
  {'shape': (-1,)}, {'offset': -1, 'shape': (1,)}, {'shape': (4, 1)},
])
@pytest.mark.parametrize('packed', [legacy, zipped])
def test_views_that_do_not_fit_their_storage_are_refused(read, packed, view):
  with pytest.raises(WeightsError):
    read(packed(mapping(text('w') + tensor(**view))))


@pytest.mark.parametrize('data', [
  MAGIC + pickle.dumps(10**6000, 2),
  MAGIC + b'\x80\x02)' + b'\x85' * 100_000 + b'.',
  legacy(mapping(plain(10**6000) + tensor())),
  legacy(mapping(b')' + tensor())),
  legacy(mapping(text('w') + tensor(), text('x') + b')' + b'\x85' * 100_000)),
  legacy(b'\x80\x04\x8d' + struct.pack('<Q', 2**62) + b'abc.'),
  legacy(b'\x80\x04\x8e' + struct.pack('<Q', 2**40) + b'abc.'),
  zipped(mapping(text('w') + tensor()), zipfile.ZIP_DEFLATED),
  struct.pack('<Q', 2**60) + b'{}', b'', b'PK\x03\x04', b'<html>',
])
def test_numbers_and_depths_that_no_file_needs_are_refused(read, data):
  with pytest.raises(WeightsError):
    read(data)


def test_many_references_to_one_mapping_take_no_more_memory_than_one(read):
  count = 1500
  tensors = text('t') + tensor() + b'q\x07' + b''.join(text(str(key)) + b'h\x07' for key in range(count))
  mappings = (text(f'r{key}') + b'h\x05' for key in range(count))
  data = legacy(mapping(text('a') + b'}q\x05(' + tensors + b'u', *mappings))
  tracemalloc.start()
  with pytest.raises(WeightsError, match='names no mapping'):
    read(data)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 200 * len(data)


def test_members_that_lie_over_one_another_are_refused(read):
  count, size = 50, 100_000
  own, device = text('0') + text('cpu') + plain(4), text('cpu') + plain(size // 4)
  storages = [text(f'w{key}') + tensor(shape=(1,)).replace(own, text(str(key)) + device) for key in range(count)]
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr('archive/data.pkl', mapping(*storages))
    archive.writestr('archive/data/0', bytes(size))
    first = archive.getinfo('archive/data/0')
    for key in range(1, count):
      other = zipfile.ZipInfo(f'archive/data/{key}')
      other.header_offset, other.file_size, other.compress_size, other.CRC = (
        first.header_offset, first.file_size, first.compress_size, first.CRC)
      archive.filelist.append(other)
      archive.NameToInfo[other.filename] = other
    archive._didModify = True
  with pytest.raises(WeightsError, match='claim more bytes'):
    read(file.getvalue())


@pytest.mark.parametrize('packed', [legacy, zipped])
def test_every_truncation_is_refused(read, packed):
  data = packed(mapping(text('w') + tensor()))
  for length in range(0, len(data), 2):
    with pytest.raises(WeightsError):
      read(data[:length])


@pytest.mark.parametrize('packed', [legacy, zipped])
def test_flipped_bytes_are_refused_or_read_but_end_in_no_other_error(read, packed):
  data, rng = packed(mapping(text('w') + tensor())), np.random.default_rng(0)
  refused = 0
  for _ in range(500):
    flipped = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 4)):
      flipped[place] = rng.integers(256)
    try:
      read(bytes(flipped))
    except WeightsError:
      refused += 1
  assert refused > 200


def test_bfloat16_of_safetensors_is_read_and_an_unknown_dtype_is_named(read):
  def file(dtype, payload):
    header = json.dumps({'w': {'dtype': dtype, 'shape': [2], 'data_offsets': [0, len(payload)]}}).encode()
    return struct.pack('<Q', len(header)) + header + payload

  values = np.asarray([1.5, -2.0], bfloat16)
  np.testing.assert_array_equal(read(file('BF16', values.tobytes()))['w'], values)
  with pytest.raises(WeightsError, match='F8_E4M3'):
    read(file('F8_E4M3', bytes(2)))
