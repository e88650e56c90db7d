import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.models.alexnet import local_response_normalization


@pytest.mark.parametrize('size', [3, 5])
def test_local_response_normalization_divides_by_the_energy_of_the_neighbours(size):
  x = 10 * np.random.default_rng(0).standard_normal((2, 3, 7))
  wanted = np.empty_like(x)
  for channel in range(7):
    neighbours = x[..., max(0, channel - size // 2):channel + size // 2 + 1]
    wanted[..., channel] = x[..., channel] / (2 + 0.1 / size * (neighbours ** 2).sum(-1)) ** 0.75
  y = local_response_normalization(jnp.asarray(x, jnp.float32), size=size, alpha=0.1, k=2.0)
  np.testing.assert_allclose(y, wanted, rtol=1e-5)


def test_caffes_network_has_two_groups_where_the_paper_has_two_devices():
  layers = count(models.create('alexnet_caffe'), (227, 227, 3)).layers
  kernels = {layer.module: layer.shapes['kernel'] for layer in layers}
  assert [kernels[f'conv{index}'][2] for index in range(1, 6)] == [3, 48, 256, 192, 192]
  assert kernels['fc1'] == (6 * 6 * 256, 4096)


@pytest.mark.parametrize('name,theirs', [
  ('alexnet', ['features.0', 'features.10', 'classifier.1', 'classifier.6']),
  ('alexnet_caffe', ['conv1', 'conv5', 'fc6', 'fc8']),
])
def test_modules_have_the_references_names(name, theirs):
  model = models.create(name)
  assert [model.torch_name(module) for module in ('conv1', 'conv5', 'fc1', 'classifier')] == theirs
  assert model.torch_flattened() == {'fc1': (6, 6, 256)}
