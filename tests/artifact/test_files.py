"""What is saved is what is loaded, bit for bit; a failed save leaves nothing behind."""
import errno
import os
import time

import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax import artifact
from lightjax.core.encoded import Encoded, Integers

DTYPES = (
  bool, 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', '>f4', '>i2',
  ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
)


@st.composite
def any_array(draw):
  """Any bits (NaN, infinite, denormal, -0.0) of any dtype and shape, none to all of them zero."""
  dtype = np.dtype(draw(st.sampled_from(DTYPES)))
  shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))
  rng = np.random.default_rng(draw(st.integers(0, 2**32)))
  size = int(np.prod(shape))
  bits = rng.integers(0, 2 if dtype.kind == 'b' else 256, (size, dtype.itemsize), dtype=np.uint8)
  if draw(st.booleans()):
    bits = bits[rng.integers(0, 3, size) % max(size, 1)]  # three distinct values at most
  bits = bits * (rng.random((size, 1)) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])))
  return np.ascontiguousarray(bits, np.uint8).reshape(-1).view(dtype).reshape(shape)


def bits_of(array):
  """Dtype, shape and bytes, with -0.0 as 0.0."""
  array = np.asarray(array)
  native = array.astype(array.dtype.newbyteorder('='))
  if jnp.issubdtype(native.dtype, jnp.floating):
    native = np.where(native == 0, np.zeros((), native.dtype), native)
  return native.dtype, native.shape, native.tobytes()


def stored(variables, **rest):
  return artifact.from_bytes(artifact.to_bytes(network=None, variables=variables, **rest))


@given(any_array())
@settings(deadline=None)
def test_an_array_comes_back_bit_for_bit(array):
  loaded = stored({'params': {'layer': {'kernel': array}}}).variables['params']['layer']['kernel']
  assert bits_of(loaded) == bits_of(array)


def test_negative_zero_is_zero_and_costs_nothing():
  """weight * mask makes -0.0 of each negative weight that is pruned."""
  weight = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
  mask = np.arange(10_000) % 10 == 0
  product, chosen = ({'kernel': each} for each in (weight * mask, np.where(mask, weight, np.float32(0))))
  assert np.signbit(product['kernel']).sum() > 4000
  assert artifact.to_bytes(network=None, variables=product) == artifact.to_bytes(network=None, variables=chosen)
  loaded = stored({'kernel': np.array([-0.0, np.nan, -np.nan, 1.0], np.float32)}).variables['kernel']
  assert loaded.tobytes() == np.array([0.0, np.nan, -np.nan, 1.0], np.float32).tobytes()


@given(
  st.integers(2, 8), st.sampled_from([0.0, 0.1, 0.6, 1.0]), arrays.array_shapes(min_dims=0, max_dims=4, max_side=9),
  st.sampled_from(['scalar', 'tensor', 'channel']), st.integers(0, 2**32))
@settings(deadline=None)
def test_integers_decode_to_exactly_codes_times_scale(bits, density, shape, granularity, seed):
  rng = np.random.default_rng(seed)
  codes = (rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape) * (rng.random(shape) < density)).astype(np.int8)
  ones = (1,) * len(shape)
  scale_shape = {'scalar': (), 'tensor': ones, 'channel': ones[1:] + shape[-1:]}[granularity]
  integers = Integers(jnp.asarray(codes), jnp.asarray(rng.lognormal(size=scale_shape), jnp.float32), bits)
  loaded = stored({'params': {'fc': {'kernel': integers.decode()}}}, encoded=Encoded({'fc/kernel': integers}, {}))
  assert bits_of(loaded.variables['params']['fc']['kernel']) == bits_of(integers.decode())
  back = loaded.encoded.parameters['fc/kernel']
  assert (back.bits, bits_of(back.codes), bits_of(back.scale)) == (bits, bits_of(codes), bits_of(integers.scale))


