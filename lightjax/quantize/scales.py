"""Where scales come from: the range that the values of a row are taken to have, or scales that are trained.

An estimated range is a function (values [n, k], format) -> (low [n], high [n]), a constant for the gradient; your own
is one of the same form. For weights a row is what shares a scale, for activations it is a batch, and ranges are
averaged over batches (`ranges.observe`). What is computed from sums rounds otherwise compiled than not, so that a range
of weights should not depend on their last bits: the stored scale would be an ulp beside the simulation's. Trained
scales are functions (format) -> `learned.Learned`.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core.typing import Array
from lightjax.quantize.formats import Format
from lightjax.quantize.learned import lsq, lsq_plus, pact

__all__ = ['absmax', 'fixed', 'kl', 'lsq', 'lsq_plus', 'min_max', 'mse', 'pact', 'percentile']

Limits = tuple[Array, Array]
Estimator = Callable[[Array, Format], Limits]

KL_BINS = 2048


def absmax(values: Array, format: Format) -> Limits:
  """-max|x| .. max|x|.

  Args:
    values: [n, k].
    format: unused.
  Returns:
    (low [n], high [n]).
  """
  largest = jnp.max(jnp.abs(values), axis=-1)
  return -largest, largest


def min_max(values: Array, format: Format) -> Limits:
  """min x .. max x.

  Args:
    values: [n, k].
    format: unused.
  Returns:
    (low [n], high [n]).
  """
  return jnp.min(values, axis=-1), jnp.max(values, axis=-1)


def fixed(low: float, high: float) -> Estimator:
  """The same range whatever the values are: 0..1 for DoReFa's activations, -1..1 for WRPN's weights.

  Args:
    low: at most 0.
    high: at least 0, above `low`.
  Returns:
    A range.
  """
  if not low <= 0 <= high or low == high:
    raise ValueError(f'fixed({low}, {high}): a range holds zero and is not empty.')

  def limits(values: Array, format: Format) -> Limits:
    return tuple(jnp.full(values.shape[:1], each, jnp.float32) for each in (low, high))  # type: ignore[return-value]

  return limits


def percentile(ratio: float) -> Estimator:
  """The range that holds all but the outermost values: quantile(1 - ratio) .. quantile(ratio).

  Args:
    ratio: 0.5..1; 0.999 cuts off a thousandth at either end. 1 is `min_max`.
  Returns:
    A range.
  Source: Wu et al. 2020, arXiv:2004.09602.
  """
  if not 0.5 <= ratio <= 1:
    raise ValueError(f'percentile({ratio}): a ratio lies in 0.5..1.')

  def limits(values: Array, format: Format) -> Limits:
    low, high = jnp.quantile(values, jnp.array([1 - ratio, ratio], jnp.float32), axis=-1)
    return low, high

  return limits


def mse(values: Array, format: Format, *, candidates: int = 40) -> Limits:
  """Of the min-max range shrunk by 1, (c - 1) / c, ..., 1 / c, the one whose rounding has the least squared error.

  Args:
    values: [n, k].
    format: whose rounding it is.
    candidates: c, how many are tried.
  Returns:
    (low [n], high [n]).
  Source: Shin, Hwang, Sung 2016, arXiv:1512.01322 (L2 error minimization); a search over a line of factors as in Nagel
    et al. 2021, arXiv:2106.08295, section 3.1.
  """
  low, high = min_max(values, format)
  factors = jnp.asarray(np.arange(candidates, 0, -1, dtype=np.float32) / np.float32(candidates))

  def error(factor: Array) -> Array:
    scale, zero_point = (each[:, None] for each in format.parameters(low * factor, high * factor))
    return jnp.sum(jnp.square(format.levels(values, scale, zero_point, None) * scale - values), axis=-1)

  best = factors[jnp.argmin(lax.map(error, factors), axis=0)]  # of equals the widest
  return low * best, high * best


def kl(values: Array, format: Format, *, candidates: int = 64) -> Limits:
  """Min-max, cut at the threshold on |x| at which the quantized histogram diverges least from the whole one.

    KL(P || Q): P is the histogram of |x| up to the threshold, what lies beyond in its last bin; Q is the histogram up
    to the threshold in as many levels as the format has on a side, the mass of a level spread over its non-empty bins.

  Args:
    values: [n, k].
    format: whose levels are counted.
    candidates: thresholds that are tried, evenly spaced over the bins.
  Returns:
    (low [n], high [n]).
  Source: Migacz 2017, 8-bit inference with TensorRT (GPU Technology Conference), with its 2048 bins.
  Deviations from the source: not every bin is tried as threshold.
  """
  low, high = min_max(values, format)
  # Levels on a side: an affine format has twice as many if there are no negative values.
  levels = jnp.where((low < 0) & (format.lowest == 0), (format.highest + 1) / 2, format.highest + 1)
  levels = jnp.minimum(levels, 2.0**format.bits)
  thresholds = jax.vmap(lambda row, count: _kl_threshold(row, count, candidates))(jnp.abs(values), levels)
  return jnp.maximum(low, -thresholds), jnp.minimum(high, thresholds)


def _kl_threshold(magnitudes: Array, levels: Array, candidates: int) -> Array:
  largest = jnp.max(magnitudes)
  width = jnp.where(largest > 0, largest, 1) / KL_BINS
  bins = jnp.clip(jnp.floor(magnitudes / width), 0, KL_BINS - 1).astype(jnp.int32)
  histogram = jnp.zeros(KL_BINS, jnp.float32).at[bins].add(1)
  index = jnp.arange(KL_BINS)

  def divergence(kept: Array) -> Array:
    """Of the first `kept` bins."""
    inside = index < kept
    reference = jnp.where(inside, histogram, 0)
    outliers = histogram.sum() - reference.sum()
    reference = reference + jnp.where(index == kept - 1, outliers, 0)
    level = jnp.clip(jnp.floor(index * levels / kept), 0, KL_BINS - 1).astype(jnp.int32)
    filled = inside & (histogram > 0)
    mass = jnp.zeros(KL_BINS).at[level].add(jnp.where(filled, histogram, 0))
    count = jnp.zeros(KL_BINS).at[level].add(filled.astype(jnp.float32))
    quantized = jnp.where(filled, mass[level] / jnp.maximum(count[level], 1), 0)
    p = reference / jnp.maximum(reference.sum(), 1)
    q = quantized / jnp.maximum(quantized.sum(), 1)
    # A last bin that is filled by outliers alone has p > 0 and q = 0: smoothed, it counts as a large divergence.
    return jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-12) / jnp.maximum(q, 1e-12)), 0))

  kept = jnp.round(jnp.linspace(KL_BINS, levels, candidates)).astype(jnp.int32)
  best = kept[jnp.argmin(lax.map(divergence, kept))]  # of equals the widest
  return jnp.where(best == KL_BINS, largest, best * width)


def is_learned(scale: Callable[..., Any]) -> bool:
  """Whether it is trained, a function of the format alone."""
  return 'values' not in inspect.signature(scale).parameters
