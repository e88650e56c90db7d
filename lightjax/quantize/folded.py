"""Training with BatchNorm folded: what is quantized is the kernel times BatchNorm's factor, as it will be deployed.

    view: kernel -> Q(kernel * s) / s,    s = scale * rsqrt(running variance + epsilon)

BatchNorm then applies its own statistics in training, and in evaluation the network equals the one with BatchNorm
folded into quantized kernels. Only to freeze the statistics something is intercepted.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax import graph
from lightjax.core import interception, ste, trees
from lightjax.core.encoded import Encoded, Integers, spread
from lightjax.core.transform import Context, Interception, Own, Transform, transform
from lightjax.core.typing import Array, Leaves, Path, PyTree, Variables
from lightjax.graph.links import Link
from lightjax.nn.layers import BatchNorm
from lightjax.quantize import granularities
from lightjax.quantize.quantizers import SMALLEST_STEP

__all__ = ['folded']

STATISTICS = ('mean', 'var')


def folded(inner: Transform, *, freeze: int | None = None) -> Transform:
  """A transform of kernels that sees them with the BatchNorm that follows folded in.

  Kernels that no BatchNorm with scale and bias follows directly are given to it as they are, and so are channels whose
  factor is zero.

  Args:
    inner: of kernels alone, such as `weights(bits=8)`; whatever it owns belongs to the folded kernels.
    freeze: training step from which on BatchNorm normalizes by its running statistics, which stand still; None: never.
  Returns:
    The transform. What it stores are the inner's codes, with scales divided by s.
  Raises (at init):
    ValueError: the inner one transforms activations as well; a kernel with a norm is used several times; with `freeze`:
      interception does not reach a norm.
  Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2; Krishnamoorthi 2018, arXiv:1806.08342, of which
    this is the recommended form (weights scaled by running statistics, frozen late).
  Deviations from the paper: the gradient does not go through s in Q(kernel * s) / s; BatchNorm's own parameters get
    theirs from BatchNorm.
  """
  name = f'folded({inner.name})'

  def init(variables: Variables, context: Context) -> Own:
    """State: the inner's; kernel -> its norm -> epsilon, broadcastable to the kernel; whether statistics are frozen."""
    norms: dict[Path, dict[str, Array]] = {}
    leaves = trees.flatten(variables)
    found = graph.links(context.need('apply', name), variables, *context.need('batch', name))
    for path in context.select(variables):
      pair = _pair(path, [link for link in found if link.first == path], name)
      if pair is not None:
        norm, epsilon = pair
        shape = granularities.channel(leaves[path].shape, context.layouts[path])
        if math.prod(shape) == _leaf(variables['params'], f'{norm}/scale').size:  # one factor a channel
          norms[path] = {norm: jnp.full(shape, epsilon, jnp.float32)}
    if freeze is not None:
      _reach({norm for pair in norms.values() for norm in pair}, context, name)
    inside = inner.init(_scaled(variables, _factors(variables, norms, name)), context)
    if jax.tree.leaves(inner.intercept(inside, True), is_leaf=lambda node: isinstance(node, Interception)):
      raise ValueError(f'{name}: only transforms of kernels are folded; put that of activations beside it: '
                       'chain(folded(weights(bits=8)), activations(bits=8)).')
    return Own(inside.trainable, (inside.state, norms, jnp.zeros((), bool)))

  def split(own: Own) -> tuple[Own, Mapping[Path, Mapping[str, Array]], Array]:
    state, norms, is_frozen = own.state
    return Own(own.trainable, state), norms, is_frozen

  def view(variables: Variables, own: Own, key: Array | None) -> Variables:
    inside, norms, _ = split(own)
    factors = _factors(variables, norms, name)
    scaled = _scaled(variables, factors)
    viewed = _scaled(inner.view(scaled, inside, key), factors, jnp.divide)
    if key is not None:
      return viewed
    # In evaluation to the last bit what is stored: (codes * scale) / s is not always codes * (scale / s).
    leaves, stored = trees.flatten(viewed), inner.finalize(scaled, inside).parameters
    return trees.replace(viewed, {
      path: ste.straight_through(leaves[path], _divided(stored[path], factor).decode().astype(leaves[path].dtype))
      for path, factor in factors.items() if path in stored})

  def update(variables: Variables, own: Own, context: Context) -> Own:
    inside, norms, is_frozen = split(own)
    if freeze is not None:
      is_frozen = jnp.asarray(context.step >= freeze, bool)
    moved = inner.update(
      _scaled(variables, _factors(variables, norms, name)), inside, context._replace(observed=None))
    return Own(moved.trainable, (moved.state, norms, is_frozen))

  def project(variables: Variables, own: Own) -> Variables:
    inside, norms, _ = split(own)
    factors = _factors(variables, norms, name)
    before = _scaled(variables, factors)
    after, leaves = trees.flatten(inner.project(before, inside)), trees.flatten(variables)
    # What was not projected stays as it is, to the last bit.
    return trees.replace(variables, {
      path: jnp.where(after[path] == leaf, leaves[path], after[path] / factors.get(path, 1))
      for path, leaf in trees.flatten(before).items()})

  def support(own: Own) -> Leaves:
    return inner.support(split(own)[0])

  def intercept(own: Own, train: bool) -> Any:
    _, norms, is_frozen = split(own)
    paths = sorted({norm for pair in norms.values() for norm in pair})
    return _frozen(paths, is_frozen) if train and freeze is not None and paths else None

  def finalize(variables: Variables, own: Own) -> Encoded:
    inside, norms, _ = split(own)
    factors = _factors(variables, norms, name)
    stored = inner.finalize(_scaled(variables, factors), inside)
    parameters = {}
    for path, integers in stored.parameters.items():
      parameters[path] = _divided(integers, factors[path]) if path in factors else integers
    return Encoded(parameters, stored.activations)

  return transform(name, init=init, view=view, update=update, project=project, support=support, intercept=intercept,
                   finalize=finalize)


