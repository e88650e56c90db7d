"""Stages of `config.compress`, by name: each turns its fields into a transform.

A stage of your own is a function of the same form in a file of yours, `transform: 'my_file:my_stage'` in a config:
(run, *, its fields) -> Transform.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from lightjax import binarize, quantize
from lightjax import share as sharing
from lightjax.core import rules, schedules, specs, trees
from lightjax.core.transform import Own, Transform, transform, where
from lightjax.core.typing import Array, Variables
from lightjax.prune import budgets, criteria, patterns
from lightjax.prune import transforms as pruning

__all__ = [
  'activations', 'binary_activations', 'binary_weights', 'dorefa_weights', 'max_norm', 'prune', 'share',
  'trained_ternary', 'weights',
]


class Run(NamedTuple):
  """What a stage may know of the run: its length in steps."""
  steps: int


def prune(
  run: Run, *, criterion: str, sparsity: float, budget: str, begin: float, end: float, every: int,
  pattern: str = 'unstructured', schedule: str = 'cubic', first: str = '', grow: str = '', fraction: float = 0.3,
  straight_through: bool = False, rounds: int = 1,
) -> Transform:
  """Pruning: while the network trains, at one step where `begin` equals `end`, before training where both are 0.

  Args:
    run: its length.
    criterion: a name of lightjax.prune.criteria, or 'my_file:my_criterion'.
    sparsity: final ratio of zeros, 0..1 (of MACs with the budget 'equal_macs(...)').
    budget: a name of lightjax.prune.budgets, with arguments where it takes some: 'equal_macs(erk)',
      'by_path((("fc1/kernel", 0.9), (".*", 0.5)))'.
    begin: when the masks first move, as a fraction of the run.
    end: when they last move, likewise.
    every: steps between two moves; the length of a phase of 'alternating'.
    pattern: a name of lightjax.prune.patterns, likewise: 'n_of_m(2, 4)'.
    schedule: a name of lightjax.core.schedules: 'cubic' from 0 to the sparsity, 'periodic' or 'alternating' at it.
    first: criterion of the first move; '' for `criterion`.
    grow: criterion by which others grow at each later move (RigL: gradient_magnitude, SET: random); '' for none.
    fraction: of the kept weights that a move exchanges at first, 0..1; it falls to 0 at `end`.
    straight_through: pruned weights keep their values and go on learning.
    rounds: rounds of a move before training.
  Returns:
    The transform.
  """
  if not 0.0 <= begin <= end <= 1.0:
    raise ValueError(f'begin={begin} and end={end} are fractions of the run, 0 <= begin <= end <= 1.')
  if not 0.0 <= sparsity <= 1.0:
    raise ValueError(f'sparsity={sparsity} is a ratio 0..1.')
  first_step, last_step = round(begin * run.steps), round(end * run.steps)
  name = 'one_shot' if first_step == last_step else schedule
  follow = specs.call(
    specs.resolve(name, schedules, field='schedule'), {}, field=f'schedule={name}', initial=0.0, final=sparsity,
    value=sparsity, begin=first_step, end=last_step, every=every)

  def criterion_named(text: str, field: str) -> Any:
    return specs.resolve(text, criteria, field=field) if text else None

  growing = criterion_named(grow, 'grow')
  return pruning.prune(
    specs.resolve(criterion, criteria, field='criterion'),
    specs.resolve_call(pattern, patterns, field='pattern'),
    specs.resolve_call(budget, budgets, field='budget'),
    follow, every=every, first=criterion_named(first, 'first'), straight_through=straight_through, rounds=rounds,
    growth=growing and pruning.Growth(growing, fraction, last_step))


def weights(
  run: Run, *, bits: int, format: str = 'symmetric', scale: str = 'absmax', granularity: str = 'channel',
  stochastic: bool = False, fold: bool = False, freeze: float = 1.0,
) -> Transform:
  """Weights on a grid of codes; see `lightjax.quantize.weights`.

  Args:
    run: its length.
    bits: 2..8 a weight.
    format: a name of lightjax.quantize.formats, with arguments where it takes some: 'power_of_two(symmetric)'.
    scale: a name of lightjax.quantize.scales, likewise: 'percentile(0.999)', 'lsq'; or 'my_file:my_scale'.
    granularity: a name of lightjax.quantize.granularities, likewise: 'group(32)'.
    stochastic: stochastic rounding in training.
    fold: round kernels with the BatchNorm that follows them folded in; see `lightjax.quantize.folded`.
    freeze: from when on BatchNorm's statistics stand still, as a fraction of the run; needs `fold`; 1 for never.
  Returns:
    The transform.
  """
  if not 0.0 <= freeze <= 1.0:
    raise ValueError(f'freeze={freeze} is a fraction of the run, 0..1.')
  if freeze < 1.0 and not fold:
    raise ValueError(f'freeze={freeze} freezes the statistics of norms that are folded; set fold=True, or freeze=1.0.')
  method = quantize.weights(
    bits=bits, format=specs.resolve_call(format, quantize.formats, field='format'),
    scale=specs.resolve_call(scale, quantize.scales, field='scale'),
    granularity=specs.resolve_call(granularity, quantize.granularities, field='granularity'), stochastic=stochastic)
  return quantize.folded(method, freeze=round(freeze * run.steps) if freeze < 1.0 else None) if fold else method


def activations(
  run: Run, *, bits: int, format: str = 'affine', scale: str = 'min_max', decay: float = 0.99, shared: bool = False,
) -> Transform:
  """Inputs of layers on a grid of codes; see `lightjax.quantize.activations`.

  Args:
    run: its length.
    bits: 2..8 an activation.
    format: as for `weights`.
    scale: as for `weights`.
    decay: weight of the past in the moving average of a range, 0..1.
    shared: inputs that an addition or a concatenation joins have one scale.
  Returns:
    The transform.
  """
  return quantize.activations(
    bits=bits, format=specs.resolve_call(format, quantize.formats, field='format'),
    scale=specs.resolve_call(scale, quantize.scales, field='scale'), decay=decay, shared=shared)


def dorefa_weights(run: Run, *, bits: int) -> Transform:
  """DoReFa's weights; its inputs are the stage `activations` with scale 'fixed(0.0, 1.0)'."""
  return quantize.low_bit.dorefa_weights(bits=bits)


