"""The order of training is a pure function; both paths over it give the same batches."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax.data import Source, batch_indices, epoch_order, evaluation_batches, load, steps_per_epoch, stream

seeds = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def philox(seed: int, epoch: int, blocks: int) -> list[int]:
  """Philox4x64-10 from its definition (Salmon et al. 2011, section 3.3), NumPy's counter starting at 1."""
  words = []
  for counter in range(1, blocks + 1):
    block, key = [counter, 0, 0, 0], [seed, epoch]
    for _ in range(10):
      first, second = 0xD2E7470EE14C6C93 * block[0], 0xCA5A826395121157 * block[2]
      block = [(second >> 64) ^ block[1] ^ key[0], second & MASK, (first >> 64) ^ block[3] ^ key[1], first & MASK]
      key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
    words += block
  return words


@given(seeds, st.integers(0, 10**6), st.integers(1, 50))
def test_order_is_the_sorted_philox_stream(seed, epoch, size):
  words = philox(seed, epoch, -(-size // 4))[:size]
  assert epoch_order(seed, epoch, size).tolist() == sorted(range(size), key=words.__getitem__)


@given(seeds, st.integers(0, 1000), st.integers(0, 500))
def test_order_is_a_permutation(seed, epoch, size):
  assert sorted(epoch_order(seed, epoch, size).tolist()) == list(range(size))


def test_order_cannot_be_changed_by_a_caller():
  with pytest.raises(ValueError, match='read-only'):
    epoch_order(0, 0, 10)[0] = 3


def test_seeds_and_epochs_differ():
  orders = {tuple(epoch_order(seed, epoch, 100).tolist()) for seed in range(5) for epoch in range(5)}
  assert len(orders) == 25


@given(seeds, st.integers(1, 60), st.integers(1, 60), st.permutations(range(20)))
@settings(max_examples=30)
def test_a_batch_does_not_depend_on_what_was_asked_before(seed, size, batch_size, steps):
  if batch_size > size:
    size, batch_size = batch_size, size
  in_order = [batch_indices(step, seed=seed, size=size, batch_size=batch_size).tolist() for step in range(20)]
  for step in steps:
    epoch_order.cache_clear()
    assert batch_indices(step, seed=seed, size=size, batch_size=batch_size).tolist() == in_order[step]


@given(seeds, st.integers(1, 60), st.data())
def test_an_epoch_sees_each_example_at_most_once_and_all_if_batches_fill_it(seed, size, data):
  batch_size = data.draw(st.integers(1, size))
  steps = steps_per_epoch(size, batch_size)
  seen = np.concatenate([batch_indices(step, seed=seed, size=size, batch_size=batch_size) for step in range(steps)])
  assert seen.dtype == np.int32
  assert len(set(seen.tolist())) == len(seen) == steps * batch_size > size - batch_size


def test_impossible_batches_are_refused():
  with pytest.raises(ValueError, match=r'batch_size 11 is outside 1\.\.10'):
    batch_indices(0, seed=0, size=10, batch_size=11)
  with pytest.raises(ValueError, match='step -1 is negative'):
    batch_indices(-1, seed=0, size=10, batch_size=2)
  with pytest.raises(ValueError, match='seed -1'):
    epoch_order(-1, 0, 4)


def counted(size: int) -> Source:
  images = np.random.default_rng(0).integers(0, 256, (size, 4, 3, 1), np.uint8)
  return Source.from_arrays(images, np.arange(size) % 5, classes=5, name='counted')


@pytest.mark.parametrize('start', [0, 3, 11])
def test_stream_equals_the_gather_path_from_any_step(start):
  source = counted(23)
  images, labels = source.arrays()
  batches = list(stream(source, seed=7, batch_size=5, start_step=start, stop_step=14))
  assert len(batches) == 14 - start
  for step, batch in enumerate(batches, start):
    index = batch_indices(step, seed=7, size=23, batch_size=5)
    np.testing.assert_array_equal(batch['index'], index)
    np.testing.assert_array_equal(batch['image'], images[index])
    np.testing.assert_array_equal(batch['label'], labels[index])


def test_stream_of_records_equals_the_gather_path():
  source = load('fashion_mnist_mini', validation=0.0).test  # read from its records, not from memory
  batches = list(stream(source, seed=1, batch_size=50, start_step=38, stop_step=42))
  images, labels = source.arrays()
  for batch in batches:
    np.testing.assert_array_equal(batch['image'], images[batch['index']])
    np.testing.assert_array_equal(batch['label'], labels[batch['index']])


def test_stream_in_worker_processes_keeps_the_order():
  options = dict(seed=3, batch_size=4, start_step=2, stop_step=6)
  source = load('synthetic', shape=(4, 4, 1), examples=30).train
  for here, there in zip(stream(source, **options), stream(source, workers=1, **options), strict=True):
    for key in ('image', 'label', 'index'):
      np.testing.assert_array_equal(here[key], there[key])


def test_stream_refuses_at_once():
  with pytest.raises(ValueError, match='batch_size 24'):
    stream(counted(23), seed=0, batch_size=24, start_step=0, stop_step=1)
  with pytest.raises(ValueError, match='out of order'):
    stream(counted(23), seed=0, batch_size=4, start_step=2, stop_step=1)


@given(st.integers(0, 40), st.integers(1, 12))
def test_padded_batches_hold_each_example_once(size, batch_size):
  batches = list(evaluation_batches(size, batch_size))
  assert all(batch['index'].shape == batch['mask'].shape == (batch_size,) for batch in batches)
  kept = [index for batch in batches for index in batch['index'][batch['mask']].tolist()]
  assert kept == list(range(size))
  assert len(batches) == -(-size // batch_size)


def test_padded_examples_of_a_source_are_masked_and_readable():
  source = counted(7)
  last = list(evaluation_batches(source, 4))[-1]
  assert last['mask'].tolist() == [True, True, True, False]
  np.testing.assert_array_equal(last['image'][:3], source.arrays()[0][4:])
  np.testing.assert_array_equal(last['image'][3], source.arrays()[0][0])
  with pytest.raises(ValueError, match='batch_size 0'):
    evaluation_batches(source, 0)
