"""Channels that are really removed: masks by group -> smaller variables and the function of them.

    graph = channels(model.apply, variables, x)
    kept = {'conv1': scores > threshold}                      # a bool for each unit, by group
    removed = remove(model.apply, graph, variables, kept)
    logits = removed.apply(removed.variables, x)              # in any mode, under jit and grad, for any batch size
    opt_state = removed.removal.cut(opt_state)                # momenta, masks, averages: whatever follows the variables

The smaller network is the whole one's program run on smaller arrays (`graph.slicing`), so it needs no module of other
widths. It is stored as the whole network's description and a `Removal`, which is plain data.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import trees
from lightjax.core.typing import Array, Path, PyTree, Variables
from lightjax.graph.channels import ChannelGraph, Group, Member, variable_paths
from lightjax.graph.slicing import KeptAxis, sliced, take
from lightjax.nn import convolution, pooling

__all__ = ['Removal', 'RemovalError', 'Removed', 'balanced', 'mask', 'plan', 'remove']

Kept = Mapping[str, Any]  # name of a group -> bool [units]


class RemovalError(ValueError):
  """Channels were asked to go that can't; the message names group, operation and module."""


class Removal(NamedTuple):
  """What is left of a network's variables: plain data that says, with the network's description, how to run it.

  Attributes:
    shapes: of the whole variables, by path with collection.
    kept: what is left of the axes of those that lost something.
  """
  shapes: dict[Path, tuple[int, ...]]
  kept: dict[Path, tuple[KeptAxis, ...]]

  def apply(self, apply: Callable[..., Any]) -> Callable[..., Any]:
    """The function of the smaller variables that computes what `apply` does; see `graph.slicing.sliced`."""
    return sliced(
      apply, self.shapes, self.kept, convolve=convolution.conv_general_dilated, pool=pooling.reduce_window_max)

  def cut(self, tree: PyTree) -> PyTree:
    """The smaller form of anything that follows the variables.

    Args:
      tree: the variables, an optimizer's state, masks or a transform's state by path: any pytree. A leaf is cut if its
        path ends in that of a variable that lost channels and it has that variable's rank, along each axis whole or of
        size 1.
    Returns:
      The same tree, smaller.
    Raises:
      RemovalError: a leaf follows such a variable but has another rank (factored moments).
    """
    named = {trees.without_collection(path): path for path in self.shapes}

    def cut_leaf(key_path: tuple[Any, ...], leaf: Any) -> Any:
      path = trees.join(key_path)
      variable = self._variable(path, named)
      if variable is None or variable not in self.kept or np.size(leaf) == 1:
        return leaf
      shape, whole = np.shape(leaf), self.shapes[variable]
      if len(shape) != len(whole) or any(size not in (1, full) for size, full in zip(shape, whole, strict=True)):
        raise RemovalError(
          f'{path!r} of shape {shape} follows {variable!r} of shape {whole}, but no removal can be carried over to it; '
          'start that part of the state afresh on the smaller variables.'
        )
      return take(leaf, self.kept[variable])

    return jax.tree_util.tree_map_with_path(cut_leaf, tree)

  def _variable(self, path: Path, named: Mapping[Path, Path]) -> Path | None:
    """The variable with the longest path that ends this one."""
    parts = path.split('/')
    for start in range(len(parts)):
      tail = '/'.join(parts[start:])
      if tail in self.shapes:
        return tail
      if tail in named:
        return named[tail]
    return None

  def to_json(self) -> dict[str, Any]:
    """As plain data for `artifact.save(..., meta=...)` or a JSON file: path -> shape and kept places by axis."""
    return {
      path: {'shape': list(shape), 'kept': [
        {'axis': each.axis, 'size': each.size, 'groups': each.groups, 'indices': list(each.indices)}
        for each in self.kept.get(path, ())
      ]}
      for path, shape in self.shapes.items()
    }

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> Removal:
    """What `to_json` made.

    Raises:
      RemovalError: it is something else.
    """
    try:
      shapes = {path: tuple(int(size) for size in entry['shape']) for path, entry in data.items()}
      kept = {
        path: tuple(KeptAxis(int(each['axis']), int(each['size']), tuple(int(i) for i in each['indices']),
                             int(each['groups'])) for each in entry['kept'])
        for path, entry in data.items() if entry['kept']
      }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise RemovalError(f'this is no removal as to_json wrote it: {error!r}.') from None
    for path, axes in kept.items():
      for each in axes:
        if not 0 <= each.axis < len(shapes[path]) or not all(0 <= index < each.size for index in each.indices):
          raise RemovalError(f'{path}: axis {each.axis} has no such places; the data do not belong to this network.')
    return cls(shapes, kept)


class Removed(NamedTuple):
  """A network without some of its channels.

  Attributes:
    apply: takes `variables` where the whole network's function took its own; all other arguments are the same.
    variables: the smaller ones.
    removal: to cut what else follows the variables, and to store.
  """
  apply: Callable[..., Any]
  variables: Variables
  removal: Removal


