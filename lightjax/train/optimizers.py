"""Optimizers and learning rates by name, over the params and a transform's own trainables."""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from lightjax import binarize
from lightjax.core import trees
from lightjax.core.typing import PyTree

__all__ = ['adamw', 'bop', 'constant', 'cosine', 'exponential', 'glorot_adam', 'optimizer', 'sgd', 'steps']

Rate = Callable[[Any], Any]


def cosine(peak: float, *, total: int, warmup: int = 0) -> Rate:
  """Linear warm-up from 0 to `peak`, then half a cosine down to 0 at step `total`.

  Source: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.
  """
  decay = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
  return optax.join_schedules([_warm_up(peak, warmup), decay], [warmup])


def steps(peak: float, *, total: int, warmup: int = 0, at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> Rate:
  """Warm-up, then `peak` times `factor` at each of the fractions `at` of all steps (He et al. 2016: 0.5 and 0.75)."""
  boundaries = {round(fraction * total) - warmup: factor for fraction in at}
  return optax.join_schedules([_warm_up(peak, warmup), optax.piecewise_constant_schedule(peak, boundaries)], [warmup])


def constant(peak: float, *, total: int, warmup: int = 0) -> Rate:
  """Warm-up, then `peak` for the rest."""
  del total
  return optax.join_schedules([_warm_up(peak, warmup), optax.constant_schedule(peak)], [warmup])


def exponential(peak: float, *, total: int, warmup: int = 0, final: float) -> Rate:
  """Warm-up, then an exponential decay from `peak` to `final` at step `total` (BinaryConnect, arXiv:1511.00363)."""
  steps = max(total - warmup, 1)
  return optax.join_schedules(
    [_warm_up(peak, warmup), optax.exponential_decay(peak, steps, final / peak, end_value=final)], [warmup])


def sgd(
  rate: Rate, decay: optax.GradientTransformation, *, momentum: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
  """SGD with momentum; weight decay enters the gradient before the momentum (L2), as in the ResNet papers."""
  return optax.chain(decay, optax.sgd(rate, momentum=momentum, nesterov=nesterov))


def adamw(
  rate: Rate, decay: optax.GradientTransformation, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay, after the scaling: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2."""
  return optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), decay, optax.scale_by_learning_rate(rate))


def glorot_adam(
  rate: Rate, decay: optax.GradientTransformation, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """Adam with the rates of kernels divided by sqrt(1.5 / (fan_in + fan_out)), so that signs change soon in wide layers.

  Courbariaux, Bengio, David 2015, arXiv:1511.00363, section 2.5, in the form of its code. Kernels are parameters of two
  or more axes, the last two of them inputs and outputs.
  """

  def scale(update: Any) -> Any:
    if update.ndim < 2:
      return update
    *window, inputs, outputs = update.shape
    return update * math.sqrt(math.prod(window) * (inputs + outputs) / 1.5)

  scaled = optax.stateless(lambda updates, params: jax.tree.map(scale, updates))
  return optax.chain(
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps), decay, scaled, optax.scale_by_learning_rate(rate))


def bop(
  rate: Rate, decay: optax.GradientTransformation, *, adaptivity: float = 1e-4, threshold: float = 1e-8,
  binary: str = '.*/kernel',
) -> optax.GradientTransformation:
  """`binarize.bop` for the params whose path `binary` matches as a whole, Adam for the others.

  The defaults are those of Helwegen et al. 2019, arXiv:1906.02107, for CIFAR-10; without their decay of the adaptivity.
  """

  def labels(tree: PyTree) -> PyTree:
    def label(key_path: tuple[Any, ...], leaf: Any) -> str:
      return 'bop' if re.fullmatch(binary, trees.path_string(key_path)) else 'adam'

    return {
      'params': jax.tree_util.tree_map_with_path(label, tree['params']),
      'transform': jax.tree.map(lambda leaf: 'adam', tree['transform'])}

  adam = optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(rate))
  return optax.partition({'bop': binarize.bop(adaptivity, threshold=threshold), 'adam': adam}, labels)


def optimizer(
  base: Callable[..., optax.GradientTransformation], rate: Rate, *, weight_decay: float = 0.0,
  no_decay: Sequence[str] = (), clip_norm: float = 0.0, **hyper: Any,
) -> optax.GradientTransformation:
  """The optimizer of a run, over {'params': params, 'transform': trainables}.

  Args:
    base: `sgd`, `adamw`, or a function of the same form (rate, decay, **hyper), which places the decay.
    rate: learning rate, step -> number.
    weight_decay: coefficient of the decay.
    no_decay: patterns of parameter paths without decay (biases, norms); a transform's trainables never decay.
    clip_norm: bound of the gradient's global norm; 0 for none.
    **hyper: for `base`.
  Returns:
    An optax transformation.
  """

  def decays(tree: PyTree) -> PyTree:
    def decide(key_path: tuple[Any, ...], leaf: Any) -> bool:
      return not any(re.fullmatch(pattern, trees.path_string(key_path)) for pattern in no_decay)

    return {
      'params': jax.tree_util.tree_map_with_path(decide, tree['params']),
      'transform': jax.tree.map(lambda leaf: False, tree['transform']),
    }

  decay = optax.add_decayed_weights(weight_decay, decays) if weight_decay else optax.identity()
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  return optax.chain(*clip, base(rate, decay, **hyper))


def _warm_up(peak: float, warmup: int) -> Rate:
  return optax.linear_schedule(0.0, peak, warmup) if warmup else optax.constant_schedule(peak)
