"""Every codec is exact on every array it takes, refuses bytes that are not its own, and the shortest one is kept."""
import hashlib

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax.artifact import codecs, entropy
from lightjax.artifact.container import ArtifactError


@st.composite
def words_and_width(draw):
  width = draw(st.integers(1, 64))
  item = next(item for item in (1, 2, 4, 8) if width <= 8 * item)
  fill = st.just(0) if draw(st.booleans()) else None  # mostly zeros, or any words
  words = draw(arrays.arrays(f'u{item}', st.integers(0, 80), elements=st.integers(0, 2**width - 1), fill=fill))
  return words, width


@given(words_and_width())
@settings(deadline=None)
def test_packing_is_the_binary_number_of_all_words(case):
  words, width = case
  number = sum(int(word) << width * i for i, word in enumerate(words))
  assert codecs.pack(words, width) == number.to_bytes(codecs.packed_bytes(words.size, width), 'little')
  np.testing.assert_array_equal(codecs.unpack(codecs.pack(words, width), words.size, width), words)


@given(words_and_width())
@settings(deadline=None)
def test_decode_inverts_encode(case):
  words, width = case
  decoded = codecs.decode(codecs.encode(words, width), words.size, width)
  assert decoded.dtype == words.dtype
  np.testing.assert_array_equal(decoded, words)


@pytest.mark.parametrize('name', codecs.VALUES)
@given(words_and_width())
@settings(deadline=None)
def test_each_value_codec_is_exact(name, case):
  words, width = case
  data = codecs.VALUES[name].encode(words, width)
  if data is not None:
    np.testing.assert_array_equal(codecs.VALUES[name].decode(data, words.size, width), words)
    for wrong in (data + b'\0', data[:-1]):
      if wrong != data:
        with pytest.raises(ArtifactError):
          codecs.VALUES[name].decode(wrong, words.size, width)


