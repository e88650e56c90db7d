"""How the images of a reference's weights were prepared, as data, and the preparation itself."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image


@dataclass(frozen=True)
class Preprocessing:
  """From a photograph to the input of a network: x = (pixels - mean) / std on the centre of the resized image.

  Attributes:
    size: of the input, height and width, pixels.
    resize: the short side before the centre is cut out, pixels.
    mean: of each channel, in `channels`' order, on the scale of the pixels, 0..255.
    std: likewise.
    channels: order of the input's channels.
    interpolation: of resizing, with antialiasing.
  """
  size: int = 224
  resize: int = 256
  mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
  std: tuple[float, float, float] = (58.395, 57.12, 57.375)
  channels: Literal['RGB', 'BGR'] = 'RGB'
  interpolation: Literal['bicubic', 'bilinear'] = 'bicubic'


# torchvision's and most of timm's: mean (0.485 0.456 0.406), std (0.229 0.224 0.225) of pixels / 255.
IMAGENET = Preprocessing()


def _lite(size: int) -> Preprocessing:
  return Preprocessing(size, size + 32, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


# By the network's name, where it is not IMAGENET. Other weights of the same network may have been trained otherwise.
PREPROCESSING = {
  'efficientnet_lite0': _lite(224),
  'efficientnet_lite1': _lite(240),
  'efficientnet_lite2': _lite(260),
  'efficientnet_lite3': _lite(280),
  'efficientnet_lite4': _lite(300),
  'inception_v3': Preprocessing(299, 342),
  # Caffe's, in which the published weights of version 1.1 were trained.
  'squeezenet1_1': Preprocessing(227, 259, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), 'BGR'),
}


def of(name: str) -> Preprocessing:
  """The preprocessing of a network by its name, `IMAGENET` where none is stated."""
  return PREPROCESSING.get(name, IMAGENET)


def prepare(image: Image.Image, how: Preprocessing) -> Float[np.ndarray, 'h w c']:
  """A photograph as the input of a network.

  Args:
    image: any size and mode.
    how: size, scale and order of channels.
  Returns:
    [size, size, 3], float32.
  Example:
    >>> prepare(Image.new('RGB', (640, 480), 'white'), IMAGENET).shape
    (224, 224, 3)
  """
  width, height = image.size
  scale = how.resize / min(width, height)
  resampling: Any = Image.Resampling[how.interpolation.upper()]
  image = image.convert('RGB').resize((round(width * scale), round(height * scale)), resampling)
  left, top = (image.width - how.size) // 2, (image.height - how.size) // 2
  image = image.crop((left, top, left + how.size, top + how.size))
  pixels = np.asarray(image, np.float32)[..., ::1 if how.channels == 'RGB' else -1]
  return (pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