def remove(apply: Callable[..., Any], graph: ChannelGraph, variables: Variables, kept: Kept) -> Removed:
  """A network with some of its channels removed; it computes what `mask` leaves of the whole one.

  Args:
    apply: of the whole network, `apply(variables, *inputs, **keywords)`; linen's `model.apply` in any mode.
    graph: its coupling, from `graph.channels`.
    variables: of the whole network.
    kept: name of a group -> bool [units], True for what stays; groups that are not named stay whole.
  Returns:
    Function, variables and the plan, which cuts optimizer states and masks alike.
  Raises:
    RemovalError: see `plan`.
  """
  removal = plan(graph, kept)
  return Removed(removal.apply(apply), removal.cut(variables), removal)


def plan(graph: ChannelGraph, kept: Kept) -> Removal:
  """What is left of every variable.

  Args:
    graph: from `graph.channels`.
    kept: name of a group -> bool [units], True for what stays.
  Returns:
    Kept places by variable and axis.
  Raises:
    RemovalError: a group is unknown, pinned (with operation and module), left without channels or given the wrong
      number of units; a convolution in groups would keep unequal numbers.
  """
  chosen = {name: _checked(graph, name, keep) for name, keep in kept.items()}
  for constraint in graph.constraints:
    counts = constraint.counts(chosen)
    if len(set(counts)) > 1 or not counts[0]:
      raise RemovalError(
        f'{constraint.module} is a convolution in {len(counts)} groups, which would keep {list(counts)} '
        f'{constraint.side} channels; each must keep equally many, at least one. `balanced` finds a choice that does.'
      )
  gone: dict[tuple[Path, int, int], np.ndarray] = {}
  for group in graph.groups:
    if group.name not in chosen:
      continue
    for member in group.members:
      size = _places(graph, member)
      mask = gone.setdefault((member.path, member.axis, member.groups), np.zeros(size, bool))
      lost = np.flatnonzero(~chosen[group.name]).tolist()
      mask[[place for unit in lost for place in member.indices[unit]]] = True
  axes: dict[Path, tuple[KeptAxis, ...]] = {}
  for (path, axis, groups), mask in gone.items():
    if mask.all():
      raise RemovalError(f'{path} is left without a channel on axis {axis}; keep one of those that it reads or makes.')
    if mask.any():
      left = KeptAxis(axis, len(mask), tuple(np.flatnonzero(~mask).tolist()), groups)
      axes[path] = (*axes.get(path, ()), left)
  return Removal(dict(graph.shapes), axes)


def mask(graph: ChannelGraph, variables: Variables, kept: Kept) -> Variables:
  """The whole network with the channels at zero that `remove` takes away.

  Everything that goes with a channel is zeroed: the slices that make it, those that read it, its bias and its
  normalization with mean and variance, without which it would be the constant relu(beta - mean gamma / sigma).

  Args:
    graph: from `graph.channels`.
    variables: of the whole network.
    kept: as in `remove`.
  Returns:
    Variables of the same shapes.
  Raises:
    RemovalError: see `plan`.
  """
  removal = plan(graph, kept)
  leaves, structure = jax.tree_util.tree_flatten(variables)
  masked = [_zeroed(leaf, removal.kept.get(path, ()))
            for path, leaf in zip(variable_paths(variables), leaves, strict=True)]
  return jax.tree_util.tree_unflatten(structure, masked)


def balanced(graph: ChannelGraph, scores: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, np.ndarray]:
  """The best choice of channels that convolutions in groups can follow.

  Without such convolutions it is the `counts` highest scores of each group. With them, the numbers of the groups that
  they touch are met as nearly as equal parts allow, and among those choices the sum of scores is the largest (a mixed
  integer linear program, solved exactly).

  Args:
    graph: from `graph.channels`.
    scores: name of a group -> float [units], higher is kept.
    counts: name of a group -> units to keep, at least 1; the same names.
  Returns:
    Name of a group -> bool [units].
  Raises:
    RemovalError: a group is unknown or pinned, or a number is out of range.
  """
  kept: dict[str, np.ndarray] = {}
  for name, count in counts.items():
    size = _prunable(graph, name).size
    if not 1 <= count <= size:
      raise RemovalError(f'{name}: {count} of {size} channels can not be kept.')
    order = np.argsort(-np.asarray(scores[name], float), kind='stable')
    kept[name] = np.isin(np.arange(size), order[:count])
  for component in _components(graph, set(counts)):
    _balance(graph, component, scores, counts, kept)
  return kept