@pytest.mark.parametrize('name', codecs.POSITIONS)
@given(
  st.lists(st.one_of(st.integers(0, 9), st.integers(0, 70_000), st.just(2_100_000)), max_size=20), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_each_position_codec_is_exact(name, gaps, tail):
  gaps = np.array(gaps, np.int64) // {'coded bitmap': 1000, 'coded gaps': 50}.get(name, 1)  # which pass over zeros
  indices = np.cumsum(gaps + 1) - 1
  size = int(np.sum(gaps + 1)) + tail
  data = codecs.POSITIONS[name].encode(gaps, size)
  np.testing.assert_array_equal(codecs.POSITIONS[name].decode(data, size, gaps.size), indices)
  for wrong in (data + b'\0', data[:-1]):
    if wrong != data:
      with pytest.raises(ArtifactError):
        codecs.POSITIONS[name].decode(wrong, size, gaps.size)
  if tail == 0 and gaps.size and name != 'coded bitmap':  # a few coded bits may be those of another mask
    with pytest.raises(ArtifactError):
      codecs.POSITIONS[name].decode(data, size - 1, gaps.size)


def test_a_gap_over_64_bits_is_refused_before_it_overflows():
  with pytest.raises(ArtifactError):
    codecs.POSITIONS['varint'].decode(b'\xff' * 9 + b'\x7f', 100, 1)
  with pytest.raises(ArtifactError):
    codecs.POSITIONS['varint'].decode(b'\xff' * 4 + b'\x7f', 100, 1)


@pytest.mark.parametrize('change', [
  {'positions': 'gone'}, {'values': 'gone'}, {'stored': 4}, {'stored': 7}, {'stored': 101}, {'positions': 'dense'},
])
def test_a_coding_that_contradicts_itself_is_refused(change):
  words = np.zeros(100, np.uint32)
  words[::20] = 2**31 + np.arange(5)
  coded = codecs.encode(words, 32)
  assert coded.positions != 'dense'
  with pytest.raises(ArtifactError):
    codecs.decode(coded._replace(**change), 100, 32)


@pytest.mark.parametrize('density', [0.02, 0.1, 0.3, 0.5])
def test_positions_cost_at_most_a_percent_more_than_their_entropy(density):
  """The entropy of independent positions is h(p) bits an element; no codec of them alone can do better on average."""
  rng = np.random.default_rng(0)
  words = rng.integers(1, 2**32, 100_000, dtype=np.uint32) * (rng.random(100_000) < density)
  achieved = np.mean(words != 0)
  entropy = -achieved * np.log2(achieved) - (1 - achieved) * np.log2(1 - achieved)
  bits = 8 * len(codecs.encode(words, 32).position_bytes) / words.size
  assert 0.99 * entropy < bits < 1.01 * entropy


@pytest.mark.parametrize('values, bits', [([-1.5, 1.5], 1), ([0.0, -2.0, 2.0], 2), (np.arange(16) - 7.3, 4)])
def test_shared_weights_cost_their_index(values, bits):
  """Binary, ternary and clustered weights: log2 of the number of distinct values, beside the values themselves."""
  words = np.resize(np.array(values, np.float32), 8000).view(np.uint32)
  assert codecs.encode(words, 32).size_bytes <= 8000 * bits // 8 + 4 * len(values) + 1


def test_dense_floats_are_stored_as_they_are():
  words = np.random.default_rng(0).normal(size=1000).astype(np.float32).view(np.uint32)
  coded = codecs.encode(words, 32)
  assert (coded.positions, coded.values, coded.value_bytes) == ('dense', 'plain', words.tobytes())


@pytest.mark.parametrize('width', [4, 8])
def test_whole_missing_channels_cost_almost_nothing(width):
  words = np.random.default_rng(0).integers(1, 2**width, (100, 10_000)).astype(np.uint8)
  words[10:] = 0
  assert len(codecs.encode(words.reshape(-1), width).position_bytes) <= 100_000 * 2 // 8 + 2


def zero_order_entropy_bytes(words):
  """Of positions and indices: n h(p) bits for where the non-zeros stand, and the entropy of each one's value."""
  def bits(counts):
    shares = counts / counts.sum()
    return -counts.sum() * np.sum(shares * np.log2(shares))

  stored = words[words != 0]
  positions = bits(np.array([words.size - stored.size, stored.size])) if 0 < stored.size < words.size else 0.0
  return (positions + bits(np.unique(stored, return_counts=True)[1])) / 8


@pytest.mark.parametrize('size, density, entries, start', [
  (10_001, 0.08, 16, 'linear'), (10_001, 0.3, 32, 'linear'), (10_001, 0.3, 32, 'density'), (10_001, 1.0, 64, 'linear'),
  (25_000, 0.12, 256, 'linear'), (25_000, 0.12, 256, 'density'), (30_000, 0.09, 64, 'linear'),
  (235_200, 0.08, 64, 'linear'), (400_000, 0.08, 32, 'linear'), (400_000, 0.01, 32, 'density'),
  (1_000_000, 0.5, 256, 'linear')])
def test_shared_sparse_weights_cost_their_zero_order_entropy(size, density, entries, start):
  """All that tells positions and indices, what the decoder needs to know of frequencies included; not the codebook."""
  rng = np.random.default_rng(0)
  weights = rng.laplace(size=size)
  kept = np.abs(weights) >= np.quantile(np.abs(weights), 1 - density)
  low, high = weights[kept].min(), weights[kept].max()
  edges = (low + (high - low) * np.arange(1, entries) / entries if start == 'linear'
           else np.quantile(weights[kept], np.arange(1, entries) / entries))
  book = rng.normal(size=entries).astype(np.float32)
  book.sort()
  words = np.where(kept, book[np.searchsorted(edges, weights)], np.float32(0)).view(np.uint32)
  coded = codecs.encode(words, 32)
  coded_bytes = coded.size_bytes - codecs.codebook_bytes(coded, 32)
  assert coded_bytes < 1.015 * zero_order_entropy_bytes(words)
  assert codecs.codebook_bytes(coded, 32) <= 4 * (entries + 1) + 1
  np.testing.assert_array_equal(codecs.decode(coded, size, 32), words)


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_integer_codes_cost_their_entropy(bits):
  rng = np.random.default_rng(0)
  codes = np.clip(np.round(rng.normal(size=30_000) * 2 ** (bits - 3)), -2 ** (bits - 1), 2 ** (bits - 1) - 1)
  words = codes.astype(np.int8).view(np.uint8) & (2**bits - 1)
  shares = np.unique(words, return_counts=True)[1] / words.size
  assert codecs.encode(words, bits).size_bytes < 1.015 * -np.sum(shares * np.log2(shares)) * words.size / 8


@pytest.mark.parametrize('axis', [0, 1])
def test_positions_that_lie_together_cost_less_than_their_entropy(axis):
  """Inputs that few units read, and units that few inputs reach."""
  rng = np.random.default_rng(0)
  shape = (500, 400)
  density = np.expand_dims(rng.beta(0.2, 1.8, shape[axis]), 1 - axis)
  words = np.where(rng.random(shape) < density, 1, 0).astype(np.uint32).reshape(-1)
  assert len(codecs.encode(words, 32).position_bytes) < zero_order_entropy_bytes(words)


@pytest.mark.parametrize('symbols, prior, windows, digest', [
  (np.arange(600) ** 2 % 37 % 20, np.full(20, 0.5), entropy.WINDOWS[-1:], '546475e29beaea0b'),
  (np.arange(2000) ** 2 % 101 < np.arange(2000) // 100, np.array([14., 2.]), entropy.WINDOWS[:1], '8eb819dfb5f43537')])
def test_the_entropy_coder_writes_what_it_always_wrote(symbols, prior, windows, digest):
  """Files outlive machines and versions: what counts or codes otherwise is another codec, with a name of its own."""
  data = entropy.encode(symbols.astype(np.uint8), prior, windows=windows)
  assert hashlib.sha256(data).hexdigest()[:16] == digest
  np.testing.assert_array_equal(entropy.decode(data, symbols.size, prior), symbols)
