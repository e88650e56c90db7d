"""Scales that are trained with the network: LSQ, LSQ+, PACT.

Each is a function (format) -> `Learned`, and so is one of your own. It starts from the first values that it sees: the
weights at init, the inputs of the first training batch. Its trainables then get gradients as parameters do, without
weight decay, and stay positive where they have to.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from lightjax.core import ste
from lightjax.core.typing import Array
from lightjax.quantize.formats import Format

__all__ = ['Learned', 'lsq', 'lsq_plus', 'pact']

Numbers = Mapping[str, Array]

# What is trained to be a step or a bound stays at or above this.
LEAST = 1e-8


class Learned(NamedTuple):
  """A trained quantizer on a format.

  Attributes:
    start: values [n, k] -> (trainables, other numbers), each [n], by name; of the latter at least one.
    parameters: (trainables, others) -> (scale, zero point), what is stored.
    levels: (x, trainables, others, count of entries that share a scale) -> (levels, scale), all of which broadcast to
      x; the forward pass sees their product, and the gradients are those of the method.
    project: trainables -> the nearest ones that are allowed, after the optimizer's step.
  """
  start: Callable[[Array], tuple[Numbers, Numbers]]
  parameters: Callable[[Numbers, Numbers], tuple[Array, Array]]
  levels: Callable[[Array, Numbers, Numbers, float], tuple[Array, Array]]
  project: Callable[[Numbers], Numbers]


def lsq(format: Format) -> Learned:
  """Learned step size: x^ = clip(round(x / s), -Qn, Qp) * s, with ds scaled by 1 / sqrt(count * Qp).

    dx^/ds = round(x / s) - x / s inside, -Qn or Qp beyond.    s starts at 2 mean|x| / sqrt(Qp)

  On an affine format the zero point is 0 if the first batch has no negative values, else 2^(bits - 1).

  Args:
    format: of the codes.
  Returns:
    The trained quantizer: 'step'.
  Source: Esser et al. 2020, arXiv:1902.08153, section 2.
  Deviations from the paper: a symmetric format has no code -2^(bits - 1); the gradient passes to values up to half a
    step beyond the last level, which round to it.
  """

  def start(values: Array) -> tuple[Numbers, Numbers]:
    zero_point = _half_if_signed(values, format)
    step = 2 * jnp.mean(jnp.abs(values), axis=-1) / jnp.sqrt(format.highest - zero_point)
    return {'step': _positive(step)}, {'zero_point': zero_point}

  def parameters(trained: Numbers, others: Numbers) -> tuple[Array, Array]:
    return trained['step'], others['zero_point']

  def levels(x: Array, trained: Numbers, others: Numbers, count: float) -> tuple[Array, Array]:
    zero_point = others['zero_point']
    step = ste.scale_gradient(trained['step'], _gradient_scale(format, zero_point, count))
    return format.levels(x, step, zero_point, None), step

  return Learned(start, parameters, levels, _keep_positive)


def lsq_plus(format: Format) -> Learned:
  """LSQ with, on an affine format, a trained offset: x^ = (clip(round(x / s) + z, 0, 2^bits - 1) - z) s, z = -b / s.

    dx^/db = 0 inside, 1 beyond.    The range starts at min x .. max x, a symmetric one at the mean +- 3 deviations.

  Args:
    format: of the codes.
  Returns:
    The trained quantizer: 'step', and on an affine format 'offset' (b).
  Source: Bhalgat et al. 2020, arXiv:2004.09576, section 3.
  Deviations from the paper: z is rounded and lies in 0..2^bits - 1, so that zero is a level; activations start from
    the range of the first batch, with no search for the least squared error.
  """
  if format.lowest != 0:
    plain = lsq(format)

    def start_weights(values: Array) -> tuple[Numbers, Numbers]:
      mean, deviation = jnp.mean(values, axis=-1), jnp.std(values, axis=-1)
      bound = jnp.maximum(jnp.abs(mean - 3 * deviation), jnp.abs(mean + 3 * deviation))
      return {'step': _positive(bound / (format.highest + 1))}, {'zero_point': jnp.zeros_like(mean)}

    return plain._replace(start=start_weights)

  def start(values: Array) -> tuple[Numbers, Numbers]:
    scale, zero_point = format.parameters(jnp.min(values, axis=-1), jnp.max(values, axis=-1))
    return {'step': scale, 'offset': -zero_point * scale}, {'first_zero_point': zero_point}

  def parameters(trained: Numbers, others: Numbers) -> tuple[Array, Array]:
    step = trained['step']
    return step, ste.clip(ste.round_(-trained['offset'] / step), 0.0, format.highest)

  def levels(x: Array, trained: Numbers, others: Numbers, count: float) -> tuple[Array, Array]:
    factor = _gradient_scale(format, others['first_zero_point'], count)
    trained = {name: ste.scale_gradient(each, factor) for name, each in trained.items()}
    step, zero_point = parameters(trained, others)
    return format.levels(x, step, zero_point, None), step

  return Learned(start, parameters, levels, _keep_positive)


def pact(format: Format, *, decay: float = 4e-5) -> Learned:
  """A trained bound of activations: x^ = round(clip(x, 0, a) / s) s, s = a / (2^bits - 1).

    dx^/da = 1 where x > a, else 0; dx^/dx = 1 in 0..a, else 0.    a starts at the first batch's max x

  It is for inputs that follow a ReLU: negative ones are cut off.

  Args:
    format: `affine`.
    decay: share of the bound that it loses in each step; without one a bound above all inputs would not move.
  Returns:
    The trained quantizer: 'bound'.
  Raises:
    ValueError: another format.
  Source: Choi et al. 2018, arXiv:1805.06085, eq. 1 to 3.
  Deviations from the paper: a decays by itself instead of by an L2 penalty in the loss, and does not start at a
    constant.
  """
  if format.kind != 'affine':
    raise ValueError(f"pact clips at zero and needs the format 'affine', not {format.name}; it is for activations.")

  def start(values: Array) -> tuple[Numbers, Numbers]:
    largest = jnp.max(values, axis=-1)
    return {'bound': jnp.where(largest >= LEAST, largest, 1)}, {'zero_point': jnp.zeros_like(largest)}

  def parameters(trained: Numbers, others: Numbers) -> tuple[Array, Array]:
    scale, _ = format.parameters(jnp.zeros_like(trained['bound']), trained['bound'])
    return scale, others['zero_point']

  def levels(x: Array, trained: Numbers, others: Numbers, count: float) -> tuple[Array, Array]:
    scale, zero_point = (lax.stop_gradient(each) for each in parameters(trained, others))
    clipped = ste.clip(x.astype(jnp.float32), 0.0, trained['bound']) / scale
    return ste.straight_through(clipped, format.levels(lax.stop_gradient(x), scale, zero_point, None)), scale

  def project(trained: Numbers) -> Numbers:
    return _keep_positive({'bound': trained['bound'] * (1 - decay)})

  return Learned(start, parameters, levels, project)


def _half_if_signed(values: Array, format: Format) -> Array:
  """The zero point: in the middle of an affine format if there are negative values, else 0."""
  half = (format.highest + 1) / 2 if format.lowest == 0 else 0.0
  return jnp.where(jnp.min(values, axis=-1) < 0, jnp.float32(half), 0)


def _gradient_scale(format: Format, zero_point: Array, count: float) -> Array:
  return 1 / jnp.sqrt(count * (format.highest - zero_point))


def _positive(step: Array) -> Array:
  return jnp.where(step >= LEAST, step, 1)


def _keep_positive(trained: Numbers) -> Numbers:
  return {name: each if name == 'offset' else jnp.maximum(each, LEAST) for name, each in trained.items()}