def binary_weights(run: Run, *, binarizer: str, clip: float = 0.0) -> Transform:
  """Weights on two or three levels; see `lightjax.binarize.weights`.

  Args:
    run: its length, for binarizers that change with it.
    binarizer: a name of lightjax.binarize.binarizers, or 'my_file:my_binarizer'.
    clip: latent weights stay in [-clip, clip]; 0 for no bound.
  Returns:
    The transform.
  """
  function = specs.resolve(binarizer, binarize.binarizers, field='binarizer')
  return binarize.weights(function, clip=clip or None, steps=run.steps)


def max_norm(run: Run, *, bound: float) -> Transform:
  """Weight constraint: after each step, no unit's incoming weights are longer than `bound`.

  Args:
    run: its length.
    bound: largest Euclidean norm, above 0, of the weights of one output (the kernel's last axis).
  Returns:
    The transform; it stores nothing.
  Source: Srivastava et al. 2014, JMLR 15, section 5.1.
  """

  def project(variables: Variables, own: Own) -> Variables:
    leaves = trees.flatten(variables)

    def shortened(weight: Array) -> Array:
      norms = jnp.sqrt(jnp.square(weight).sum(tuple(range(weight.ndim - 1)), keepdims=True))
      return weight * (bound / jnp.maximum(norms, bound))

    return trees.replace(variables, {path: shortened(leaves[path]) for path in own.state})

  return transform('max_norm', project=project, init=lambda variables, context: Own(
    state={path: jnp.zeros(()) for path in context.select(variables)}))


def trained_ternary(run: Run, *, threshold: float = 0.05) -> Transform:
  """Three levels a layer, two of them trained; see `lightjax.binarize.trained_ternary`."""
  return binarize.trained_ternary(threshold=threshold)


def binary_activations(run: Run, *, estimator: str, scaled: bool = False) -> Transform:
  """Binary inputs of layers; see `lightjax.binarize.activations`.

  Args:
    run: its length, for estimators that change with it.
    estimator: a name of lightjax.binarize.estimators, or 'my_file:my_estimator'.
    scaled: XNOR-Net's scale of the inputs.
  Returns:
    The transform.
  """
  function = specs.resolve(estimator, binarize.estimators, field='estimator')
  return binarize.activations(function, steps=run.steps, scaled=scaled)


def share(
  run: Run, *, start: str, bits: int | Sequence[tuple[str, int]], together: bool = False, entropy: float = 0.0,
  every: int = 0,
) -> Transform:
  """Weights that share the values of a trained codebook; see `lightjax.share`.

  Args:
    run: its length.
    start: a name of lightjax.share.starts, or 'my_file:my_start'.
    bits: 1..8, or pairs (pattern of paths, bits).
    together: one codebook for all.
    entropy: penalty of a bit of entropy, as a ratio of the weights' variance.
    every: steps after which weights choose their entry again; 0 for never.
  Returns:
    The transform.
  """
  return sharing.share(
    specs.resolve(start, sharing.starts, field='start'), bits=bits, together=together, entropy=entropy, every=every)


def build(run: Run, fields: dict[str, Any], *, field: str) -> Transform:
  """A stage from its config: `transform`, `rules`, `skip`, and the fields of its function.

  Args:
    run: its length.
    fields: `transform` is a name of this module or 'my_file:my_stage'; `rules` are pairs (pattern, True or False),
      False leaves alone; `skip` names the defaults that go before them.
    field: where the fields stand in the config, for messages.
  Returns:
    The transform, under its rules.
  """
  own = dict(fields)
  if 'transform' not in own:
    raise specs.SpecError(f'{field} has no field transform, which names the function that it is for.')
  function = specs.resolve(own.pop('transform'), _namespace(), field=f'{field}.transform')
  takes: Sequence[tuple[str, bool]] = own.pop('rules', (('.*', True),))
  skip = tuple(own.pop('skip', rules.DEFAULT_SKIP))
  stage = specs.call(function, own, run, field=field)
  return where(tuple((pattern, stage if taken else None) for pattern, taken in takes), skip=skip)


def _namespace() -> Any:
  import sys
  return sys.modules[__name__]
