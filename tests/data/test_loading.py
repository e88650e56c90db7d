"""The interface over all sources: splits, figures, and the bundled and synthetic sets."""
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.data import DataError, Source, load
from lightjax.data.loading import STATISTICS, channel_statistics, validation_mask


@pytest.fixture(scope='module')
def mini():
  return load('fashion_mnist_mini', validation=0.1, seed=3)


def test_bundled_set_is_balanced_and_complete(mini):
  assert mini.info[:3] == ('fashion_mnist_mini', 10, (28, 28, 1))
  assert mini.info.sizes == (7200, 800, 2000)
  for split, per_class in ((mini.train, 720), (mini.validation, 80), (mini.test, 200)):
    images, labels = split.arrays()
    assert images.dtype == np.uint8 and labels.dtype == np.int32 and images.shape == (len(split), 28, 28, 1)
    assert np.bincount(labels).tolist() == [per_class] * 10


def test_bundled_set_looks_like_the_whole_set(mini):
  mean, std = STATISTICS['fashion_mnist']
  assert abs(mini.info.mean[0] - mean[0]) < 0.002 and abs(mini.info.std[0] - std[0]) < 0.002


def test_the_validation_split_and_train_are_the_published_train(mini):
  whole = load('fashion_mnist_mini', validation=0.0)
  assert len(whole.train) == 8000 and len(whole.validation) == 0
  together = np.concatenate([mini.train.arrays()[0], mini.validation.arrays()[0]])
  assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in whole.train.arrays()[0])
  np.testing.assert_array_equal(mini.test.arrays()[0], whole.test.arrays()[0])
  assert whole.info._replace(sizes=mini.info.sizes) == mini.info


def test_mean_and_std_against_numpy(mini):
  images = load('fashion_mnist_mini', validation=0.0).train.arrays()[0] / 255
  np.testing.assert_allclose(mini.info.mean, images.mean((0, 1, 2)), rtol=1e-9)
  np.testing.assert_allclose(mini.info.std, images.std((0, 1, 2)), rtol=1e-9)


def test_mean_and_std_per_channel_and_of_a_constant_one():
  images = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), np.uint8)
  images[..., 2] = 51
  mean, std = channel_statistics(Source.from_arrays(images, np.zeros(30, int), classes=1, name='random'))
  np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-9)
  np.testing.assert_allclose(std[:2], (images / 255).std((0, 1, 2))[:2], rtol=1e-9)
  assert std[2] == 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(0, 0.99), st.integers(0, 2**64 - 1))
def test_validation_takes_the_same_share_of_each_class(labels, ratio, seed):
  labels = np.array(labels)
  mask = validation_mask(labels, ratio=ratio, seed=seed)
  np.testing.assert_array_equal(mask, validation_mask(labels, ratio=ratio, seed=seed))
  for label in np.unique(labels):
    members = labels == label
    assert abs(mask[members].sum() - ratio * members.sum()) <= 0.5


def test_validation_follows_its_seed():
  labels = np.arange(1000) % 10
  first, second = (validation_mask(labels, ratio=0.5, seed=seed) for seed in (0, 1))
  assert 300 < (first == second).sum() < 700


@pytest.mark.parametrize('ratio', [-0.1, 1.0])
def test_validation_outside_its_range_is_refused(ratio):
  with pytest.raises(DataError, match='validation'):
    load('synthetic', validation=ratio)


def test_a_source_is_a_sequence_of_examples(mini):
  images, labels = mini.test.arrays()
  example = mini.test[5]
  np.testing.assert_array_equal(example['image'], images[5])
  assert example['label'] == labels[5] and example['label'].dtype == np.int32
  np.testing.assert_array_equal(mini.test[-1]['image'], images[-1])
  with pytest.raises(IndexError, match='2000'):
    mini.test[2000]
  assert sum(1 for _ in load('synthetic', examples=20, shape=(2, 2, 1)).test) == 200


def test_records_and_memory_agree_and_sources_pickle():
  records = load('fashion_mnist_mini').test
  positions = np.array([1999, 0, 7, 7])
  images, labels = records.take(positions)
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(records)).take(positions)[0], images)
  np.testing.assert_array_equal(records.labels()[positions], labels)
  everything = records.arrays()
  np.testing.assert_array_equal(everything[0][positions], images)
  np.testing.assert_array_equal(records.subset(positions, name='part').arrays()[0], images)


def test_a_part_of_unread_records_reads_through():
  records = load('synthetic', shape=(3, 3, 2), classes=4, examples=10).test
  part = records.subset(np.array([5, 2]), name='part')
  assert part.labels().tolist() == [1, 2]
  np.testing.assert_array_equal(part[1]['image'], records[2]['image'])


@given(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)), st.integers(1, 7), st.integers(0, 2**64 - 1))
def test_synthetic_images_are_a_function_of_seed_and_index(shape, classes, seed):
  options = dict(shape=shape, classes=classes, test_examples=9, seed=seed, validation=0.0)
  one, other = load('synthetic', examples=12, **options), load('synthetic', examples=30, **options)
  np.testing.assert_array_equal(one.train.arrays()[0], other.train.arrays()[0][:12])
  assert one.info.shape == shape and one.train.arrays()[0].shape == (12, *shape)
  assert one.train.labels().tolist() == [index % classes for index in range(12)]


def test_synthetic_classes_can_be_learnt_and_parts_differ():
  splits = load('synthetic', shape=(16, 16, 3), classes=10, examples=600, validation=0.0)
  (train, train_labels), (test, test_labels) = splits.train.arrays(), splits.test.arrays()
  assert not (train[:200] == test).all((1, 2, 3)).any()
  means = np.stack([train[train_labels == label].mean(0) for label in range(10)])
  nearest = ((test[:, None] - means) ** 2).sum((2, 3, 4)).argmin(1)
  assert (nearest == test_labels).mean() > 0.99


def test_an_unknown_name_suggests_the_nearest():
  with pytest.raises(DataError, match=r'nearest: .*cifar10'):
    load('cifar1')
  with pytest.raises(DataError, match='nearest: fashion_mnist_mini'):
    load('fashion_mnst_mini')
  with pytest.raises(DataError, match='folder, idx, npz, synthetic or any TFDS set'):
    load('qqqqqq')


def test_unknown_options_and_missing_places_are_named(tmp_path):
  with pytest.raises(DataError, match=r"unknown option 'width'; it takes shape, classes, examples, test_examples"):
    load('synthetic', width=3)
  with pytest.raises(DataError, match=r"unknown option 'shape'; it takes size"):
    load('fashion_mnist_mini', shape=(28, 28, 1))
  with pytest.raises(DataError, match='nowhere does not exist'):
    load('idx', dir=tmp_path / 'nowhere')
  with pytest.raises(DataError, match='pass dir='):
    load('npz')
  with pytest.raises(DataError, match='examples 0'):
    load('synthetic', examples=0)