def _components(graph: ChannelGraph, names: set[str]) -> list[tuple[int, ...]]:
  """Constraints sorted into sets that share groups of channels."""
  components: list[tuple[set[str], tuple[int, ...]]] = []
  for index, constraint in enumerate(graph.constraints):
    touched = {channel[0] for part in constraint.parts for channel in part if channel is not None} & names
    members: tuple[int, ...] = (index,)
    apart = []
    for others, indices in components:
      if touched & others:
        touched, members = touched | others, (*indices, *members)
      else:
        apart.append((others, indices))
    components = [*apart, (touched, members)] if touched else apart
  return [members for _, members in components]


def _balance(
  graph: ChannelGraph, component: Sequence[int], scores: Mapping[str, Any], counts: Mapping[str, int],
  kept: dict[str, np.ndarray],
) -> None:
  """Solve for the groups that some constraints touch: 0 or 1 a unit, and how far each group is off its number."""
  from scipy import optimize, sparse

  constraints = [graph.constraints[index] for index in component]
  names = sorted({channel[0] for constraint in constraints for part in constraint.parts for channel in part
                  if channel is not None and channel[0] in counts})
  start, total = {}, 0
  for name in names:
    start[name] = total
    total += len(kept[name])
  width = total + 2 * len(names)  # then over and under the wanted number, for each group
  rows: list[np.ndarray] = []
  lower: list[float] = []
  upper: list[float] = []
  for number, name in enumerate(names):
    row = np.zeros(width)
    row[start[name]:start[name] + len(kept[name])] = 1
    row[total + 2 * number:total + 2 * number + 2] = -1, 1
    rows.append(row)
    lower.append(counts[name])
    upper.append(counts[name])
    at_least_one = np.where(np.arange(width) < total, row, 0)
    rows.append(at_least_one)
    lower.append(1)
    upper.append(len(kept[name]))
  for constraint in constraints:
    totals = []
    for part in constraint.parts:
      row, fixed = np.zeros(width), 0
      for channel in part:
        if channel is None or channel[0] not in start:
          fixed += 1
        else:
          row[start[channel[0]] + channel[1]] += 1
      totals.append((row, fixed))
    first, first_fixed = totals[0]
    rows.append(first)
    lower.append(1 - first_fixed)
    upper.append(np.inf)
    for row, fixed in totals[1:]:
      rows.append(row - first)
      lower.append(first_fixed - fixed)
      upper.append(first_fixed - fixed)
  ranks = np.concatenate([np.asarray(scores[name], float) for name in names])
  spread = np.ptp(ranks) or 1.0
  # A unit off the wanted number costs more than all scores together can gain.
  cost = np.concatenate([-(ranks - ranks.min()) / spread, np.full(2 * len(names), 2.0 * total)])
  bounds = optimize.Bounds(0, np.concatenate([np.ones(total), np.full(2 * len(names), total)]))
  solution = optimize.milp(
    cost, constraints=optimize.LinearConstraint(sparse.csr_array(np.stack(rows)), lower, upper), bounds=bounds,
    integrality=np.concatenate([np.ones(total), np.zeros(2 * len(names))]), options={'mip_rel_gap': 1e-6})
  if solution.x is None:
    raise RemovalError(f'no choice of channels in {", ".join(names)} keeps the parts of {constraints[0].module} equal.')
  for name in names:
    kept[name] = solution.x[start[name]:start[name] + len(kept[name])] > 0.5


def _prunable(graph: ChannelGraph, name: str) -> Group:
  try:
    group = graph.group(name)
  except KeyError as error:
    raise RemovalError(error.args[0]) from None
  if group.pinned is not None:
    raise RemovalError(f'{name}: no channel of it can be removed: {group.pinned}.')
  return group


def _checked(graph: ChannelGraph, name: str, keep: Any) -> np.ndarray:
  """The choice for a group as an array, if it can be carried out."""
  array = np.asarray(keep)
  size = graph.group(name).size if any(group.name == name for group in graph.groups) else len(array)
  if array.dtype != bool or array.shape != (size,):
    raise RemovalError(f'{name}: kept is a bool for each of its {size} channels, not {array.dtype} {array.shape}.')
  if any(group.name == name for group in graph.groups) and array.all():
    return array
  _prunable(graph, name)
  if not array.any():
    raise RemovalError(f'{name} is left without a channel; keep at least one of its {size}.')
  return array


def _places(graph: ChannelGraph, member: Member) -> int:
  return graph.shapes[member.path][member.axis] * member.groups


def _zeroed(leaf: Array, kept: Sequence[KeptAxis]) -> Array:
  for each in kept:
    mask = each.mask()
    if each.groups > 1:  # [groups, rows] -> [rows, outputs]
      mask = np.repeat(mask, leaf.shape[-1] // each.groups, axis=0).T
      shape = [1] * leaf.ndim
      shape[each.axis], shape[-1] = mask.shape
    else:
      shape = [mask.size if axis == each.axis else 1 for axis in range(leaf.ndim)]
    leaf = jnp.where(mask.reshape(shape), leaf, 0)
  return leaf
