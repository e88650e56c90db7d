"""TFDS names: prepared and read without TensorFlow, and what is said where that is not possible."""
import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

from lightjax.data import DataError, load


class SmallPictures(tfds.core.GeneratorBasedBuilder):
  """Six grey pictures in each part, given as arrays; among the uneven ones the last two are wider."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in ('even', 'uneven', 'unlabelled'))

  def _info(self):
    even = self.builder_config.name != 'uneven'
    features = {'image': tfds.features.Image(shape=(6, 4, 1) if even else (None, None, 1))}
    if self.builder_config.name != 'unlabelled':
      features['label'] = tfds.features.ClassLabel(num_classes=3)
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples(0), 'test': self._generate_examples(1)}

  def _generate_examples(self, offset):
    for key in range(6):
      example = {'image': picture(key + offset, wide=key > 3 and self.builder_config.name == 'uneven')}
      yield key, example if self.builder_config.name == 'unlabelled' else example | {'label': key % 3}


def picture(key: int, *, wide: bool = False) -> np.ndarray:
  return np.full((6, 10 if wide else 4, 1), 20 * key, np.uint8)


def test_a_builder_that_gives_arrays_is_prepared_without_tensorflow(tmp_path):
  for _ in range(2):  # prepared, then found
    splits = load('small_pictures/even', dir=tmp_path, validation=0.5)
    assert splits.info[:3] == ('small_pictures/even', 3, (6, 4, 1)) and splits.info.sizes == (3, 3, 6)
    images, labels = splits.test.arrays()
    np.testing.assert_array_equal(images, [picture(key + 1) for key in range(6)])
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_images_of_unequal_size_need_a_size(tmp_path):
  with pytest.raises(DataError, match='differ in size; pass size='):
    load('small_pictures/uneven', dir=tmp_path)
  splits = load('small_pictures/uneven', dir=tmp_path, size=5)
  assert splits.info.shape == (5, 5, 1)
  assert [int(image[2, 2, 0]) for image in splits.test.arrays()[0]] == [20, 40, 60, 80, 100, 120]


def test_sets_that_cannot_serve_are_refused(tmp_path):
  with pytest.raises(DataError, match='no set of labelled images, its features are image'):
    load('small_pictures/unlabelled', dir=tmp_path)
  with pytest.raises(DataError, match='correct the name or version'):
    load('small_pictures/odd', dir=tmp_path)


def test_cifar10_is_prepared_by_name(tmp_path, monkeypatch):
  """Its own recipe over a made-up archive; it gives image arrays, which TFDS itself would code with TensorFlow."""
  archive = tmp_path / 'archive' / 'cifar-10-batches-bin'
  archive.mkdir(parents=True)
  (archive / 'batches.meta.txt').write_text('\n'.join('abcdefghij'))
  random = np.random.default_rng(0)
  written = {}
  for name in ('data_batch_1', 'data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch'):
    rows = random.integers(0, 256, (10, 1 + 3072), np.uint8)
    rows[:, 0] = np.arange(10)
    (archive / f'{name}.bin').write_bytes(rows.tobytes())
    written[name] = rows[:, 1:].reshape(10, 3, 32, 32).transpose(0, 2, 3, 1)
  monkeypatch.setattr(socket, 'getaddrinfo', lambda *_: [])
  monkeypatch.setattr(tfds.download.DownloadManager, 'download_and_extract', lambda *_: str(archive.parent))
  splits = load('cifar10', dir=tmp_path)
  assert splits.info[:3] == ('cifar10', 10, (32, 32, 3)) and splits.info.sizes == (50, 0, 10)
  assert splits.info.std == (0.2470, 0.2435, 0.2616)
  images, labels = splits.test.arrays()
  order = np.argsort(labels)  # TFDS shuffles
  np.testing.assert_array_equal(images[order], written['test_batch'])


def test_a_recipe_that_needs_more_of_tensorflow_says_so(tmp_path):
  class NeedsMore(SmallPictures):
    def _generate_examples(self, offset):
      yield 0, {'image': tf.image.resize(picture(offset), (6, 4)), 'label': 0}

  with pytest.raises(DataError, match=r"No module named 'tensorflow', of which it uses 'image'.*install it to prepare"):
    load('needs_more/even', dir=tmp_path)


def unreachable(*_):
  raise socket.gaierror('no network')


@pytest.mark.parametrize(('name', 'remedy'), [
  ('cifar10', r'toronto\.edu cannot be reached; pass dir=, a TFDS folder .* array_record\.'),
  ('mnist', r'cannot be reached; .*, or a folder of its idx files\.'),
])
def test_without_a_network_the_refusal_is_immediate(tmp_path, monkeypatch, name, remedy):
  monkeypatch.setattr(socket, 'getaddrinfo', unreachable)
  monkeypatch.setattr('urllib.request.getproxies', dict)
  with pytest.raises(DataError, match=remedy):
    load(name, dir=tmp_path)


def test_a_failed_download_and_missing_modules_are_told(tmp_path, monkeypatch):
  monkeypatch.setattr(socket, 'getaddrinfo', lambda *_: [])
  for error, message in ((OSError('host is down'), r'could not be prepared \(host is down\); put what is missing'),
                         (ModuleNotFoundError("No module named 'xyz'"), r"not installed \(No module named 'xyz'\)")):
    def fail(*_, error=error):
      raise error
    monkeypatch.setattr(tfds.download.DownloadManager, 'download_and_extract', fail)
    with pytest.raises(DataError, match=message):
      load('cifar10', dir=tmp_path)


def test_a_set_without_random_access_is_refused(tmp_path):
  load('small_pictures/even', dir=tmp_path)
  info = tmp_path / 'small_pictures' / 'even' / '1.0.0' / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(DataError, match=r'lies prepared as tfrecord .* no random access'):
    load('small_pictures/even', dir=tmp_path)
