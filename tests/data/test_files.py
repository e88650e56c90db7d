"""Round trips of a user's own files, and what their damage says."""
import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from lightjax.data import DataError, load


@pytest.fixture
def arrays():
  random = np.random.default_rng(0)
  return {part: (random.integers(0, 256, (size, 6, 5), np.uint8), np.arange(size, dtype=np.uint8) % 3)
          for part, size in (('train', 12), ('test', 7))}


def write_idx(folder, arrays, *, suffix=''):
  for part, prefix in (('train', 'train'), ('test', 't10k')):
    for array, kind in zip(arrays[part], ('images', 'labels'), strict=True):
      content = struct.pack(f'>4B{array.ndim}I', 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
      path = folder / f'{prefix}-{kind}-idx{array.ndim}-ubyte{suffix}'
      path.write_bytes(gzip.compress(content) if suffix == '.gz' else content)


def write_npz(folder, arrays, **changed):
  given = {f'{letter}_{part}': array for part in arrays for letter, array in zip('xy', arrays[part], strict=True)}
  path = folder / 'set.npz'
  np.savez(path, **{name: array for name, array in (given | changed).items() if array is not None})
  return path


def write_folder(folder, arrays):
  for part, (images, labels) in arrays.items():
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
      path = folder / part / f'class{label}' / f'{index:03}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(path)


def assert_holds(splits, arrays):
  for source, (images, labels) in ((splits.train, arrays['train']), (splits.test, arrays['test'])):
    np.testing.assert_array_equal(source.arrays()[0], images.reshape(*images.shape[:3], -1))
    assert source.arrays()[1].tolist() == labels.tolist()


@pytest.mark.parametrize('suffix', ['', '.gz'])
@pytest.mark.parametrize('name', ['idx', 'mnist', 'fashion_mnist'])
def test_idx(tmp_path, arrays, suffix, name):
  write_idx(tmp_path, arrays, suffix=suffix)
  splits = load(name, dir=tmp_path, validation=0.0)
  assert_holds(splits, arrays)
  assert splits.info.classes == 3 and splits.info.shape == (6, 5, 1)
  if name == 'mnist':
    assert splits.info.mean == (0.1307,)


def test_npz(tmp_path, arrays):
  path = write_npz(tmp_path, arrays)
  for place in (path, tmp_path):
    assert_holds(load('npz', dir=place, validation=0.0), arrays)
  colour = {part: (np.stack([images] * 3, -1), labels[:, None]) for part, (images, labels) in arrays.items()}
  splits = load('npz', dir=write_npz(tmp_path, colour), validation=0.0, classes=5)
  assert splits.info.shape == (6, 5, 3) and splits.info.classes == 5
  np.testing.assert_array_equal(splits.test.arrays()[0], colour['test'][0])


def sorted_by_class(arrays):
  orders = {part: np.argsort(labels, kind='stable') for part, (_, labels) in arrays.items()}
  return {part: (images[orders[part]], labels[orders[part]]) for part, (images, labels) in arrays.items()}


def test_folder(tmp_path, arrays):
  write_folder(tmp_path, arrays)
  splits = load('folder', dir=tmp_path, validation=0.0)
  assert_holds(splits, sorted_by_class(arrays))
  assert splits.info.shape == (6, 5, 1)


def test_folder_in_colour_resized(tmp_path):
  for part in ('train', 'test'):
    for name, colour, size in (('blue', (0, 0, 250), (30, 20)), ('red', (250, 0, 0), (9, 16))):
      (tmp_path / part / name).mkdir(parents=True)
      Image.new('RGB', size, colour).save(tmp_path / part / name / 'a.png')
  splits = load('folder', dir=tmp_path, validation=0.0, size=8)
  assert splits.info.shape == (8, 8, 3)
  for source in (splits.train, splits.test):
    images, labels = source.arrays()
    assert labels.tolist() == [0, 1]
    assert (images[0] == (0, 0, 250)).all() and (images[1] == (250, 0, 0)).all()
  with pytest.raises(DataError, match=r'red/a\.png: is 9x16 pixels, the first image 30x20; pass size='):
    load('folder', dir=tmp_path)


def test_resizing_keeps_the_centre(tmp_path):
  picture = np.zeros((10, 30), np.uint8)
  picture[:, 10:20] = 200
  for part in ('train', 'test'):
    (tmp_path / part / 'a').mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / part / 'a' / '0.png')
  image = load('folder', dir=tmp_path, validation=0.0, size=10).train.arrays()[0][0]
  assert (image == 200).all()