@given(st.integers(2, 8), st.sampled_from([(1, 1), (2, 1), (2, 6), (4, 3)]), st.booleans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_zero_points_and_scales_of_blocks_come_back_and_decode_as_numpy_does(bits, blocks, is_half, seed):
  rng = np.random.default_rng(seed)
  codes = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (8, 6)).astype(np.int8)
  scale = rng.lognormal(size=blocks).astype(np.float32)
  zero_point = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), blocks).astype(np.float32) + np.float32(is_half / 2)
  wide = [np.kron(each, np.ones((8 // blocks[0], 6 // blocks[1]), np.float32)) for each in (scale, zero_point)]
  expected = (codes.astype(np.float32) - wide[1]) * wide[0]
  integers = Integers(jnp.asarray(codes), jnp.asarray(scale), bits, jnp.asarray(zero_point))
  assert bits_of(integers.decode()) == bits_of(expected)
  loaded = stored({'k': expected}, encoded=Encoded({'k': integers}, {}))
  back = loaded.encoded.parameters['k']
  assert [bits_of(each) for each in (loaded.variables['k'], back.codes, back.scale, back.zero_point)] == [
    bits_of(each) for each in (expected, codes, scale, zero_point)]
  (size,) = loaded.sizes.arrays
  assert size.scales <= 4 * 2 * scale.size and size.positions + size.values + size.rest <= -(-48 * bits // 8)


@pytest.mark.parametrize('dtype', [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_floats_of_eight_bits_come_back_and_take_a_byte_each(dtype):
  codes = np.random.default_rng(0).normal(size=(40, 8)).astype(dtype)
  scale = np.random.default_rng(1).lognormal(size=(1, 8)).astype(np.float32)
  integers = Integers(jnp.asarray(codes), jnp.asarray(scale), 8)
  loaded = stored({'k': integers.decode()}, encoded=Encoded({'k': integers}, {}))
  back = loaded.encoded.parameters['k']
  assert back.codes.dtype == dtype and bits_of(back.codes) == bits_of(codes) and back.zero_point is None
  np.testing.assert_array_equal(loaded.variables['k'], codes.astype(np.float32) * scale)
  (size,) = loaded.sizes.arrays
  assert size.total - size.scales <= codes.size


def test_a_whole_network_comes_back(tmp_path, network):
  sizes = artifact.save(tmp_path / 'network.ljx', **network)
  loaded = artifact.load(tmp_path / 'network.ljx')
  assert jax.tree.structure(loaded.variables) == jax.tree.structure(network['variables'])
  assert jax.tree.map(bits_of, loaded.variables) == jax.tree.map(bits_of, network['variables'])
  assert (loaded.network, loaded.meta) == (network['network'], network['meta'])
  (quantizer,) = loaded.encoded.activations['fc']
  assert (quantizer['zero'], quantizer['signed'], quantizer['scale']) == (3, True, np.float32(0.1))
  assert bits_of(quantizer['levels']) == bits_of(np.arange(4, dtype=np.int8))
  assert loaded.sizes == sizes
  assert artifact.verify(tmp_path / 'network.ljx') is None


def test_saving_twice_gives_the_same_bytes_whatever_the_order_of_the_dicts(tmp_path, network):
  def reverse(tree):
    return {key: reverse(tree[key]) for key in reversed(tree)} if isinstance(tree, dict) else tree

  for name, variables in (('a', network['variables']), ('b', reverse(network['variables']))):
    artifact.save(tmp_path / name, **{**network, 'variables': variables})
  stored_again = artifact.load(tmp_path / 'a')
  artifact.save(tmp_path / 'c', network=stored_again.network, variables=stored_again.variables,
                encoded=stored_again.encoded, meta=stored_again.meta)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes() == (tmp_path / 'c').read_bytes()


@pytest.mark.parametrize('variables', [
  {}, {'params': {}}, {'fc': {}}, {'scale': np.float32(2)}, {'params': {'a': {'b': {'c': {'d': np.zeros((0, 5))}}}}},
  {'batch_stats': {'x': np.ones(3)}},
])
def test_trees_of_any_shape_come_back(variables):
  loaded = stored(variables).variables
  assert jax.tree.structure(loaded) == jax.tree.structure(variables)
  assert jax.tree.map(bits_of, loaded) == jax.tree.map(bits_of, variables)


def test_loaded_arrays_are_the_callers_own(network):
  loaded = artifact.from_bytes(artifact.to_bytes(**network))
  for leaf in jax.tree.leaves(loaded.variables):
    leaf[...] = 0


def test_sizes_add_up_and_are_the_file(tmp_path, network):
  sizes = artifact.save(tmp_path / 'network', **network)
  assert sizes.total == os.path.getsize(tmp_path / 'network')
  parts = sum(sizes.part(name) for name in artifact.sizes.PARTS)
  assert sizes.header + parts == sizes.total
  by_path = {array.path: array for array in sizes.arrays}
  assert len(by_path) == len(sizes.arrays) == 10
  assert by_path['conv/kernel'].scales == 4 * 8
  assert 0 < by_path['conv/kernel'].values <= 4 * 288 // 8
  assert by_path['conv/bias'] == artifact.ArraySize('conv/bias', rest=2 * 8)
  assert by_path['fc/kernel'].values == 4 * np.count_nonzero(network['variables']['params']['fc']['kernel'])
  assert by_path['batch_stats/norm/mean'].rest == 4 * 8
  assert by_path['activations/fc/0/levels'].rest == 4
  lines = str(sizes).splitlines()
  assert len(lines) == 1 + 10 + 2
  assert lines[-1].split() == ['file', *(str(sizes.part(name)) for name in artifact.sizes.PARTS),
                               str(sizes.total)]


def test_the_header_of_a_large_network_is_small():
  """52 convs with norms, 260 arrays: under 8 bytes of header each."""
  params = {f'block{i}': {'conv': {'kernel': np.ones((3, 3, 1, i + 8), np.float32)},
                          'norm': {'scale': np.ones(i + 8, np.float32), 'bias': np.ones(i + 8, np.float32)}}
            for i in range(52)}
  stats = {name: {'mean': np.ones(8, np.float32), 'var': np.ones(8, np.float32)} for name in params}
  assert stored({'params': params, 'batch_stats': stats}).sizes.header < 8 * 260


@pytest.mark.parametrize('density, bits', [(1.0, 32), (0.1, 32), (0.1, 8), (1.0, 4)])
def test_three_and_a_half_million_parameters_take_seconds(density, bits):
  rng = np.random.default_rng(0)
  shape = (3_500, 1000)
  kernel = rng.normal(size=shape).astype(np.float32) * (rng.random(shape) < density)
  encoded = Encoded({}, {})
  if bits < 32:
    scale = np.abs(kernel).max(axis=0, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
    codes = np.rint(kernel / scale).astype(np.int8)
    kernel = codes.astype(np.float32) * scale
    encoded = Encoded({'kernel': Integers(codes, scale, bits)}, {})
  start = time.process_time()
  artifact.from_bytes(artifact.to_bytes(network=None, variables={'kernel': kernel}, encoded=encoded))
  assert time.process_time() - start < 5


class TestFailedSave:

  @pytest.fixture(params=['write', 'fsync', 'replace', 'interrupt'])
  def broken(self, request, monkeypatch):
    error = KeyboardInterrupt() if request.param == 'interrupt' else OSError(errno.ENOSPC, 'No space left on device')

    def fail(*_):
      raise error

    if request.param == 'write':
      full = open

      def open_full(path, mode):
        file = full(path, mode, buffering=0)
        os.dup2(os.open('/dev/full', os.O_WRONLY), file.fileno())
        return file

      monkeypatch.setattr('builtins.open', open_full)
    else:
      monkeypatch.setattr(os, 'replace' if request.param == 'replace' else 'fsync', fail)
    return type(error)

  @pytest.mark.parametrize('old', [True, False])
  def test_it_leaves_the_old_file_and_no_other(self, tmp_path, network, broken, old):
    path = tmp_path / 'network'
    if old:
      path.write_bytes(b'old')
    with pytest.raises(broken):
      artifact.save(path, **network)
    assert os.listdir(tmp_path) == (['network'] if old else [])
    assert not old or path.read_bytes() == b'old'

  def test_a_missing_folder_is_an_os_error(self, tmp_path, network):
    with pytest.raises(FileNotFoundError):
      artifact.save(tmp_path / 'missing' / 'network', **network)

  def test_a_device_or_folder_is_not_replaced(self, tmp_path, network):
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path, tmp_path / 'pipe'):
      with pytest.raises(OSError, match='no regular file'):
        artifact.save(path, **network)
    assert os.listdir(tmp_path) == ['pipe'] and (tmp_path / 'pipe').is_fifo()

  def test_a_wrong_argument_is_found_before_the_old_file_is_touched(self, tmp_path, network):
    path = tmp_path / 'network'
    path.write_bytes(b'old')
    with pytest.raises(ValueError, match='variables hold arrays only'):
      artifact.save(path, network=None, variables={'alpha': 1.0})
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['network']


def test_a_link_stays_a_link_and_permissions_are_the_users(tmp_path, network):
  (tmp_path / 'link').symlink_to(tmp_path / 'target')
  artifact.save(tmp_path / 'link', **network)
  assert (tmp_path / 'link').is_symlink() and (tmp_path / 'target').is_file()
  (tmp_path / 'plain').write_bytes(b'')
  assert (tmp_path / 'target').stat().st_mode == (tmp_path / 'plain').stat().st_mode


def change(network, **fields):
  """Keywords whose integers differ."""
  integers = network['encoded'].parameters['conv/kernel']._replace(**fields)
  return {**network, 'encoded': Encoded({'conv/kernel': integers}, {})}


@pytest.mark.parametrize('wrong, message', [
  (lambda n: {**n, 'encoded': Encoded({'conv/kernal': None}, {})}, "'conv/kernal' is no parameter.*'conv/kernel'"),
  (lambda n: {**n, 'encoded': Encoded({'batch_stats/norm/mean': None}, {})}, 'is no parameter'),
  (lambda n: change(n, bits=9), 'conv/kernel: 9 bits'),
  (lambda n: change(n, bits=3), r'conv/kernel: codes of 3 bits must be integers in -4\.\.3'),
  (lambda n: change(n, scale=np.ones(5, np.float32)), 'conv/kernel: a scale of shape'),
  (lambda n: change(n, scale=np.ones((1, 1, 3, 8), np.float32)), 'conv/kernel: a scale of shape .* nor does it divide'),
  (lambda n: change(n, zero_point=np.ones(8, np.float32)), r'a zero point of shape \(8,\) does not go with'),
  (lambda n: change(n, codes=np.ones((3, 3, 4, 8), ml_dtypes.float8_e5m2)), 'float8_e5m2 have 8 bits, not 4'),
  (lambda n: change(n, scale=np.full((), np.inf, np.float32)), 'conv/kernel: codes . scale is not the final view'),
  (lambda n: change(n, scale=np.full((), np.nan, np.float32)), 'conv/kernel: codes . scale is not the final view'),
  (lambda n: change(n, codes=np.ones((3, 3, 4, 8), np.int8)), 'conv/kernel: codes . scale is not the final view'),
  (lambda n: change(n, codes=np.ones((2, 8), np.int8), scale=np.float32(1)), 'conv/kernel: codes of shape'),
  (lambda n: {**n, 'network': {'width': np.int64(3)}}, 'network/width: .*int64'),
  (lambda n: {**n, 'network': {3: 1}}, 'network: the key 3'),
  (lambda n: {**n, 'meta': {'loss': float('nan')}}, 'meta/loss: nan'),
  (lambda n: {**n, 'meta': {'large': 'x' * 5_000_000}}, 'the header takes'),
  (lambda n: {**n, 'variables': {'': np.ones(1)}}, "variables: the key ''"),
  (lambda n: {**n, 'variables': [np.ones(1)]}, 'variables must be nested mappings'),
  (lambda n: {'network': None, 'variables': {'a': [np.ones(1)]}}, 'a: variables hold arrays only'),
  (lambda n: {'network': None, 'variables': {'a': np.ones(1, complex)}}, 'a: arrays of complex128'),
  (lambda n: {'network': None, 'variables': {'a': np.array(['x'])}}, 'a: arrays of str'),
  (lambda n: {'network': None, 'variables': {'a': jax.random.key(0)}}, r'a: arrays of key<.*key_data'),
  (lambda n: {'network': None, 'variables': {'a': np.zeros(9_000_000)}}, 'a: shape .* larger than a file'),
])
def test_what_cannot_be_stored_is_named(network, tmp_path, wrong, message):
  with pytest.raises(ValueError, match=message):
    artifact.save(tmp_path / 'file', **wrong(network))
  assert not os.listdir(tmp_path)


def test_the_order_of_float32_multiplications_is_no_difference():
  """Folding computes (codes * scale) / s; the file says codes * (scale / s)."""
  rng = np.random.default_rng(0)
  codes = rng.integers(-127, 128, (1000, 64)).astype(np.int8)
  scale, s = rng.lognormal(size=(2, 1, 64)).astype(np.float32)
  view = codes.astype(np.float32) * scale / s
  loaded = stored({'k': view}, encoded=Encoded({'k': Integers(codes, scale / s, 8)}, {})).variables['k']
  np.testing.assert_allclose(loaded, view, rtol=5e-7)
  with pytest.raises(ValueError, match='is not the final view in 1 of 64000'):
    view[3, 5] += 2e-6 * abs(view[3, 5]) + 1e-30
    stored({'k': view}, encoded=Encoded({'k': Integers(codes, scale / s, 8)}, {}))
