"""Binary and ternary weights as views of latent ones."""
from __future__ import annotations

import inspect
from collections.abc import Callable

import jax.numpy as jnp

from lightjax.binarize import binarizers
from lightjax.binarize.binarizers import Levels
from lightjax.binarize.estimators import pass_through
from lightjax.binarize.progress import Progress
from lightjax.core import encoded, rngs, ste, trees
from lightjax.core.encoded import Encoded, Integers
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Path, Variables

__all__ = ['trained_ternary', 'weights']

OFFERED = ('weight', 'axes', 'key', 'progress')


def weights(binarizer: Callable[..., Levels], *, clip: float | None, steps: int | None = None) -> Transform:
  """Weights on two or three levels; what is trained are latent weights.

  Args:
    binarizer: of `binarize.binarizers`, or a function of the same form.
    clip: latent weights are kept in [-clip, clip], after each step too; None leaves them as they are.
    steps: of the training, for binarizers that ask for its progress.
  Returns:
    A transform without trainables. Only `ternary` keeps zeros, so that it may follow pruning.
  Raises:
    ValueError: the binarizer asks for what is not offered, or for progress without `steps`.
  Source: the binarizer's; the latent weights and their clipping are those of arXiv:1511.00363, sections 2.3 and 2.4.
  """
  name = f'weights({getattr(binarizer, "__name__", "binary")})'
  asked = tuple(inspect.signature(binarizer).parameters)
  for each in asked:
    if each not in OFFERED:
      raise ValueError(f'{name}: a binarizer is offered {", ".join(OFFERED)}, not {each!r}.')
  if clip is not None and not clip > 0:
    raise ValueError(f'{name}: clip={clip} is a positive bound, or None.')
  progress = Progress.asked_by(binarizer, steps, name)

  def init(variables: Variables, context: Context) -> Own:
    """The state is the progress, and by parameter the shape of a scale per channel, which says what its axes are."""
    shapes = {}
    for path, leaf in context.select(variables).items():
      kept = context.layouts[path].output_axes if path in context.layouts else ()
      shapes[path] = jnp.zeros([size if axis in kept else 1 for axis, size in enumerate(leaf.shape)], bool)
    return Own(state={'channels': shapes, 'progress': progress.at(0)})

  def bounded(leaf: Array) -> Array:
    return leaf if clip is None else ste.clip(leaf, -clip, clip)

  def levels(variables: Variables, own: Own, key: Array | None) -> dict[Path, Levels]:
    leaves = trees.flatten(variables)
    found = {}
    for path, shape in own.state['channels'].items():
      offered = {
        'weight': bounded(jnp.asarray(leaves[path])), 'progress': own.state['progress'],
        'axes': tuple(axis for axis, size in enumerate(shape.shape) if size == 1),
        'key': None if key is None else rngs.fold(key, path)}
      found[path] = binarizer(**{each: offered[each] for each in asked})
    return found

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    return trees.replace(variables, {path: each.value for path, each in levels(variables, own, key).items()})

  def update(variables: Variables, own: Own, context: Context) -> Own:
    return Own(state={**own.state, 'progress': progress.at(context.step)})

  def project(variables: Variables, own: Own) -> Variables:
    leaves = trees.flatten(variables)
    return trees.replace(variables, {
      path: bounded(jnp.asarray(leaves[path])) for path in own.state['channels']})

  def finalize(variables: Variables, own: Own) -> Encoded:
    return _stored(levels(variables, own, None))

  return transform(name, init=init, view=view, update=update, project=project, finalize=finalize)


def trained_ternary(*, threshold: float = 0.05) -> Transform:
  """Weights on -n, 0 and p, two trained numbers a layer: 0 where |w| <= threshold * max|w|.

  With g the gradient at the view, p gets the sum of g over the positive weights, n minus that over the negative ones,
  and a latent weight g * p, g or g * n as it is positive, zero or negative.

  Args:
    threshold: ratio of the largest |w| of the layer, 0..1.
  Returns:
    A transform whose trainables are p and n by parameter, at first the mean|w| of their weights. Zeros stay zero. It
    names no integers: the file has the three values in a codebook, which is 2 bits a weight or fewer.
  Raises:
    ValueError: a threshold that is no ratio.
  Source: Zhu et al. 2017, arXiv:1612.01064 (trained ternary quantization).
  """
  if not 0 <= threshold < 1:
    raise ValueError(f'trained_ternary: threshold={threshold} is a ratio 0..1.')

  def codes_of(leaf: Array) -> Array:
    return binarizers.threshold(leaf, threshold * jnp.max(jnp.abs(leaf)))

  def init(variables: Variables, context: Context) -> Own:
    means = {}
    for path, leaf in context.select(variables).items():
      leaf = jnp.asarray(leaf)
      codes = codes_of(leaf)
      means[path] = {
        'positive': binarizers.mean_of(leaf, codes > 0).reshape(()),
        'negative': binarizers.mean_of(leaf, codes < 0).reshape(())}
    return Own(trainable=means)

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    leaves = trees.flatten(variables)
    values = {}
    for path, trained in own.trainable.items():
      leaf = jnp.asarray(leaves[path])
      codes = codes_of(leaf)
      positive, negative = (trained[name].astype(leaf.dtype) for name in ('positive', 'negative'))
      value = jnp.where(codes > 0, positive, jnp.where(codes < 0, -negative, 0))
      values[path] = pass_through(leaf, value, jnp.where(codes > 0, positive, jnp.where(codes < 0, negative, 1)))
    return trees.replace(variables, values)

  return transform(f'trained_ternary({threshold})', init=init, view=view)


def _stored(levels: dict[Path, Levels]) -> Encoded:
  """One bit a weight, two where there are zeros."""
  integers = {}
  for path, each in levels.items():
    if each.codes is not None and each.scale is not None:
      codes = each.codes.astype(jnp.int8)
      integers[path] = Integers(codes, each.scale, 2 if bool(jnp.any(codes == 0)) else 1)
  return Encoded(integers, {}) if integers else encoded.NOTHING
