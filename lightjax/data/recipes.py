"""Lets TFDS recipes be prepared without TensorFlow, if they use it only to open files and to encode image arrays.

That is what most recipes of labelled images do, CIFAR, MNIST and their relatives among them. A recipe that asks for
more of TensorFlow gets the usual `ModuleNotFoundError`.
"""
from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np


@contextlib.contextmanager
def without_tensorflow(builder: Any) -> Iterator[None]:
  """Inside, `builder` can be prepared without TensorFlow; with TensorFlow installed this does nothing.

  Args:
    builder: a `tfds.core.DatasetBuilder`; its image features stay able to encode arrays afterwards.
  """
  if importlib.util.find_spec('tensorflow') is not None:
    yield
    return
  _encode_with_pillow(builder.info.features)
  # Recipes, and the one part of TFDS that unpacks what they download, name the lazily imported TensorFlow `tf`.
  names = {kind.__module__ for kind in type(builder).__mro__}
  names = {name for name in names if not name.startswith('tensorflow_datasets.core')}
  with contextlib.ExitStack() as stack:
    for name in sorted(names | {'tensorflow_datasets.core.download.extractor'}):
      if hasattr(sys.modules[name], 'tf'):
        stack.enter_context(_replaced(vars(sys.modules[name]), 'tf', _FilesOnly()))
    yield


@contextlib.contextmanager
def _replaced(names: dict[str, Any], name: str, value: Any) -> Iterator[None]:
  original, names[name] = names[name], value
  try:
    yield
  finally:
    names[name] = original


class _FilesOnly:
  """The part of TensorFlow that opens files."""

  compat = SimpleNamespace(as_text=os.fsdecode)
  io = SimpleNamespace(gfile=SimpleNamespace(
    GFile=open, copy=shutil.copy, exists=os.path.exists, glob=glob.glob, isdir=os.path.isdir, listdir=os.listdir,
    walk=os.walk))

  def __getattr__(self, name: str) -> Any:
    raise ModuleNotFoundError(f"No module named 'tensorflow', of which it uses {name!r}", name='tensorflow')


def _encode_with_pillow(features: Any) -> None:
  import tensorflow_datasets as tfds

  for feature in features.values():
    if isinstance(feature, tfds.features.FeaturesDict):
      _encode_with_pillow(feature)
    elif type(feature) is tfds.features.Image and feature.np_dtype == np.uint8:
      feature.encode_example = _PillowEncoder(feature.encode_example, feature.encoding_format or 'png')


class _PillowEncoder:
  """Hands image arrays on as encoded files, which TFDS stores as they are; everything else goes through unchanged."""

  def __init__(self, encode_example: Any, format: str) -> None:
    self.encode_example, self.format = encode_example, format

  def __call__(self, image: Any) -> Any:
    if not isinstance(image, np.ndarray):
      return self.encode_example(image)
    from PIL import Image

    content = io.BytesIO()
    flat = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(flat).save(content, self.format, quality=95)  # TensorFlow's quality, of the JPEG format only
    content.seek(0)
    return self.encode_example(content)
