"""Which channels stay: the most important ones that a budget allows."""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lightjax.core import trees
from lightjax.graph.channels import ChannelGraph, Group
from lightjax.prune import surgery
from lightjax.prune.surgery import RemovalError

__all__ = ['candidates', 'choose', 'keep']

Cost = Callable[[Mapping[str, Any]], float]


def candidates(
  graph: ChannelGraph, *, only: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[Group, ...]:
  """The groups that may lose channels.

  Args:
    graph: coupling of the network's channels.
    only: regular expressions, each for the whole name of a group; () for all that can be pruned.
    exclude: regular expressions, each for the whole path of a parameter ('stage1/.*', 'classifier/kernel'): none of its
      axes is cut, so that groups that it makes or reads stay whole.
  Returns:
    Groups, in the order of the forward pass.
  Raises:
    RemovalError: a pattern that matches nothing; or a group that was asked for is pinned, with operation and module;
      or none is left.
  """
  chosen = []
  for group in graph.groups:
    asked = next((pattern for pattern in only if re.fullmatch(pattern, group.name)), None)
    if asked is not None and group.pinned is not None:
      raise RemovalError(
        f'only: {asked!r} asks for {group.name}, of which no channel can be removed: {group.pinned}.')
    if group.pinned is None and (asked is not None or not only):
      chosen.append(group)
  for pattern in only:
    if not any(re.fullmatch(pattern, group.name) for group in chosen):
      names = [group.name for group in graph.groups]
      raise RemovalError(f'only: {pattern!r} matches no group of channels; nearest: {trees.nearest(pattern, names)}.')
  paths = [trees.without_collection(path) for path in graph.shapes]
  for pattern in exclude:
    if not any(re.fullmatch(pattern, path) for path in paths):
      raise RemovalError(f'exclude: {pattern!r} matches no parameter; nearest: {trees.nearest(pattern, paths)}.')

  def is_excluded(group: Group) -> bool:
    return any(re.fullmatch(pattern, trees.without_collection(member.path))
               for pattern in exclude for member in group.members)

  left = tuple(group for group in chosen if not is_excluded(group))
  if not left:
    raise RemovalError(f'no group of channels is left to prune: exclude={tuple(exclude)} takes all of {len(chosen)}.')
  return left


def choose(
  graph: ChannelGraph, scores: Mapping[str, np.ndarray], cost: Cost, *, ratio: float,
  ranking: str = 'global', multiple: int = 1, minimum: int = 1,
) -> dict[str, np.ndarray]:
  """The most important channels at no more than a ratio of the whole network's cost.

  How many units stay is found by bisection, over one ranking of all groups or the same ratio of each; what
  convolutions in groups ask for is met by `surgery.balanced`.

  Args:
    graph: coupling of the network's channels.
    scores: name of a group -> importance [units], from `channel_scores.scores`; groups that are not named stay whole.
    cost: of `costs`, or one's own, such as a measured latency in ms.
    ratio: 0..1 of the whole network's cost that may be left.
    ranking: 'global' ranks all units together, 'layer' keeps the same ratio of each group.
    multiple: a group that loses channels keeps a multiple of so many; one that has fewer stays whole.
    minimum: channels that every group keeps, as far as it has them.
  Returns:
    Name of a group -> bool [units], True for what stays: for `surgery.remove`.
  Raises:
    RemovalError: the budget can't be met; a group is unknown or pinned; convolutions in groups leave no choice that
      keeps `multiple` and `minimum`.
  """
  if not 0.0 < ratio <= 1.0 or multiple < 1 or minimum < 1:
    raise RemovalError(
      f'choose: ratio={ratio} lies in 0..1, multiple={multiple} and minimum={minimum} are 1 or more.')
  if ranking not in ('global', 'layer'):
    raise RemovalError(f"choose: ranking={ranking!r} is none of 'global', 'layer'.")
  scores, needed = _protected(graph, {name: np.asarray(each, float) for name, each in scores.items()})
  sizes = {name: len(each) for name, each in scores.items()}
  total = sum(sizes.values())
  order = np.argsort(-np.concatenate(list(scores.values())), kind='stable')
  owner = np.repeat(np.arange(len(sizes)), list(sizes.values()))[order]

  def count(name: str, wanted: int) -> int:
    size = sizes[name]
    least = min(size, -(-max(minimum, needed[name]) // multiple) * multiple)
    nearest = (wanted + multiple // 2) // multiple * multiple  # rounding down would cost small groups half of all
    return size if wanted >= size else min(size, max(nearest, least))

  def kept_of(units: int) -> dict[str, np.ndarray]:
    if ranking == 'global':
      wanted = np.bincount(owner[:units], minlength=len(sizes)).tolist()
    else:
      wanted = [units * size // total for size in sizes.values()]
    return surgery.balanced(
      graph, scores, {name: count(name, each) for name, each in zip(sizes, wanted, strict=True)})

  whole = cost({})
  limit = ratio * whole
  low, high = 0, total + 1  # `low` units are known to fit
  best = kept_of(low)
  least = cost(best)
  if least > limit:
    raise RemovalError(
      f'choose: {limit:,.6g} of a cost of {whole:,.6g} may be left (ratio={ratio}), and the fewest channels that are '
      f'allowed cost {least:,.6g}, {least / whole:.3f} of it; raise the ratio, lower minimum={minimum} or '
      f'multiple={multiple}, or exclude less.')
  while high - low > 1:
    middle = (low + high) // 2
    kept = kept_of(middle)
    if cost(kept) <= limit:
      low, best = middle, kept
    else:
      high = middle
  _check_counts(best, multiple=multiple, minimum=minimum)
  return best


def keep(
  graph: ChannelGraph, scores: Mapping[str, np.ndarray], counts: Mapping[str, int],
) -> dict[str, np.ndarray]:
  """The most important channels of each group, a number for each.

  Args:
    graph: coupling of the network's channels.
    scores: name of a group -> importance [units].
    counts: the same names -> channels that stay, at least 1. More stay where a layer can't do without them, and other
      numbers where convolutions in groups allow no choice of that many.
  Returns:
    Name of a group -> bool [units], True for what stays: for `surgery.remove`.
  Raises:
    RemovalError: a group is unknown or pinned, or a number is out of range.
  """
  scores, needed = _protected(graph, {name: np.asarray(each, float) for name, each in scores.items()})
  return surgery.balanced(graph, scores, {name: max(counts[name], needed[name]) for name in scores})


def _protected(
  graph: ChannelGraph, scores: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
  """Scores in which what a layer can't do without comes first, and how many units of each group that makes.

  A layer that reads the whole of a group always has a channel. One that reads parts of groups only (half of a channel
  shuffle) keeps the most important of them.
  """
  axes: dict[tuple[str, int, int], list[tuple[str, int]]] = {}
  places: dict[tuple[str, int, int], int] = {}
  supplied = set()
  for group in graph.groups:
    for member in group.members:
      axis = (member.path, member.axis, member.groups)
      held = [unit for unit, each in enumerate(member.indices) if each]
      if group.name not in scores or len(held) == group.size:
        supplied.add(axis)
      else:
        axes.setdefault(axis, []).extend((group.name, unit) for unit in held)
        places[axis] = places.get(axis, 0) + sum(map(len, member.indices))
  needed: dict[str, set[int]] = {name: set() for name in scores}
  for axis, units in axes.items():
    stays = places[axis] < graph.shapes[axis[0]][axis[1]] * axis[2]  # places that belong to no group
    if axis not in supplied and not stays and not any(unit in needed[name] for name, unit in units):
      name, unit = max(units, key=lambda each: scores[each[0]][each[1]])
      needed[name].add(unit)
  everything = np.concatenate(list(scores.values()))
  first = everything.max() - everything.min() + 1.0
  raised = {name: each + first * np.isin(np.arange(len(each)), list(needed[name])) for name, each in scores.items()}
  return raised, {name: max(1, len(units)) for name, units in needed.items()}


def _check_counts(kept: Mapping[str, np.ndarray], *, multiple: int, minimum: int) -> None:
  """`balanced` puts equal parts before the wanted numbers."""
  for name, mask in kept.items():
    count = int(mask.sum())
    if count < len(mask) and (count % multiple or count < minimum):
      raise RemovalError(
        f'{name}: a convolution in groups lets {count} of {len(mask)} channels stay, which is no multiple of '
        f'{multiple} or fewer than {minimum}; leave the group out, or lower multiple and minimum.')
