"""Latency tables: the operations of a network, found once each, and what their sums and a line predict."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments import latency as command
from lightjax import models
from lightjax.search import Choice, Space, latency, spaces

IMAGE = jax.ShapeDtypeStruct((2, 28, 28, 1), 'float32')


def tiny(options):
  return {'name': 'mobile_stages', 'stem_features': 8, 'head_features': options['head'],
          'stages': ((2, 3, 8, options['blocks'], 2, 0),)}


TINY = Space('tiny', (Choice('head', (8, 16)), Choice('blocks', (1, 2))), tiny)


def test_operations_are_the_modules_in_order_and_equal_ones_are_one():
  model = models.create('mobile_stages', stages=((3, 3, 16, 3, 1, 0), (3, 3, 24, 1, 2, 0.25)))
  found = latency.Operations().of(model, IMAGE)
  assert [each.label for each in found] == [
    'ConvNorm 28x28x1 -> 28x28x16', *3 * ['InvertedResidual 28x28x16 -> 28x28x16'],
    'InvertedResidual 28x28x16 -> 14x14x24', 'ConvNorm 14x14x24 -> 14x14x128', 'Dense 128 -> 10']
  assert len({each.key for each in found}) == 5
  assert [each.key for each in latency.Operations().of(model, IMAGE)] == [each.key for each in found]
  other = latency.Operations().of(model, jax.ShapeDtypeStruct((3, 28, 28, 1), 'float32'))
  assert not {each.key for each in other} & {each.key for each in found}
  assert found[-1].bytes_moved == 4 * (128 * 10 + 10 + 2 * (128 + 10))


def test_the_same_program_is_one_operation_whatever_its_functions_are_called():
  class Layer(nn.Module):
    activation: object

    @nn.compact
    def __call__(self, x, train=False):
      return self.activation(x)

  class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
      return Layer(nn.relu)(Layer(lambda x: 3 * x)(Layer(lambda x: 2 * x, name='b')(Layer(lambda x: 2 * x)(x, False))))

  keys = [each.key for each in latency.Operations().of(Network(), IMAGE)]
  assert keys[0] == keys[1] and len(set(keys)) == 3


def test_a_large_operation_takes_longer_and_known_ones_are_not_measured_again():
  class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(4, name='small')(nn.Conv(64, (7, 7), name='large')(x).mean((1, 2)))

  found = latency.Operations().of(Two(), jax.ShapeDtypeStruct((8, 64, 64, 3), 'float32'))
  kept = []
  table = latency.measure(found, rounds=5, keep=lambda table: kept.append(dict(table)))
  large, small = (table[each.key] for each in found)
  assert large.median_ms > small.median_ms >= 0 and large.quarter_ms <= large.median_ms <= large.three_quarters_ms
  assert kept == [table]
  assert latency.measure(found, known=table) == table  # 30 rounds would give other figures
  assert latency.predict(found, table) == pytest.approx(large.median_ms + small.median_ms)
  assert latency.predict(found, table, latency.Calibration(2.0, 1.0)) == pytest.approx(
    2 * (large.median_ms + small.median_ms) + 1)
  with pytest.raises(ValueError, match='no Conv 64x64x3 -> 64x64x64'):
    latency.predict(found, {found[1].key: small})


def test_the_line_is_that_of_weighted_least_squares():
  generator = np.random.default_rng(0)
  sums = generator.uniform(1, 5, 12)
  measured = 1.3 * sums + 0.4 + generator.normal(0, 0.05, 12)
  line = latency.calibrate(sums.tolist(), measured.tolist())
  expected = np.polyfit(sums, measured, 1, w=1 / measured)
  np.testing.assert_allclose(line, expected, rtol=1e-9)
  with pytest.raises(ValueError, match='two or more networks'):
    latency.calibrate([1.0, 1.0], [1.0, 2.0])


def test_a_table_has_every_operation_and_goes_on_on_the_same_machine(tmp_path):
  place = tmp_path / 'new' / 'table.json'
  arguments = {'whole': 4, 'calibration': 2, 'rounds': 4}
  record = command.table_of(TINY, list(TINY), IMAGE, place, **arguments)
  assert json.loads(place.read_text()) == record
  # stem, two kinds of block, a head and a classifier of each width
  assert len(record['operations']) == 7
  assert all(record['versions'][name] for name in ('jax', 'jaxlib')) and record['processor']
  for row in record['networks']:
    candidate = TINY.candidate(row['options'])
    operations = latency.Operations().of(models.create(**TINY.spec(candidate)), IMAGE)
    assert row['sum_ms'] == pytest.approx(sum(record['operations'][each.key]['median_ms'] for each in operations))
  errors = [abs(row['predicted_ms'] / row['measured_ms'] - 1)
            for row in record['networks'] if not row['is_calibration']]
  assert len(errors) == 2 and record['median_error'] == pytest.approx(np.median(errors))
  assert command.table_of(TINY, list(TINY), IMAGE, place, **arguments)['operations'] == record['operations']
  place.write_text(json.dumps(record | {'processor': 'another'}))
  assert command.table_of(TINY, list(TINY), IMAGE, place, **arguments)['operations'] != record['operations']


def test_noise_gives_finite_outputs():
  """Timings of NaN or of denormal numbers would be others."""
  operations = latency.Operations().of(models.create(**spaces.mobile28().spec((0, 0, 0, 0, 0, 1))), IMAGE)
  for each in operations[:2]:
    assert jnp.isfinite(latency._ready(each)()).all()
