import jax
import numpy as np
import pytest

from lightjax.quantize import formats, scales

RNG = np.random.default_rng(0)
ROWS = np.float32(RNG.normal(size=(3, 4000)) * [[1.0], [5.0], [0.0]])
ROWS[0, 7] = 40.0  # an outlier
PLAIN = {'absmax': scales.absmax, 'min_max': scales.min_max, 'percentile': scales.percentile(0.99), 'mse': scales.mse,
         'kl': scales.kl, 'fixed': scales.fixed(-1.0, 2.0)}


@pytest.fixture(scope='module')
def found():
  """Name -> format -> (low, high), under jit."""
  @jax.jit
  def of(rows):
    return {name: {grid.kind: each(rows, grid) for grid in (formats.symmetric(4), formats.affine(4))}
            for name, each in PLAIN.items()}
  return jax.tree.map(np.asarray, of(ROWS))


def test_ranges_restated_in_numpy(found):
  np.testing.assert_array_equal(found['absmax']['symmetric'], [-np.abs(ROWS).max(1), np.abs(ROWS).max(1)])
  np.testing.assert_array_equal(found['min_max']['symmetric'], [ROWS.min(1), ROWS.max(1)])
  np.testing.assert_allclose(found['percentile']['symmetric'], np.quantile(ROWS, [0.01, 0.99], axis=1), rtol=1e-5)
  np.testing.assert_array_equal(found['fixed']['affine'], [[-1] * 3, [2] * 3])


def squared_error(rows, low, high, bits, kind):
  """Of rounding to the grid over [low, high], in float64."""
  rows, low, high = (np.float64(each) for each in (rows, low, high))
  if kind == 'symmetric':
    limit = 2 ** (bits - 1) - 1
    scale, least, most = max(-low, high) / limit, -limit, limit
  else:
    scale = (max(high, 0) - min(low, 0)) / (2**bits - 1)
    least = -np.round(-min(low, 0) / scale)
    most = 2**bits - 1 + least
  return ((np.clip(np.round(rows / scale), least, most) * scale - rows) ** 2).sum()


@pytest.mark.parametrize('kind', ['symmetric', 'affine'])
def test_mse_finds_the_factor_that_an_exhaustive_search_in_numpy_finds(found, kind):
  for row in range(2):
    low, high = ROWS[row].min(), ROWS[row].max()
    errors = [squared_error(ROWS[row], low * f / 40, high * f / 40, 4, kind) for f in range(1, 41)]
    got = squared_error(ROWS[row], found['mse'][kind][0][row], found['mse'][kind][1][row], 4, kind)
    assert got == pytest.approx(min(errors), rel=1e-3)
    assert got < squared_error(ROWS[row], low, high, 4, kind)


def numpy_kl_threshold(values, levels, candidates):
  """Migacz's search in plain loops."""
  magnitudes, bins = np.abs(np.float64(values)), 2048
  width = magnitudes.max() / bins
  histogram = np.bincount(np.minimum((magnitudes / width).astype(int), bins - 1), minlength=bins).astype(float)
  best, chosen = np.inf, bins
  for kept in np.round(np.linspace(bins, levels, candidates)).astype(int):
    p = histogram[:kept].copy()
    filled = p > 0
    q = np.zeros(kept)
    level = np.floor(np.arange(kept) * levels / kept).astype(int)
    for each in range(levels):
      inside = (level == each) & filled
      if inside.any():
        q[inside] = p[level == each].sum() / inside.sum()
    p[-1] += histogram[kept:].sum()
    p, q = p / p.sum(), q / max(q.sum(), 1)
    divergence = (p[p > 0] * np.log(p[p > 0] / np.maximum(q[p > 0], 1e-12))).sum()
    if divergence < best - 1e-9:
      best, chosen = divergence, kept
  return magnitudes.max() if chosen == bins else chosen * width


def test_kl_finds_the_threshold_of_the_search_in_plain_loops(found):
  for row in range(2):
    expected = numpy_kl_threshold(ROWS[row], 8, 64)
    low, high = (each[row] for each in found['kl']['symmetric'])
    width = np.abs(ROWS[row]).max() / 2048
    assert max(-low, high) == pytest.approx(expected, abs=float(40 * width))  # a neighbouring candidate, by rounding
    assert np.abs(ROWS[row]).max() / 2 > expected or row == 1
  assert max(-found['kl']['symmetric'][0][0], found['kl']['symmetric'][1][0]) < 20  # the outlier is cut


@pytest.mark.parametrize('name', [name for name in PLAIN if name != 'fixed'])
def test_trap_6_an_empty_row_has_an_empty_range(found, name):
  for low, high in found[name].values():
    assert low[2] == high[2] == 0
    assert np.isfinite(low).all() and np.isfinite(high).all()


@pytest.mark.parametrize('make, message', [
  (lambda: scales.percentile(99.9), r'percentile\(99.9\): a ratio lies in'),
  (lambda: scales.fixed(0.5, 1.0), 'a range holds zero'), (lambda: scales.fixed(0.0, 0.0), 'is not empty')])
def test_bad_arguments_are_refused_where_they_are_written(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_what_is_learned_and_what_is_estimated():
  learned = {name for name in scales.__all__ if name not in ('fixed', 'percentile')
             and scales.is_learned(getattr(scales, name))}
  assert learned == {'lsq', 'lsq_plus', 'pact'}
  assert not scales.is_learned(scales.percentile(0.9)) and not scales.is_learned(scales.fixed(0.0, 1.0))
