"""Figures of a stored network by parameter, against their definitions."""
import numpy as np
import pytest

from experiments import layers
from lightjax import artifact, measure


def test_figures_of_parameters_and_of_the_whole():
  rng = np.random.default_rng(0)
  book = np.array([-1.0, 0.5, 2.0, 3.0], np.float32)
  kernel = np.where(rng.random((100, 80)) < 0.1, book[rng.geometric(0.7, (100, 80)) % 4], np.float32(0))
  variables = {'params': {'fc': {'kernel': kernel, 'bias': np.arange(1, 81, dtype=np.float32)}}}
  files = {name: artifact.to_bytes(network=None, variables=variables, entropy_coded=name == 'coded')
           for name in ('coded', 'plain')}
  stored = {name: artifact.from_bytes(data) for name, data in files.items()}
  np.testing.assert_array_equal(stored['plain'].variables['params']['fc']['kernel'], kernel)
  records, whole = layers.figures(
    measure.layers(variables), {name: each.sizes for name, each in stored.items()})
  found = {record['path']: record for record in records}['fc/kernel']
  nonzeros = np.count_nonzero(kernel)
  assert found['density'] == pytest.approx(nonzeros / 8000) and found['nonzeros'] == nonzeros
  assert found['plain/value_bits'] == pytest.approx(2, abs=0.01)  # four values
  shares = np.unique(kernel[kernel != 0], return_counts=True)[1] / nonzeros
  assert found['coded/value_bits'] == pytest.approx(-np.sum(shares * np.log2(shares)), rel=0.05)
  density = nonzeros / 8000
  positions = -(np.log2(density) + (1 / density - 1) * np.log2(1 - density))
  assert found['coded/position_bits'] == pytest.approx(positions, rel=0.03) and found['plain/position_bits'] > positions
  for name, data in files.items():
    assert whole[f'{name}/bytes'] == len(data) and whole[f'{name}/rate'] == pytest.approx(len(data) / (4 * 8080))
    assert whole[f'{name}/value_bits'] == found[f'{name}/value_bits']  # the bias is stored as it is
    assert found[f'{name}/rate'] < whole[f'{name}/rate']
  assert whole['compression'] == pytest.approx(4 * 8080 / len(files['coded']))
  assert whole['density'] == pytest.approx((nonzeros + 80) / 8080)
