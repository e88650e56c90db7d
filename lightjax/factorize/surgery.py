"""A network of which some kernels are products of smaller ones: chosen, split, run, stored.

    smaller = factorize(model.apply, variables, x, method='tucker2', ranks=ranks.budget(0.5))
    logits = smaller.apply(smaller.variables, x)        # two or three layers in place of one; in any mode
    whole = smaller.factorization.product(variables)    # the view: the kernels that the factors stand for

The factors are the parameters, in the kernel's place ('fc/kernel/first'), so that whatever works on parameters works on
them: the optimizer, weight decay, averages, and every transform, whose zeros and levels are then those of the factors.
The smaller network is the whole one's program on factors (`graph.factored`); it is stored as the whole network's
description and a `Factorization`, which is plain data.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import rules, specs, trees
from lightjax.core.typing import Array, Path, Variables
from lightjax.factorize import decompositions
from lightjax.factorize.layers import Layer, Ranks
from lightjax.factorize.ranks import Network, Rule
from lightjax.graph.factored import FactorError, Use, at_paths, factored, uses
from lightjax.graph.trace import layouts, trace
from lightjax.nn import convolution

__all__ = ['Factorization', 'Factorized', 'factorize']

# A product that is smaller, of the kernel's largest weight, is a zero that rounding moved.
ROUNDING = 1e-5


class Factorization(NamedTuple):
  """Which kernels are products, and of what: plain data that says, with the network's description, how to run it.

  Attributes:
    layers: by path.
    ranks: by path.
  """
  layers: dict[Path, Layer]
  ranks: dict[Path, Ranks]

  def apply(self, apply: Callable[..., Any]) -> Callable[..., Any]:
    """The function of variables with factors that computes what `apply` does; see `graph.factored`."""
    used = {path: layer.use for path, layer in self.layers.items()}
    shapes = {path: layer.shape for path, layer in self.layers.items()}
    return factored(apply, used, shapes, convolution.conv_general_dilated)

  def split(self, variables: Variables) -> Variables:
    """Variables with the best factors of these ranks in the place of kernels; shapes become shapes.

    Raises:
      FactorError: a kernel is missing or of another shape.
    """
    leaves = trees.flatten(variables)
    for path, layer in self.layers.items():
      if path not in leaves or tuple(leaves[path].shape) != layer.shape:
        found = tuple(leaves[path].shape) if path in leaves else 'none'
        raise FactorError(f'{path} of shape {layer.shape} is to be split, and here it is {found}.')

    def split(path: Path, leaf: Any) -> Any:
      layer, ranks = self.layers[path], self.ranks[path]
      if isinstance(leaf, jax.ShapeDtypeStruct):
        return {name: jax.ShapeDtypeStruct(shape, leaf.dtype) for name, shape in layer.shapes(ranks).items()}
      return {name: jnp.asarray(factor) for name, factor in layer.split(leaf, ranks).items()}

    return self._mapped(variables, split)

  def product(self, variables: Variables) -> Variables:
    """The view: variables of the whole network, each kernel the product of its factors; differentiable."""
    return self._mapped(variables, lambda path, factors: self.layers[path].product(factors))

  def _mapped(self, variables: Variables, change: Callable[[Path, Any], Any]) -> Variables:
    leaves, structure = at_paths(variables, self.layers)
    return jax.tree_util.tree_unflatten(
      structure, [change(path, leaf) if path in self.layers else leaf for path, leaf in leaves])

  def to_json(self) -> dict[str, Any]:
    """As plain data for `artifact.save(..., network=...)` or a JSON file."""
    return {
      path: {'decomposition': layer.decomposition, 'shape': list(layer.shape), 'ranks': list(self.ranks[path]),
             'use': [list(each) if isinstance(each, tuple) else each for each in layer.use[:4]]}
      for path, layer in self.layers.items()}

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> Factorization:
    """What `to_json` made.

    Raises:
      FactorError: it is something else.
    """
    layers, ranks = {}, {}
    try:
      for path, entry in data.items():
        kind, window, inputs, outputs = entry['use']
        axes = [tuple(int(axis) for axis in each) for each in (window, inputs, outputs)]
        use = Use(str(kind), axes[0], axes[1], axes[2], ())
        if entry['decomposition'] not in METHODS:
          raise ValueError(entry['decomposition'])
        layers[path] = Layer(entry['decomposition'], tuple(int(size) for size in entry['shape']), use)
        ranks[path] = tuple(int(rank) for rank in entry['ranks'])
        if sorted(use.order) != list(range(len(layers[path].shape))) or not all(rank > 0 for rank in ranks[path]):
          raise ValueError('axes or ranks')
        layers[path].shapes(ranks[path])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise FactorError(f'this is no factorization as to_json wrote it: {error!r}.') from None
    return cls(layers, ranks)


METHODS = ('channel', 'spatial', 'tucker2')


class Factorized(NamedTuple):
  """A network with factors.

  Attributes:
    apply: takes `variables` where the whole network's function took its own; all other arguments are the same.
    variables: with factors.
    factorization: to store, and to split or multiply other variables.
  """
  apply: Callable[..., Any]
  variables: Variables
  factorization: Factorization


def factorize(
  apply: Callable[..., Any],
  variables: Variables,
  *inputs: Any,
  method: str,
  ranks: Rule,
  only: Sequence[str] = (),
  exclude: Sequence[str] = (),
  skip: Sequence[str] = rules.DEFAULT_SKIP,
  loss: Callable[[Variables], Array | float] | None = None,
) -> Factorized:
  """Split the kernels of a network into factors of the ranks that a rule finds.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: arrays.
    *inputs: one example batch, arrays or `jax.ShapeDtypeStruct`s.
    method: for convolutions, a name of `decompositions`: 'channel', 'spatial', 'tucker2'. Dense and pointwise layers,
      and convolutions that the method is not for, are split by 'channel': the singular value decomposition.
    ranks: a rule of `factorize.ranks`.
    only: patterns of the paths that may be split; () for all.
    exclude: patterns of paths that stay whole.
    skip: defaults that stay whole as well, see `core.rules`.
    loss: variables of the whole network -> its loss, for the rule `sensitivity`.
  Returns:
    Function, variables, and the plan.
  Raises:
    FactorError: a pattern matches nothing or only what can't be split (the reason is given); ranks are out of range;
      nothing is split; a kernel has zeros, which its factors would not keep.
    ValueError: the rule refuses.
  """
  decomposition = specs.resolve(method, decompositions, field='method')()
  network = trace(apply, variables, *inputs)
  leaves, used = trees.flatten(variables), uses(apply, variables, *inputs)
  offered = _offered(leaves, used, rules.selected(tuple(leaves), layouts(network), skip), only, exclude)
  layers = {}
  for path in offered:
    use, shape = used[path], tuple(leaves[path].shape)
    is_larger = max((shape[axis] for axis in use.window_axes), default=1) > 1
    fits = is_larger and decomposition.window in (None, len(use.window_axes))
    layers[path] = Layer(decomposition.name if fits else 'channel', shape, use)

  def damaged(path: Path, at: Ranks) -> float:
    assert loss is not None
    split = layers[path].product(layers[path].split(leaves[path], at)) if at else leaves[path]
    return float(loss(trees.replace(variables, {path: jnp.asarray(split)})))

  kernels = {path: np.asarray(leaves[path]) for path in layers}
  params = sum(int(np.size(leaf)) for leaf in leaves.values())
  found = ranks(Network(layers, kernels, network.macs, params, None if loss is None else damaged))
  if not found:
    raise FactorError('the rule leaves every layer whole; lower its ratio, or split other layers.')
  for path, each in found.items():
    _check_ranks(path, layers[path], each)
  factorization = Factorization({path: layers[path] for path in found}, dict(found))
  smaller = factorization.split(variables)
  _refuse_lost_zeros(leaves, trees.flatten(factorization.product(smaller)), found)
  return Factorized(factorization.apply(apply), smaller, factorization)


def _offered(
  leaves: Mapping[Path, Any], used: Mapping[Path, Use], selected: Sequence[Path], only: Sequence[str],
  exclude: Sequence[str],
) -> list[Path]:
  """The kernels that may be split, in execution order."""
  for name, patterns in (('only', only), ('exclude', exclude)):
    for pattern in patterns:
      if not any(re.fullmatch(pattern, path) for path in leaves):
        raise FactorError(f'{name}: {pattern!r} matches no parameter; nearest: {trees.nearest(pattern, leaves)}.')
  possible = [path for path in used if path in selected and not used[path].obstacle]
  for pattern in only:
    matches = [path for path in leaves if re.fullmatch(pattern, path)]
    if not set(matches) & set(possible):
      path = matches[0]
      reason = f'it is read by {used[path].obstacle}' if path in used and used[path].obstacle else (
        'a default leaves it whole (skip)' if path in used else 'no convolution or dense product reads it')
      raise FactorError(f'only: {pattern!r} asks for {path}, which can not be split: {reason}.')
  found = [path for path in possible
           if (not only or any(re.fullmatch(pattern, path) for pattern in only))
           and not any(re.fullmatch(pattern, path) for pattern in exclude)]
  if not found:
    raise FactorError('no kernel can be split: defaults (skip), only, exclude or the network leave none.')
  return found


def _check_ranks(path: Path, layer: Layer, ranks: Ranks) -> None:
  *window, inputs, outputs = layer.canonical
  sides = {'channel': ((int(np.prod(window, dtype=int)) * inputs, outputs),),
           'spatial': ((window[0] * inputs, window[1] * outputs),) if len(window) == 2 else (),
           'tucker2': ((inputs, inputs), (outputs, outputs))}[layer.decomposition]
  most = tuple(min(pair) for pair in sides)
  if len(ranks) != len(most) or not all(1 <= rank <= bound for rank, bound in zip(ranks, most, strict=True)):
    raise FactorError(f'{path}: ranks {ranks} for {layer.decomposition}; there are {len(most)}, of 1..{most}.')


def _refuse_lost_zeros(before: Mapping[Path, Any], after: Mapping[Path, Any], paths: Mapping[Path, Any]) -> None:
  for path in paths:
    kernel, product = np.asarray(before[path]), np.asarray(after[path])
    lost = (kernel == 0) & (np.abs(product) > ROUNDING * np.abs(kernel).max())
    if lost.any():
      raise FactorError(
        f'{path} has {np.sum(kernel == 0)} zeros, of which its factors would keep {np.sum(~lost & (kernel == 0))}; '
        'factorize before pruning, and prune the factors, or leave it out by exclude.')
