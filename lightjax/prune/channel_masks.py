"""Channels at zero in the whole network, with the choice of them as an argument: one compilation for all choices.

    masks = channel_masks.channel_masks(graph)                     # a transform
    own = masks.init(variables, Context({}))                       # all stay
    own = channel_masks.choose(own, kept)                          # name of a group -> bool [units]
    logits = model.apply(masks.view(variables, own, None), x)      # as `surgery.remove(..., kept)` computes them
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import trees
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Leaves, Path, Variables
from lightjax.graph.channels import ChannelGraph, variable_paths

__all__ = ['channel_masks', 'choose']


def channel_masks(graph: ChannelGraph) -> Transform:
  """The whole network with some channels at zero, before, in and after each step.

  What it owns is a mask of the units of each group that can be pruned, all True at first. What `surgery.mask` zeroes is
  zero in the view and, after each step, in the variables and the optimizer's slots: training is that of the network
  from which `surgery.remove` takes these channels.

  Args:
    graph: from `graph.channels`, of variables with collections.
  Returns:
    The transform; it stores nothing.
  """
  masks = _masks(graph)

  def init(variables: Variables, context: Context) -> Own:
    return Own(state={group.name: jnp.ones(group.size, bool) for group in graph.prunable})

  def masked(variables: Variables, own: Own) -> Variables:
    found = masks(own.state)
    leaves, structure = jax.tree_util.tree_flatten(variables)
    return jax.tree_util.tree_unflatten(structure, [
      jnp.where(found[path], leaf, 0) if path in found else leaf
      for path, leaf in zip(variable_paths(variables), leaves, strict=True)])

  def support(own: Own) -> Leaves:
    return {
      trees.without_collection(path): jnp.broadcast_to(mask, graph.shapes[path])
      for path, mask in masks(own.state).items() if path.startswith('params/')}

  return transform('channel_masks', init=init, view=lambda variables, own, key: masked(variables, own),
                   project=masked, support=support)


def choose(own: Own, kept: Mapping[str, Any]) -> Own:
  """The same transform's state with other channels.

  Args:
    own: of `channel_masks`.
    kept: name of a group -> bool [units], True for what stays; groups that are not named are whole.
  Returns:
    What it owns then.
  Raises:
    ValueError: a group that can't be pruned, or another number of units.
  """
  for name, keep in kept.items():
    if name not in own.state or np.shape(keep) != own.state[name].shape:
      raise ValueError(f'channel_masks: {name!r} with {np.shape(keep)} units is none of the groups that can be pruned.')
  return own._replace(state={
    name: jnp.asarray(kept[name], bool) if name in kept else jnp.ones_like(mask) for name, mask in own.state.items()})


def _masks(graph: ChannelGraph) -> Callable[[Mapping[str, Array]], dict[Path, Array]]:
  """Units that stay, by group -> what of each variable stays, in shapes that broadcast to it."""
  names = [group.name for group in graph.prunable]
  first = dict(zip(names, np.cumsum([0, *(group.size for group in graph.prunable)]).tolist(), strict=False))
  total = sum(group.size for group in graph.prunable)  # the place of a unit that always stays
  owners: dict[tuple[Path, int, int], np.ndarray] = {}
  for group in graph.prunable:
    for member in group.members:
      places = graph.shapes[member.path][member.axis] * member.groups
      owner = owners.setdefault((member.path, member.axis, member.groups), np.full(places, total))
      for unit, held in enumerate(member.indices):
        owner[list(held)] = first[group.name] + unit

  def masks(kept: Mapping[str, Array]) -> dict[Path, Array]:
    units = jnp.concatenate([*(kept[name] for name in names), jnp.ones(1, bool)])
    found: dict[Path, Array] = {}
    for (path, axis, groups), owner in owners.items():
      shape, mask = graph.shapes[path], units[owner]
      broadcast = [1] * len(shape)
      broadcast[axis] = shape[axis]
      if groups > 1:  # [groups, rows] -> [rows, outputs]
        mask = jnp.repeat(mask.reshape(groups, -1), shape[-1] // groups, axis=0).T
        broadcast[-1] = shape[-1]
      mask = mask.reshape(broadcast)
      found[path] = found[path] & mask if path in found else mask
    return found

  return masks
