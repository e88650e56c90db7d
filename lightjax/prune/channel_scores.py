"""Importance of the units of every group: a formula on each member, a reduction over members, a normalizer.

    graph = channels(model.apply, variables, x)
    scores = channel_scores.scores(graph, variables, importance.l1)
    kept = selection.choose(graph, scores, costs.macs(graph, model.apply, variables, x), ratio=0.5)
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lightjax.core import modes, rngs, trees
from lightjax.core.typing import Array, Path, PyTree, Variables
from lightjax.graph import jaxprs, origins
from lightjax.graph.channels import ChannelGraph, Group, Member, Role, variable_paths
from lightjax.prune import normalizers, reductions

__all__ = ['mean_activations', 'scores']

Importance = Callable[..., Array]
OFFERED = ('weight', 'gradients', 'scale', 'activation', 'key')


def scores(
  graph: ChannelGraph, variables: Variables, formula: Importance, *,
  roles: Sequence[Role] = ('producer', 'depthwise'),
  reduce: Callable[[np.ndarray], np.ndarray] = reductions.mean,
  normalize: Callable[[np.ndarray], np.ndarray] = normalizers.by_mean,
  groups: Sequence[Group] | None = None,
  gradients: Sequence[PyTree] = (),
  activations: Mapping[Path, Array] | None = None,
  key: Array | None = None,
) -> dict[str, np.ndarray]:
  """The importance of every unit of some groups.

  Args:
    graph: coupling of the network's channels.
    variables: arrays.
    formula: of `importance`, or one's own.
    roles: which members a formula of weights looks at: what makes the channels, what reads them ('consumer').
    reduce: of `reductions`, over the members of a group.
    normalize: of `normalizers`, over the units of a group.
    groups: default all that can be pruned.
    gradients: of the loss on each of some batches, trees like the variables or their params.
    activations: from `mean_activations`.
    key: PRNG key, for formulas that draw.
  Returns:
    Name of the group -> [units]; the lowest go first.
  Raises:
    ValueError: the formula asks for what is not offered or was not given; a group has no member that it looks at; an
      importance is not finite.
  """
  name = getattr(formula, '__name__', str(formula))
  asked = tuple(inspect.signature(formula).parameters)
  for each in asked:
    if each not in OFFERED:
      raise ValueError(f'{name}: an importance is offered {", ".join(OFFERED)}, not {each!r}.')
  given = {'gradients': len(gradients) > 0, 'activation': activations is not None, 'key': key is not None}
  for each, argument in {'gradients': 'gradients', 'activation': 'activations', 'key': 'key'}.items():
    if each in asked and not given[each]:
      raise ValueError(f'{name} asks for {each}; give scores(..., {argument}=...).')
  def of_member(member: Member, leaves: Any, slopes: Any, seen: Any, key: Any) -> Array:
    path = trees.without_collection(member.path)
    sources: dict[str, Callable[[], Any]] = {
      'weight': lambda: _rows(member, member.along(leaves[member.path])),
      'scale': lambda: _rows(member, member.along(leaves[member.path])),
      'gradients': lambda: jnp.stack([_rows(member, member.along(each[path])) for each in slopes]),
      'activation': lambda: _rows(member, seen[path]),
      'key': lambda: rngs.fold(key, path, member.axis),
    }
    return formula(**{each: sources[each]() for each in asked})

  chosen = graph.prunable if groups is None else groups
  members = {group.name: [each for each in group.members if _is_asked(each, asked, roles)] for group in chosen}

  @jax.jit  # one compilation for all members, whose shapes differ
  def of_all(*evidence: Any) -> dict[str, list[Array]]:
    return {name: [of_member(member, *evidence) for member in found] for name, found in members.items()}

  leaves = dict(zip(variable_paths(variables), jax.tree.leaves(variables), strict=True))
  slopes = [trees.flatten(each) for each in gradients] if 'gradients' in asked else []
  found = of_all(leaves, slopes, activations, key)
  result = {}
  for group in chosen:
    holds = np.array([[len(places) > 0 for places in member.indices] for member in members[group.name]])
    if not holds.reshape(-1, group.size).any(0).all():
      wanted = 'a scale' if 'scale' in asked else ' or '.join(('consumer',) if 'activation' in asked else roles)
      raise ValueError(
        f'{name}: {group.name} has units without {wanted}, so that they have no importance ({group}); leave the group '
        'out, or take another importance or other roles.')
    table = np.where(holds, np.array(found[group.name], np.float64), np.nan)
    if not np.isfinite(table[holds]).all():
      raise ValueError(f'{name}: importances of {group.name} are not finite; look at its weights and gradients.')
    result[group.name] = normalize(reduce(table))
  return result


def _is_asked(member: Member, asked: Sequence[str], roles: Sequence[Role]) -> bool:
  if 'scale' in asked:
    return member.role == 'norm' and member.path.rpartition('/')[2] == 'scale'
  return member.role == 'consumer' if 'activation' in asked else member.role in roles


def _rows(member: Member, along: Array) -> Array:
  """[places, ...] -> [units, k], zeros where a unit has fewer places than another."""
  along = jnp.asarray(along)
  flat = jnp.concatenate([along.reshape(along.shape[0], -1), jnp.zeros((1, along[0].size), along.dtype)])
  width = max(map(len, member.indices))
  places = np.array([[*each, *[-1] * (width - len(each))] for each in member.indices])
  return flat[places].reshape(len(member.indices), -1)


def mean_activations(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> dict[Path, Array]:
  """Mean absolute input of each input channel of each kernel, over examples and positions.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: arrays.
    *inputs: one batch.
  Returns:
    Path of the kernel -> [channels], those of all groups of a convolution; the last use of a shared kernel.
  """
  with modes.convolution_mode('lax'):
    program = jax.make_jaxpr(apply)(variables, *inputs)
  found: dict[Path, Array] = {}

  def rule(equation: core.JaxprEqn, operands: list[Any], stack: str) -> Sequence[Any]:
    name = equation.primitive.name
    arrays, sources = [each[0] for each in operands], [each[1] for each in operands]
    traced: Sequence[origins.Origin | None] = [None] * len(equation.outvars)
    if name == 'conv_general_dilated' and sources[1] is not None:
      channel = equation.params['dimension_numbers'].lhs_spec[1]
      found[sources[1].parameter] = _mean_along(arrays[0], (channel,))
    elif name == 'dot_general':
      contracted, _ = equation.params['dimension_numbers']
      for side in (0, 1):
        source, other = sources[side], sources[1 - side]
        if source is not None and other is None and len(contracted[0]) == 1:
          found[source.parameter] = _mean_along(arrays[1 - side], contracted[1 - side])
    elif not jaxprs.inner_jaxprs(equation) and not any(
        source is None and jnp.ndim(array) for array, source in operands):
      traced = origins.follow(equation, sources)
    results = equation.primitive.bind(*arrays, **equation.params)
    return list(zip(results if equation.primitive.multiple_results else [results], traced, strict=True))

  def run(variables: Variables, *inputs: Any) -> dict[Path, Array]:
    found.clear()
    named: dict[Path, Any] = trees.flatten(variables)
    arguments: list[Any] = []
    leaves: list[Any] = jax.tree_util.tree_leaves_with_path(variables)
    for key_path, leaf in leaves:
      path = trees.path_string(key_path)
      is_parameter = path in named and named[path] is leaf
      arguments.append((leaf, origins.of_parameter(path, leaf.shape) if is_parameter else None))
    arguments += [(leaf, None) for leaf in jax.tree.leaves(inputs)]
    jaxprs.interpret(program.jaxpr, program.consts, arguments, rule, lambda array: (array, None))
    return dict(found)

  return jax.jit(run)(variables, *inputs)


def _mean_along(x: Array, axes: Sequence[int]) -> Array:
  return jnp.abs(x).mean(tuple(axis for axis in range(x.ndim) if axis not in axes))
