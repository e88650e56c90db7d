"""Grids against qwix, an independent implementation, where both do the same."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core.encoded import spread
from lightjax.core.transform import Context
from lightjax.core.typing import Layout
from lightjax.quantize import formats, granularities, scales, weights

qwix = pytest.importorskip('qwix', reason='qwix, an independent reference, is not installed: pip install qwix')

KERNEL = np.float32(np.random.default_rng(0).normal(size=(3, 3, 16, 6)) * np.logspace(-2, 1, 6))
KERNEL[..., 5] = 0
LAYOUT = Layout('conv', (3,), 0, input_axes=(2,))
# qwix puts the largest value half a step beyond the last level, here it is on it.
ON_THE_LAST = {8: 127.5 / 127, 4: 7.5 / 7}


def ours(**options):
  """(values, scales) of a kernel under `weights`."""
  variables = {'kernel': jnp.asarray(KERNEL)}
  method = weights(**options)
  own = method.init(variables, Context({'kernel': LAYOUT}, paths=('kernel',)))
  return method.view(variables, own, None)['kernel'], method.finalize(variables, own).parameters['kernel'].scale


def theirs(qtype, method, **axes):
  """The same of `qwix.quantize`."""
  found = qwix.quantize(jnp.asarray(KERNEL), qtype, calibration_method=method, **axes)
  return qwix.dequantize(found), found.scale


def agree(one, other, steps):
  """Equal grids, and the same level but for a few values that lie in the middle between two."""
  np.testing.assert_allclose(one[1], other[1], rtol=1e-6)
  apart = np.abs(np.asarray(one[0]) - np.asarray(other[0])) / spread(np.asarray(one[1]), KERNEL.shape)
  assert np.isfinite(apart).all() and apart.max() <= steps
  assert (apart > 1e-3).mean() <= 2e-3


@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('granularity, axes', [
  (granularities.channel, {'channelwise_axes': (3,)}), (granularities.tensor, {}),
  (granularities.group(4), {'channelwise_axes': (3,), 'tiled_axes': {2: 4}})], ids=['channel', 'tensor', 'groups'])
def test_symmetric_weights(bits, granularity, axes):
  dtype, method = getattr(jnp, f'int{bits}'), f'absmax,{ON_THE_LAST[bits]}'
  agree(ours(bits=bits, granularity=granularity), theirs(dtype, method, **axes), 1.01)


@pytest.mark.parametrize('bits', [8, 4])
def test_affine_weights(bits):
  one = ours(bits=bits, format=formats.affine, scale=scales.min_max)
  agree(one, theirs(getattr(jnp, f'int{bits}'), 'minmax', channelwise_axes=(3,)), 1.01)


@pytest.mark.parametrize('name, dtype', [('e4m3', jnp.float8_e4m3fn), ('e5m2', jnp.float8_e5m2)])
def test_8_bit_floats(name, dtype):
  one = ours(bits=8, format=getattr(formats, name))
  agree(one, theirs(dtype, 'absmax', channelwise_axes=(3,)), float(jnp.finfo(dtype).max) / 7)


def test_activations_on_an_affine_grid():
  x = jax.random.normal(jax.random.key(0), (8, 64)) - 0.7
  grid = formats.affine(8)
  scale, zero_point = grid.parameters(x.min(), x.max())
  found = qwix.quantize(x, jnp.int8, calibration_method='minmax')
  assert int(found.zero_point.item()) + 128 == int(zero_point)
  np.testing.assert_allclose(grid.levels(x, scale, zero_point, None) * scale, qwix.dequantize(found), atol=1e-5)