def damaged(path):
  path.write_bytes(path.read_bytes()[:-3])


def emptied(path):
  path.write_bytes(b'')


@pytest.mark.parametrize('suffix', ['', '.gz'])
@pytest.mark.parametrize('harm', [damaged, emptied])
@pytest.mark.parametrize('kind', ['train-images-idx3', 't10k-labels-idx1'])
def test_damaged_idx(tmp_path, arrays, suffix, harm, kind):
  write_idx(tmp_path, arrays, suffix=suffix)
  harm(tmp_path / f'{kind}-ubyte{suffix}')
  with pytest.raises(DataError, match=rf'{kind}-ubyte.*fetch'):
    load('idx', dir=tmp_path)


def test_missing_and_mismatched_idx(tmp_path, arrays):
  with pytest.raises(DataError, match='no train-images idx file'):
    load('idx', dir=tmp_path)
  write_idx(tmp_path, arrays | {'train': (arrays['train'][0], arrays['train'][1][:-1])})
  with pytest.raises(DataError, match=r'12 images but labels of shape \[11\]'):
    load('idx', dir=tmp_path)
  write_idx(tmp_path, arrays | {'test': (arrays['test'][0][:, :5], arrays['test'][1])})
  with pytest.raises(DataError, match=r'images are \(5, 5, 1\), those of train \(6, 5, 1\)'):
    load('idx', dir=tmp_path)


def test_labels_out_of_range(tmp_path, arrays):
  images, _ = arrays['test']
  wrong = {'test': (images, np.full(7, 3))}
  with pytest.raises(DataError, match=r'label 3 is outside 0\.\.2'):
    load('npz', dir=write_npz(tmp_path, arrays | wrong))
  with pytest.raises(DataError, match=r'label -1 is outside 0\.\.2'):
    load('npz', dir=write_npz(tmp_path, arrays | {'test': (images, np.full(7, -1))}))
  with pytest.raises(DataError, match=r'label 2 is outside 0\.\.1'):
    load('npz', dir=write_npz(tmp_path, arrays), classes=2)


@pytest.mark.parametrize(('changed', 'message'), [
  ({'y_test': None}, 'lacks y_test; it holds x_train'),
  ({'x_train': np.zeros((12, 6, 5))}, 'x_train is float64'),
  ({'y_train': np.zeros(12)}, 'y_train is float64'),
  ({'x_test': np.zeros((0, 6, 5), np.uint8), 'y_test': np.zeros(0, int)}, 'holds no image'),
])
def test_wrong_npz(tmp_path, arrays, changed, message):
  with pytest.raises(DataError, match=message):
    load('npz', dir=write_npz(tmp_path, arrays, **changed))


def test_damaged_npz(tmp_path, arrays):
  with pytest.raises(DataError, match=r'holds 0 \.npz files'):
    load('npz', dir=tmp_path)
  path = write_npz(tmp_path, arrays)
  for harm in (damaged, emptied):
    harm(path)
    with pytest.raises(DataError, match=r'cannot be read as an \.npz archive'):
      load('npz', dir=path)


def test_wrong_folders(tmp_path, arrays):
  with pytest.raises(DataError, match='train: does not exist'):
    load('folder', dir=tmp_path)
  write_folder(tmp_path, arrays)
  Image.new('RGB', (5, 6), (1, 2, 3)).save(tmp_path / 'train' / 'class1' / 'z.png')
  with pytest.raises(DataError, match=r'z\.png: is in colour'):
    load('folder', dir=tmp_path)
  (tmp_path / 'train' / 'class1' / 'z.png').write_bytes(b'no image')
  with pytest.raises(DataError, match=r'z\.png: is no readable image'):
    load('folder', dir=tmp_path)
  (tmp_path / 'train' / 'class1' / 'z.png').unlink()
  damaged(tmp_path / 'train' / 'class2' / '002.png')
  whole = (tmp_path / 'train' / 'class2' / '002.png').read_bytes()
  (tmp_path / 'train' / 'class2' / '002.png').write_bytes(whole[:45])
  with pytest.raises(DataError, match=r'002\.png: is no readable image'):
    load('folder', dir=tmp_path)
  (tmp_path / 'train' / 'class2' / '002.png').unlink()
  (tmp_path / 'test' / 'class9').mkdir()
  with pytest.raises(DataError, match='class9: holds no image'):
    load('folder', dir=tmp_path)
  Image.new('L', (5, 6)).save(tmp_path / 'test' / 'class9' / '0.png')
  with pytest.raises(DataError, match=r'class9: is a class that .*train does not have'):
    load('folder', dir=tmp_path)
