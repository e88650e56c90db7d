"""Files of weights: of other libraries (written by them), damaged, and hostile."""
import collections
import io
import os
import pathlib
import pickle
import struct
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from lightjax import interop
from lightjax.interop import files

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'  # see make_fixtures.py
TORCH = ['weights_zip.pt', 'weights_legacy.pth']


def legacy(*pickles):
  """A file of the format before PyTorch 1.6 with some pickles in the place of its third, fourth and fifth."""
  return b''.join(
    each if isinstance(each, bytes) else pickle.dumps(each, 2)
    for each in (0x1950A86A20F9469CFC6C, 1001, *pickles))


def zipped(pickled, **members):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    for name, content in {'data.pkl': pickled, 'byteorder': b'little', **members}.items():
      archive.writestr(f'archive/{name}', content)
  return file.getvalue()


def read(tmp_path, data, **options):
  path = tmp_path / 'file.bin'
  path.write_bytes(data)
  return interop.read_weights(path, **options)


def opcodes(*parts):
  return b'\x80\x02' + b''.join(parts) + b'.'


def text(value):
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def number(value):
  return b'J' + struct.pack('<i', value)


def tensor(key='0', elements=4, offset=0, shape=(4,), strides=(1,)):
  """Opcodes of {'a': tensor}, as torch.save writes them."""
  def numbers(values):
    return b'(' + b''.join(map(number, values)) + b't'

  storage = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text(key) + text('cpu') + number(elements) + b'tQ'
  arguments = b'(' + storage + number(offset) + numbers(shape) + numbers(strides) + b'\x89' + b'}' + b't'
  return opcodes(b'}', text('a'), b'ctorch._utils\n_rebuild_tensor_v2\n', arguments, b'R', b's')


@pytest.mark.parametrize('name', TORCH)
def test_files_of_torch_save_hold_what_was_saved(name):
  base = np.arange(24, dtype=np.float32)
  wanted = {
    'plain': base.reshape(2, 3, 4), 'shared': base[20:], 'transposed': base.reshape(4, 6).T,
    'channels_last': np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2), 'parameter': np.float32([0.5, -1.5]),
    'double': np.float64([1 / 3]), 'half': np.float16([0.25, -2.0]),
    'bfloat16': np.array([1.5, -3.0], ml_dtypes.bfloat16), 'boolean': np.array([True, False]),
    'empty': np.zeros((0, 3), np.float32), 'num_batches_tracked': np.array(7),
  }
  weights = interop.read_weights(FIXTURES / name)
  assert list(weights) == list(wanted)
  for key, value in wanted.items():
    assert weights[key].dtype == value.dtype and weights[key].shape == value.shape
    assert np.array_equal(weights[key], value)


@pytest.mark.parametrize('name', ['checkpoint_zip.pt', 'checkpoint_legacy.pth'])
def test_an_entry_of_a_checkpoint_is_chosen_by_name(name):
  assert len(interop.read_weights(FIXTURES / name, entry='state_dict')) == 11
  assert interop.read_weights(FIXTURES / name, entry='ema')['plain'].tolist() == [-float(value) for value in range(24)]
  with pytest.raises(interop.WeightsError, match="holds 'state_dict', 'ema'"):
    interop.read_weights(FIXTURES / name)


def test_safetensors_hdf5_and_npz(tmp_path):
  import h5py
  import safetensors.numpy
  arrays = {'b.weight': np.arange(6, dtype=np.float32).reshape(2, 3), 'a.bias': np.float16([1, 2])}
  safetensors.numpy.save_file({**arrays, 'c': np.ones(2, ml_dtypes.bfloat16)}, tmp_path / 'w.safetensors')
  np.savez(tmp_path / 'w.npz', **arrays)
  with h5py.File(tmp_path / 'w.h5', 'w') as file:
    for name, value in arrays.items():
      file[f'layer/{name}:0'] = value
  for suffix, prefix, ending in (('safetensors', '', ''), ('npz', '', ''), ('h5', 'layer/', ':0')):
    weights = interop.read_weights(tmp_path / f'w.{suffix}')
    for name, value in arrays.items():
      found = weights[f'{prefix}{name}{ending}']
      assert found.dtype == value.dtype and np.array_equal(found, value)
  assert interop.read_weights(tmp_path / 'w.safetensors')['c'].dtype == ml_dtypes.bfloat16


