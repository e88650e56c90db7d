"""Laws of the augmentations."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.data import augment, normalize

erase = jax.jit(augment.erase)  # compiled as a whole; operation by operation it takes seconds


@pytest.fixture
def images():
  return jax.random.normal(jax.random.key(0), (6, 5, 7, 3))


@pytest.mark.parametrize('name', augment.__all__)
def test_every_augmentation_jits_keeps_shape_and_follows_its_key(name, images):
  function = jax.jit(getattr(augment, name))
  out = function(jax.random.key(1), images)
  assert out.shape == images.shape and out.dtype == images.dtype
  np.testing.assert_array_equal(function(jax.random.key(1), images), out)
  many = jnp.tile(images, (20, 1, 1, 1))
  assert (function(jax.random.key(1), many) != function(jax.random.key(2), many)).any()


@pytest.mark.parametrize('name', augment.__all__)
def test_examples_are_drawn_one_by_one(name):
  same = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (8, 8, 1)), (64, 8, 8, 1))
  out = jax.jit(getattr(augment, name))(jax.random.key(1), same)
  assert len(np.unique(np.asarray(out).reshape(64, -1), axis=0)) > 1


def test_crop_without_padding_is_the_identity(images):
  np.testing.assert_array_equal(augment.crop(jax.random.key(1), images, padding=0), images)


@pytest.mark.parametrize('mode', ['constant', 'edge', 'reflect'])
def test_a_crop_is_one_of_the_windows_and_all_occur(mode):
  image = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
  padded = np.pad(image, 1, mode=mode)
  windows = {padded[top:top + 4, left:left + 4].tobytes() for top in range(3) for left in range(3)}
  crop = jax.jit(augment.crop, static_argnames=('padding', 'mode'))
  out = crop(jax.random.key(2), jnp.broadcast_to(image[..., None], (400, 4, 4, 1)), padding=1, mode=mode)
  assert {np.asarray(crop)[..., 0].tobytes() for crop in out} == windows


def test_crop_places_are_equally_likely():
  image = jnp.zeros((9000, 3, 3, 1)).at[:, 1, 1].set(1.0)
  counts = augment.crop(jax.random.key(3), image, padding=1).sum(0).ravel()
  assert counts.sum() == 9000
  assert float(((counts - 1000) ** 2 / 1000).sum()) < 26.1  # chi-squared with 8 degrees of freedom, 0.999


def test_flip_mirrors_some_and_twice_is_the_identity(images):
  key = jax.random.key(1)
  np.testing.assert_array_equal(augment.flip(key, augment.flip(key, images)), images)
  np.testing.assert_array_equal(augment.flip(key, images, probability=1.0), images[:, :, ::-1])
  np.testing.assert_array_equal(augment.flip(key, images, probability=0.0), images)


def test_erase_changes_one_rectangle_and_nothing_else():
  images = jnp.full((200, 16, 12, 2), 7.0)  # noise never equals 7
  out = np.asarray(erase(jax.random.key(4), images, probability=1.0))
  changed = out != 7.0
  np.testing.assert_array_equal(changed.all(-1), changed.any(-1))
  for mask in changed[..., 0]:
    rows, columns = mask.any(1), mask.any(0)
    np.testing.assert_array_equal(mask, rows[:, None] & columns)
    assert np.abs(np.diff(rows.astype(int))).sum() <= 2 and np.abs(np.diff(columns.astype(int))).sum() <= 2
  shares = changed[..., 0].mean((1, 2))
  assert (shares > 0).mean() > 0.99
  assert shares.max() <= 0.4 + (16 + 12) / (16 * 12)  # each side is rounded by up to half a pixel


def test_erase_probability():
  images = jnp.zeros((1000, 8, 8, 1))
  assert not erase(jax.random.key(5), images, probability=0.0).any()
  share = (erase(jax.random.key(5), images, probability=0.3) != 0).any((1, 2, 3)).mean()
  assert abs(float(share) - 0.3) < 0.06


def test_erase_leaves_images_that_no_rectangle_fits():
  images = jnp.zeros((10, 8, 8, 1))
  assert not erase(jax.random.key(6), images, probability=1.0, area=(2.0, 2.0)).any()


def test_normalize_against_numpy():
  images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), np.uint8)
  scaled = images.astype(np.float64) / 255
  mean, std = scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))
  out = normalize(jnp.asarray(images), tuple(mean), tuple(std))
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out, (scaled - mean) / std, atol=1e-6)
  np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-6)
