"""Checkpoints: what comes back is what was saved, and whatever happened to the files is noticed."""
import errno
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lightjax.train import checkpoints
from lightjax.train.checkpoints import DamagedCheckpointError, OtherStructureError


class Pair(NamedTuple):
  one: Any
  other: Any


def tree(seed=0):
  """A pytree with every kind of leaf that a state may hold."""
  rng = np.random.default_rng(seed)
  return {
    'pair': Pair(jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), (jnp.asarray(rng.normal(size=5), jnp.bfloat16),)),
    'mask': jnp.asarray(rng.random((2, 3)) < 0.5), 'step': jnp.int32(seed), 'none': None,
    'key': jax.random.key_data(jax.random.key(seed)), 'codes': jnp.asarray(rng.integers(-128, 127, 7), jnp.int8),
    'empty': jnp.zeros((0, 4)), 'nothing': (), 'special': jnp.array([jnp.nan, jnp.inf, -0.0]),
  }


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A folder with checkpoints of the steps 1 and 2, to be copied."""
  folder = tmp_path_factory.mktemp('written')
  for step in (1, 2):
    checkpoints.save(folder, step, tree(step), about={'lines': step})
  return folder


@pytest.fixture
def folder(written, tmp_path):
  return pathlib.Path(shutil.copytree(written, tmp_path / 'checkpoints'))


def assert_passed_over(folder, match):
  """The newest checkpoint is refused by name, and `latest` warns and gives the one before."""
  with pytest.raises(DamagedCheckpointError, match=match):
    checkpoints.restore(folder, 2, tree())
  with pytest.warns(UserWarning, match='passing over a damaged checkpoint.*step_00000002'):
    step, found = checkpoints.latest(folder, tree())
  assert step == 1
  assert_same(found, tree(1))


def test_every_kind_of_leaf_comes_back_bit_for_bit(folder):
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree())
  step, found = checkpoints.latest(folder, shapes)
  assert step == 2
  assert_same(found, tree(2))
  assert checkpoints.read(folder, 2)['about'] == {'lines': 2}


def test_masks_are_stored_as_bits(tmp_path):
  """Of noise, which does not compress, a byte holds eight entries."""
  mask = np.random.default_rng(0).random((300, 1001)) < 0.5
  checkpoints.save(tmp_path, 1, {'mask': mask})
  size = sum(path.stat().st_size for path in (tmp_path / 'step_00000001' / 'arrays').rglob('*') if path.is_file())
  assert mask.size / 8 < size < 1.1 * mask.size / 8 + 8192
  np.testing.assert_array_equal(checkpoints.restore(tmp_path, 1, {'mask': mask})['mask'], mask)


def test_a_relative_folder_serves_as_well(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  checkpoints.save(pathlib.Path('here'), 3, tree())
  assert_same(checkpoints.restore(pathlib.Path('here'), 3, tree()), tree())


def test_a_flipped_byte_in_any_file_is_noticed(folder):
  place = folder / 'step_00000002'
  files = [path for path in sorted(place.rglob('*')) if path.is_file()]
  assert len(files) > 3
  for path in files:
    sound = path.read_bytes()
    for position in sorted({0, len(sound) // 3, len(sound) // 2, len(sound) - 1}):
      damaged = bytearray(sound)
      damaged[position] ^= 1
      path.write_bytes(damaged)
      with pytest.raises(DamagedCheckpointError, match='manifest' if path.name == 'manifest.json' else path.name):
        checkpoints.read(folder, 2)
    path.write_bytes(sound)
  checkpoints.read(folder, 2)


def biggest(folder):
  """The file of arrays with the most bytes."""
  files = [path for path in (folder / 'step_00000002' / 'arrays').rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


DAMAGES = {
  'flipped': (lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 128])), 'altered'),
  'truncated': (lambda path: path.write_bytes(path.read_bytes()[:-1]), 'altered'),
  'emptied': (lambda path: path.write_bytes(b''), 'altered'),
  'missing': (lambda path: path.unlink(), 'missing'),
  'another file': (lambda path: path.with_name('another').write_text(''), 'altered'),
  'folder in its place': (lambda path: (path.unlink(), path.mkdir()), 'missing'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(folder, damage):
  do, message = DAMAGES[damage]
  do(biggest(folder))
  assert_passed_over(folder, message)


@pytest.mark.parametrize('text', ['', '{', '[]', '3', 'null', '{"sha256": 1}', '{"files": 1, "sha256": ""}', '\x00'])
def test_a_damaged_manifest_is_passed_over(folder, text):
  (folder / 'step_00000002' / 'manifest.json').write_text(text)
  assert_passed_over(folder, 'manifest')


def test_a_missing_or_binary_manifest_is_passed_over(folder):
  (folder / 'step_00000002' / 'manifest.json').write_bytes(b'\xff\xfe')
  assert_passed_over(folder, 'manifest')
  (folder / 'step_00000002' / 'manifest.json').unlink()
  assert_passed_over(folder, 'manifest')


def test_nothing_sound_is_none(folder, tmp_path):
  for step in (1, 2):
    (folder / f'step_{step:08d}' / 'manifest.json').unlink()
  with pytest.warns(UserWarning, match='damaged'):
    assert checkpoints.latest(folder, tree()) is None
  assert checkpoints.latest(tmp_path / 'nowhere', tree()) is None


def test_half_written_ones_are_ignored_and_removed(folder):
  shutil.copytree(folder / 'step_00000001', folder / 'partial_00000003')
  assert checkpoints.steps(folder) == [1, 2]
  assert checkpoints.latest(folder, tree())[0] == 2
  assert sorted(path.name for path in folder.iterdir()) == ['step_00000001', 'step_00000002']
  (folder / 'partial_00000007').mkdir()
  checkpoints.save(folder, 3, tree(3))
  assert sorted(path.name for path in folder.iterdir()) == ['step_00000002', 'step_00000003']


def test_a_folder_of_another_name_is_no_checkpoint(folder):
  (folder / 'step_old').mkdir()
  (folder / 'step_00000009').write_text('a file')
  assert checkpoints.steps(folder) == [1, 2]


@pytest.mark.parametrize('keep', [1, 3])
def test_the_newest_are_kept(tmp_path, keep):
  for step in range(1, 6):
    checkpoints.save(tmp_path, step, {'x': jnp.ones(())}, keep=keep)
  assert checkpoints.steps(tmp_path) == list(range(6 - keep, 6))


def test_a_save_replaces_damaged_ones_that_were_passed_over(folder):
  """Counted among the kept, a damaged later checkpoint would push out sound ones."""
  (folder / 'step_00000002' / 'manifest.json').unlink()
  shutil.copytree(folder / 'step_00000002', folder / 'step_00000005')
  checkpoints.save(folder, 2, tree(7))
  assert checkpoints.steps(folder) == [1, 2]
  assert_same(checkpoints.latest(folder, tree())[1], tree(7))


@pytest.mark.parametrize('like, names', [
  ({'a': jnp.zeros(3)}, r"\['a'\] is missing there"),
  ({'x': jnp.zeros(4)}, r"\['x'\] is float32\[3\] there and float32\[4\] here"),
  ({'x': jnp.zeros(3, jnp.int32)}, r"\['x'\] is float32\[3\] there and int32\[3\] here"),
  ({'x': jnp.zeros(3), 'y': jnp.zeros(1)}, r"\['y'\] is missing there"),
  ({}, r"\['x'\] is float32\[3\] there and missing here"),
])
def test_another_structure_is_an_error_that_names_the_leaf(tmp_path, like, names):
  checkpoints.save(tmp_path, 1, {'x': jnp.zeros(3)})
  with pytest.raises(OtherStructureError, match=names):
    checkpoints.latest(tmp_path, like)


def _no_space(*arguments, **keywords):
  raise OSError(errno.ENOSPC, 'No space left on device')


def _no_space_in_tensorstore(*arguments, **keywords):
  raise ValueError('RESOURCE_EXHAUSTED: Error writing "x": No space left on device [source locations=...]')


@pytest.mark.parametrize('owner, name, failure', [
  (ocp.StandardCheckpointer, 'save', _no_space_in_tensorstore), (ocp.StandardCheckpointer, 'save', _no_space),
  (checkpoints, '_write', _no_space), (checkpoints, '_sync', _no_space),
])
def test_a_full_disk_leaves_the_old_ones_and_nothing_else(folder, monkeypatch, owner, name, failure):
  monkeypatch.setattr(owner, name, failure)
  with pytest.raises(OSError, match='No space left') as caught:
    checkpoints.save(folder, 3, tree(3))
  assert caught.value.errno == errno.ENOSPC
  monkeypatch.undo()
  assert sorted(path.name for path in folder.iterdir()) == ['step_00000001', 'step_00000002']
  assert_same(checkpoints.latest(folder, tree())[1], tree(2))


def test_another_failure_of_orbax_is_not_taken_for_a_full_disk(folder, monkeypatch):
  def fail(*arguments, **keywords):
    raise ValueError('something else')

  monkeypatch.setattr(ocp.StandardCheckpointer, 'save', fail)
  with pytest.raises(ValueError, match='something else'):
    checkpoints.save(folder, 3, tree(3))
  assert checkpoints.steps(folder) == [1, 2]