def test_what_a_file_is_does_not_depend_on_its_name(tmp_path):
  for index, name in enumerate(TORCH):
    (tmp_path / f'{index}.h5').write_bytes((FIXTURES / name).read_bytes())
    assert 'plain' in interop.read_weights(tmp_path / f'{index}.h5')


class Calls:
  """Pickles as a call of some function."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def hostile(name, marker):
  command = f'touch {marker}'
  return {
    'os.system': lambda: Calls(os.system, command),
    'eval': lambda: Calls(eval, f"open({str(marker)!r}, 'w').close()"),
    'chain': lambda: Calls(map, Calls(getattr, Calls(__import__, 'os'), 'system'), [command]),
    'nested': lambda: {'state_dict': {'weights': [1, collections.OrderedDict(deep=[Calls(os.system, command)])]}},
    'key': lambda: {'state_dict': {Calls(os.system, command): 1}},
    'class': lambda: pathlib.PurePosixPath('a'),
    'numpy': lambda: np.ones(3),
  }[name]()


def wrapped(pickled, how):
  return zipped(pickled) if how == 'zip' else legacy({}, pickled, [])


@pytest.mark.parametrize('how', ['zip', 'legacy'])
@pytest.mark.parametrize('name', ['os.system', 'eval', 'chain', 'nested', 'key', 'class', 'numpy'])
def test_nothing_of_a_file_is_called(tmp_path, name, how):
  marker = tmp_path / 'marker'
  for protocol in range(2, 6):
    with pytest.raises(interop.WeightsError, match=r'file\.bin: the pickle (asks for|has the opcode)'):
      read(tmp_path, wrapped(pickle.dumps(hostile(name, marker), protocol), how))
  assert not marker.exists()


def test_pickle_itself_would_have_called_it(tmp_path):
  marker = tmp_path / 'marker'
  pickle.loads(pickle.dumps(hostile('eval', marker)))
  assert marker.exists()


@pytest.mark.parametrize('data,message', [
  (opcodes(b'cposix\nsystem\n', b'(', text('true'), b'tR'), r'asks for posix\.system'),
  (b'\x80\x04\x8c\x08builtins\x8c\x04eval\x93.', r'asks for builtins\.eval'),
  (opcodes(b'ccollections\nOrderedDict\n', b')R', b')R'), 'calls a OrderedDict'),
  (opcodes(b'ctorch._utils\n_rebuild_tensor_v2\n', b'}', b'b'), 'sets the state of a Function'),
  (opcodes(b'(iposix\nsystem\n'), 'opcode INST'),
  (opcodes(b'ccollections\nOrderedDict\n', b')\x81'), 'opcode NEWOBJ'),
  (opcodes(b'\x82\x01'), 'opcode EXT1'),
  (opcodes(b'}', b'(' * 100_000, b't' * 100_000, b'Ns'), 'a tuple as a key'),
  (opcodes(b'N', number(1), b'a'), 'appends to a NoneType'),
  (opcodes(b'N', text('a'), number(1), b's'), 'sets an item of a NoneType'),
  (opcodes(b'a'), 'cannot be read'),
  (opcodes(b'h\x07'), 'cannot be read'),
  (opcodes(text('storage'), b'Q'), 'refers to something that is no storage'),
  (b'\x80\x02N', 'cannot be read|has no end'),
  (b'\x80\x04\x8e' + struct.pack('<Q', 1 << 60) + b'.', 'cannot be read'),
  (b'\x80\x04\x8b' + struct.pack('<i', 2**31 - 1) + b'.', 'cannot be read'),
  (opcodes(b'Nr\xff\xff\xff\xff'), 'holds a NoneType'),  # the largest place in the memo
  (opcodes(b'}', text('a'), number(1), b's'), 'holds none'),
], ids=lambda value: value if isinstance(value, str) else '')
@pytest.mark.parametrize('how', ['zip', 'legacy'])
def test_hand_made_pickles_are_refused(tmp_path, data, message, how):
  with pytest.raises(interop.WeightsError, match=message):
    read(tmp_path, wrapped(data, how))


def test_a_hand_made_tensor_is_read_as_torch_would(tmp_path):
  stored = np.arange(4, dtype='<f4').tobytes()
  pickled = tensor(offset=1, shape=(3,))
  for data in (zipped(pickled, **{'data/0': stored}), legacy({}, pickled, ['0'], struct.pack('<q', 4) + stored)):
    assert read(tmp_path, data)['a'].tolist() == [1, 2, 3]


@pytest.mark.parametrize('bad,message', [
  ({'shape': (5,)}, 'does not fit a storage of 4'),
  ({'offset': 1}, 'does not fit'),
  ({'offset': -1}, 'sound shape'),
  ({'shape': (-4,)}, 'sound shape'),
  ({'strides': (-1,)}, 'sound shape'),
  ({'strides': (2,)}, 'does not fit'),
  ({'shape': (2, 2)}, 'sound shape'),
  ({'shape': (2**31 - 1,), 'strides': (0,)}, 'does not fit'),  # four numbers that would fill the memory
  ({'shape': (1,) * 40, 'strides': (1,) * 40}, 'without a sound shape'),
  ({'elements': 2**31 - 1}, 'has 16 bytes, not'),
  ({'key': '1'}, 'has 0 bytes, not'),
])
@pytest.mark.parametrize('how', ['zip', 'legacy'])
def test_tensors_stay_inside_their_storage(tmp_path, bad, message, how):
  stored = np.arange(4, dtype='<f4').tobytes()
  if how == 'zip':
    data = zipped(tensor(**bad), **{'data/0': stored})
  else:
    data = legacy({}, tensor(**bad), [bad.get('key', '0') and '0'], struct.pack('<q', 4) + stored)
  with pytest.raises(interop.WeightsError, match=message):
    read(tmp_path, data)


def bomb():
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a.npy', bytes(10**6))
  return file.getvalue()


def compressed():
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', os.urandom(100) + bytes(20))
  return file.getvalue() + bytes(100)


def objects():
  file = io.BytesIO()
  np.savez(file, a=np.array([{}], object))
  return file.getvalue()


@pytest.mark.parametrize('data,message', [
  (b'', 'neither'), (b'hello, world', 'neither'), (b'\x00' * 8 + b'{', 'safetensors file cannot be read'),
  (struct.pack('<Q', 1 << 60) + b'{}', 'safetensors file cannot be read'),
  (b'\x89HDF\r\n\x1a\n', 'HDF5 file cannot be read'), (b'PK\x03\x04', 'zip file cannot be read'),
  (bomb(), 'claim to unpack to'), (objects(), 'npz file cannot be read'),
  (zipped(b'')[:-30], 'zip file cannot be read'),
  (zipped(opcodes(b'}'), byteorder=b'big'), 'big-endian'),
  (legacy({}, {}, [])[:-1], 'cannot be read'), (legacy({}, {}, ['0']), 'truncated'),
  (pickle.dumps([1, 2]), 'no file that torch.save wrote'), (legacy({}, {}, {}), 'list of storages is none'),
  (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1000, 2), 'another version than 1001'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_damaged_files_are_named(tmp_path, data, message):
  with pytest.raises(interop.WeightsError, match=f'file.bin: .*{message}'):
    read(tmp_path, data)


def test_references_to_other_files_are_refused(tmp_path):
  import h5py
  (tmp_path / 'secret').write_bytes(bytes(16))
  with h5py.File(tmp_path / 'w.h5', 'w') as file:
    file.create_dataset('a', (4,), 'f4', external=[(str(tmp_path / 'secret'), 0, 16)])
  with pytest.raises(interop.WeightsError, match='a refers to another file'):
    interop.read_weights(tmp_path / 'w.h5')


@pytest.mark.parametrize('name', TORCH)
def test_no_damage_goes_beyond_one_kind_of_error(name):
  data = (FIXTURES / name).read_bytes()
  rng = np.random.default_rng(0)
  cut = [data[:length] for length in range(0, len(data), 29)]
  flipped = [data[:at] + bytes([rng.integers(256)]) + data[at + 1:] for at in range(0, len(data), 13)]
  refused = 0
  for each in cut + flipped:
    try:
      files.read_bytes(each)
    except interop.WeightsError:
      refused += 1
  assert refused >= len(cut)


@pytest.mark.parametrize('module,data', [
  ('safetensors', struct.pack('<Q', 2) + b'{}'), ('h5py', b'\x89HDF\r\n\x1a\n')])
def test_a_missing_package_is_named_with_the_command(tmp_path, monkeypatch, module, data):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightjax\[interop\]'"):
    read(tmp_path, data)
