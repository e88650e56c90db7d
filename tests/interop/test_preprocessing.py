import numpy as np
import pytest
from PIL import Image

from lightjax import interop, models
from lightjax.interop import Preprocessing, preprocessing


def test_a_constant_image_is_scaled_as_stated():
  image = Image.new('RGB', (300, 400), (10, 20, 30))
  how = Preprocessing(32, 40, (1.0, 2.0, 3.0), (2.0, 4.0, 8.0))
  x = interop.prepare(image, how)
  assert x.shape == (32, 32, 3) and x.dtype == np.float32
  assert np.array_equal(np.unique(x.reshape(-1, 3), axis=0), [[4.5, 4.5, 3.375]])


def test_blue_comes_first_where_it_should():
  how = Preprocessing(4, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 'BGR')
  assert interop.prepare(Image.new('RGB', (4, 4), (10, 20, 30)), how)[0, 0].tolist() == [30, 20, 10]


@pytest.mark.parametrize('interpolation', ['bicubic', 'bilinear'])
@pytest.mark.parametrize('size', [(80, 40), (40, 80), (40, 40)])
def test_the_centre_is_cut_out_after_resizing_the_short_side(size, interpolation):
  # black halves: left and right of the middle column; the cut has as many black columns as white ones
  pixels = np.zeros((size[1], size[0], 3), np.uint8)
  pixels[:, size[0] // 2:] = 255
  how = Preprocessing(16, 20, (0.0,) * 3, (1.0,) * 3, interpolation=interpolation)
  x = interop.prepare(Image.fromarray(pixels), how)
  assert (x[:, :6] < 10).all() and (x[:, -6:] > 245).all()


def test_torchvisions_numbers_are_on_the_scale_of_pixels():
  np.testing.assert_allclose(np.array(interop.IMAGENET.mean) / 255, [0.485, 0.456, 0.406])
  np.testing.assert_allclose(np.array(interop.IMAGENET.std) / 255, [0.229, 0.224, 0.225])


def test_grey_and_transparent_images_are_taken_as_colour():
  for mode in ('L', 'RGBA', 'CMYK'):
    assert interop.prepare(Image.new(mode, (50, 60)), interop.IMAGENET).shape == (224, 224, 3)


def test_every_stated_preprocessing_is_of_a_network_and_fits():
  assert set(interop.PREPROCESSING) <= set(models.names())
  assert preprocessing.of('resnet20') is interop.IMAGENET
  assert all(0 < how.size <= how.resize for how in interop.PREPROCESSING.values())
