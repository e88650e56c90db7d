"""Every codec is exact on every array it takes, refuses bytes that are not its own, and the shortest one is kept."""
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax.artifact import codecs
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
  gaps = np.array(gaps, np.int64)
  indices = np.cumsum(gaps + 1) - 1
  size = int(np.sum(gaps + 1)) + tail
  data = codecs.POSITIONS[name].encode(gaps, size)
  np.testing.assert_array_equal(codecs.POSITIONS[name].decode(data, size, gaps.size), indices)
  for wrong in (data + b'\0', data[:-1]):
    if wrong != data:
      with pytest.raises(ArtifactError):
        codecs.POSITIONS[name].decode(wrong, size, gaps.size)
  if tail == 0 and gaps.size:
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
def test_positions_cost_at_most_a_tenth_more_than_their_entropy(density):
  """The entropy of independent positions is h(p) bits an element; no codec of them alone can do better on average."""
  rng = np.random.default_rng(0)
  words = rng.integers(1, 2**32, 100_000, dtype=np.uint32) * (rng.random(100_000) < density)
  achieved = np.mean(words != 0)
  entropy = -achieved * np.log2(achieved) - (1 - achieved) * np.log2(1 - achieved)
  bits = 8 * len(codecs.encode(words, 32).position_bytes) / words.size
  assert 0.99 * entropy < bits < 1.1 * entropy


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
