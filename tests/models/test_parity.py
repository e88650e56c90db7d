"""Logits and parameters of the reference implementations, whose weights are drawn again from the names of tensors.

Each file of tests/golden was made once with torchvision or timm in float64: resolution, names and shapes of all
tensors, running statistics, logits of four images. See `draw` for the weights.
"""
import functools
import json
import pathlib
import zlib

import jax
import numpy as np
import pytest

from lightjax import interop
from lightjax.core import trees

GOLDEN = sorted((pathlib.Path(__file__).parent.parent / 'golden').glob('*.npz'))


def draw(name, shape):
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  if len(shape) >= 2:
    return (rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(np.float32)
  if name.rsplit('.', 1)[-1] == 'weight':
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  return (0.1 * rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_logits_and_parameters_are_those_of_the_reference(path):
  golden = np.load(path)
  meta = json.loads(str(golden['meta']))
  tensors = {
    name: golden[name].astype(np.float32) if name in golden else draw(name, shape) for name, shape in meta['tensors']}
  model, variables = interop.from_torch(path.stem, tensors)
  assert sum(leaf.size for leaf in trees.flatten(variables).values()) == meta['num_params']

  back = interop.to_torch(model, variables)
  assert set(back) == {name for name in tensors if not name.endswith('num_batches_tracked')}
  assert all(np.array_equal(back[name], tensors[name]) for name in back)

  size = meta['resolution']
  x = np.random.default_rng(0).standard_normal((4, size, size, 3)).astype(np.float32)
  logits = jax.jit(functools.partial(model.apply, train=False))(variables, x)
  assert np.abs(logits - golden['logits']).max() <= 1e-4 * np.abs(golden['logits']).max()