def _pair(path: Path, links: Sequence[Link], name: str) -> tuple[str, float] | None:
  """The norm right after a kernel and its epsilon."""
  norms = {link.norm for link in links if link.epsilon is not None}
  if not norms:
    return None
  if len(links) > 1:
    raise ValueError(
      f'{name}: {path!r} is used {len(links)} times, which cannot all be folded; leave it alone by a rule.')
  (link,) = links
  own = {f'batch_stats/{link.norm}/{each}' for each in STATISTICS} | {
    f'params/{link.norm}/{each}' for each in ('scale', 'bias')}
  first = next(i for i, each in enumerate(link.variables) if each in own)
  before = set(link.variables[:first]) - {f'params/{path.rpartition("/")[0]}/bias'}
  if before or not own <= set(link.variables) or link.epsilon is None or link.norm is None:
    return None
  return link.norm, link.epsilon


def _factors(variables: Variables, norms: Mapping[Path, Mapping[str, Array]], name: str) -> dict[Path, Array]:
  """Kernel -> BatchNorm's factor, broadcastable to it, 1 where it is zero; a constant for the gradient."""
  if norms and not (trees.has_collections(variables) and 'batch_stats' in variables):
    raise ValueError(f"{name} needs the variables with their collections, {{'params': ..., 'batch_stats': ...}}.")
  factors = {}
  for path, pair in norms.items():
    for norm, epsilon in pair.items():
      scale, var = _leaf(variables['params'], f'{norm}/scale'), _leaf(variables['batch_stats'], f'{norm}/var')
      factor = lax.stop_gradient(scale.reshape(epsilon.shape) * lax.rsqrt(var.reshape(epsilon.shape) + epsilon))
      factors[path] = jnp.where(jnp.abs(factor) >= SMALLEST_STEP, factor, 1)
  return factors


def _scaled(
  variables: Variables, factors: Mapping[Path, Array], by: Callable[[Array, Array], Array] = jnp.multiply
) -> Variables:
  leaves = trees.flatten(variables)
  return trees.replace(variables, {path: by(leaves[path], factor) for path, factor in factors.items()})


def _divided(integers: Integers, factor: Array) -> Integers:
  """The same codes with scales over a factor, of which there may be more than scales."""
  shape = tuple(max(sizes) for sizes in zip(integers.scale.shape, factor.shape, strict=True))
  zero_point = integers.zero_point
  if zero_point is not None and zero_point.ndim:
    zero_point = jnp.broadcast_to(spread(zero_point, shape), shape)
  return integers._replace(scale=spread(integers.scale, shape) / factor, zero_point=zero_point)


def _leaf(tree: PyTree, path: Path) -> Any:
  for part in path.split('/'):
    tree = tree[part]
  return tree


def _reach(norms: set[str], context: Context, name: str) -> None:
  """Refuse norms that interception does not reach."""
  reached = set()

  def note(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
    if about.method_name == '__call__' and about.module.has_variable('probe', 'reached'):
      reached.add(interception.module_path(about))
    return following(*args, **kwargs)

  context.need('modules', name)(note, {'probe': interception.nest({norm: {'reached': np.zeros(())} for norm in norms})})
  if norms - reached:
    raise ValueError(
      f'{name}: interception does not reach the norm {min(norms - reached)!r} (inside nn.scan or nn.vmap); set '
      'freeze=None, or leave its kernel alone by a rule.')


def _frozen(norms: Sequence[str], is_frozen: Array) -> Interception:
  """Each norm by its batch's statistics, or where they are frozen by the running ones, which do not move then."""

  def make(collection: str) -> Callable[..., Any]:
    def interceptor(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
      module = about.module
      is_norm = about.method_name == '__call__' and module.has_variable(collection, 'is_frozen')
      if not is_norm or not module.is_mutable_collection('batch_stats'):  # a pass that moves no statistics uses them
        return following(*args, **kwargs)
      still = module.get_variable(collection, 'is_frozen')
      if isinstance(module, BatchNorm) and module.takes_own_form(args[0]) and kwargs.get('mask') is None:
        return following(*args, **{**kwargs, 'is_frozen': still})
      # Any other norm has to be asked for the batch's result and the running one, of which one is used.
      before = {each: module.get_variable('batch_stats', each) for each in STATISTICS}
      scale, bias = (module.get_variable('params', each) for each in ('scale', 'bias'))
      y = following(*args, **kwargs)
      fixed = (args[0] - before['mean']) * (lax.rsqrt(before['var'] + module.epsilon) * scale) + bias
      for each in STATISTICS:
        moved = module.get_variable('batch_stats', each)
        module.put_variable('batch_stats', each, jnp.where(still, before[each], moved))
      return jnp.where(still, fixed.astype(y.dtype), y)

    return interceptor

  return Interception(make, interception.nest({norm: {'is_frozen': is_frozen} for norm in norms}))
