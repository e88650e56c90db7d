"""A small compressed network with a bit of everything."""
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from lightjax.core.encoded import Encoded, Integers


@pytest.fixture(scope='session')
def network():
  """Dense, sparse, integers, bfloat16, statistics and activation ranges, as keywords of `save`."""
  rng = np.random.default_rng(0)
  codes = (rng.integers(-7, 8, (3, 3, 4, 8)) * (rng.random((3, 3, 4, 8)) < 0.5)).astype(np.int8)
  scale = rng.uniform(0.01, 0.1, (1, 1, 1, 8)).astype(np.float32)
  sparse = rng.normal(size=(40, 10)).astype(np.float32) * (rng.random((40, 10)) < 0.1)
  grouped = Integers(
    rng.integers(-4, 4, (6, 5)).astype(np.int8), rng.uniform(0.1, 1, (3, 5)).astype(np.float32), 3,
    rng.integers(-4, 4, (3, 5)).astype(np.float32))
  floats = Integers(rng.normal(size=(5, 4)).astype(ml_dtypes.float8_e4m3fn), np.full((1, 4), 0.3, np.float32), 8)
  return {
    'network': {'name': 'small', 'widths': [8, 10]},
    'variables': {
      'params': {
        'conv': {'kernel': codes.astype(np.float32) * scale, 'bias': jnp.ones(8, jnp.bfloat16)},
        'fc': {'kernel': np.where(sparse == 0, np.float32(0), sparse), 'bias': jnp.arange(10.0)},
        'grouped': {'kernel': grouped.decode()}, 'floats': {'kernel': floats.decode()},
      },
      'batch_stats': {'norm': {'mean': rng.normal(size=8).astype(np.float32), 'var': np.ones(8, np.float32)}},
    },
    'encoded': Encoded(
      {'conv/kernel': Integers(jnp.asarray(codes), jnp.asarray(scale), 4), 'grouped/kernel': grouped,
       'floats/kernel': floats},
      {'fc': [{'scale': np.float32(0.1), 'zero': 3, 'levels': np.arange(4, dtype=np.int8), 'signed': True}]},
    ),
    'meta': {'seed': 1, 'accuracy': 0.9, 'note': None},
  }
