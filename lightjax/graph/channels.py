"""Which channel of which variable is tied to which: what can be removed from a network, and what stands in the way.

One trace of any pure `apply(variables, *inputs)` in evaluation mode; nothing is computed. A *unit* is the least that
can be removed: a channel with all that is tied to it. Units that the same layers produce form a `Group`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import modes, trees
from lightjax.core.typing import Array, Path, Variables
from lightjax.graph import coupling, jaxprs, labels

Role = Literal['producer', 'depthwise', 'consumer', 'norm', 'bias']


class Member(NamedTuple):
  """One axis of one variable in a group.

  Attributes:
    path: of the variable with its collection, 'params/stage1/conv/kernel'; see `variable_paths`.
    axis: of the variable as stored.
    role: 'producer' makes the channels (output axis of a kernel), 'depthwise' filters each by itself, 'consumer' reads
      them (input axis), 'bias' belongs to a module with a kernel, 'norm' to one without: BatchNorm's scale, bias, mean
      and var, a layer's scale.
    indices: for each unit of the group its places along the axis; more than one after a flatten or for tied channels,
      none where the member has only some of the units.
    groups: more than 1 for the input axis of a convolution in groups, whose stored axis holds the rows of one group:
      place g * rows + i is then row i of the kernels of group g.
  """
  path: Path
  axis: int
  role: Role
  indices: tuple[tuple[int, ...], ...]
  groups: int = 1

  def along(self, array: Array | np.ndarray) -> Array:
    """The variable, or anything of its shape, with the places that `indices` counts on its first axis.

    Args:
      array: of the variable's shape.
    Returns:
      [places, ...]: the axis in front; for a convolution in groups [groups * rows, ..., outputs / groups].
    """
    array = jnp.moveaxis(array, self.axis, 0)
    if self.groups == 1:
      return array
    *shape, outputs = array.shape
    parts = array.reshape(*shape, self.groups, outputs // self.groups)
    return jnp.moveaxis(parts, -2, 0).reshape(self.groups * shape[0], *shape[1:], outputs // self.groups)


class Group(NamedTuple):
  """Units that the same layers produce: 'these 64 channels'.

  Attributes:
    name: module of the first producer in the forward pass; with '#2' and so on if that has several groups.
    size: units, in the order of the first producer's channels.
    members: every axis of every variable that goes with them, producers first, then in the tree's order.
    pinned: why no unit of it can be removed, naming operation and module; None if they can.
  """
  name: str
  size: int
  members: tuple[Member, ...]
  pinned: str | None = None

  def __str__(self) -> str:
    named = ', '.join(f'{trees.without_collection(member.path)} {member.role}' for member in self.members)
    units = f'{self.size} channel{"s" if self.size != 1 else ""}'
    return f'{self.name}: {units}: {named}' + (f'; pinned: {self.pinned}' if self.pinned else '')


class Constraint(NamedTuple):
  """A convolution in groups: each of its groups must keep equally many channels, at least one.

  Attributes:
    module: of the convolution.
    side: 'input' or 'output' channels.
    parts: for each group of the convolution its channels as (name of the Group, unit); None for one that stays.
  """
  module: str
  side: Literal['input', 'output']
  parts: tuple[tuple[tuple[str, int] | None, ...], ...]

  def counts(self, kept: Mapping[str, Any]) -> tuple[int, ...]:
    """How many channels each part keeps, given a bool for each unit by Group; those not named keep all."""
    return tuple(
        sum(1 for channel in part if channel is None or channel[0] not in kept or kept[channel[0]][channel[1]])
        for part in self.parts)


class ChannelGraph(NamedTuple):
  """The coupling of a network's channels.

  Attributes:
    groups: in the order of the forward pass, pinned ones among them.
    constraints: what convolutions in groups ask for.
    shapes: of every variable by path, collections included.
  """
  groups: tuple[Group, ...]
  constraints: tuple[Constraint, ...]
  shapes: dict[Path, tuple[int, ...]]

  def group(self, name: str) -> Group:
    """A group by name.

    Raises:
      KeyError: there is none; the message names the nearest.
    """
    found = next((group for group in self.groups if group.name == name), None)
    if found is None:
      raise KeyError(f'no group of channels {name!r}; nearest: {trees.nearest(name, [g.name for g in self.groups])}.')
    return found

  @property
  def prunable(self) -> tuple[Group, ...]:
    """The groups that are not pinned."""
    return tuple(group for group in self.groups if group.pinned is None)

  def __str__(self) -> str:
    return '\n'.join(map(str, self.groups))


def variable_paths(variables: Variables) -> list[Path]:
  """Paths of all leaves, with their collection, in the tree's order: 'params/fc/kernel', 'batch_stats/norm/mean'."""
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  return [trees.join(path) for path, _ in leaves]


def channels(
    apply: Callable[..., Any] | Sequence[Callable[..., Any]], variables: Variables, *inputs: Any,
) -> ChannelGraph:
  """Traces a network on shapes and finds what its channels are tied to.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode. Several functions of the same variables are coupled
      together: give the training mode as well where it runs layers that evaluation does not (auxiliary heads), as a
      function that returns its logits alone.
    variables: pytree of arrays or `jax.ShapeDtypeStruct`.
    *inputs: arrays or `jax.ShapeDtypeStruct`; small ones do, the coupling does not depend on their size.
  Returns:
    Groups and constraints.
  Example:
    >>> variables = {'up': jax.ShapeDtypeStruct((3, 8), 'float32'), 'down': jax.ShapeDtypeStruct((8, 2), 'float32')}
    >>> network = lambda variables, x: jax.nn.relu(x @ variables['up']) @ variables['down']
    >>> graph = channels(network, variables, jax.ShapeDtypeStruct((1, 3), 'float32'))
    >>> print(graph)
    up: 8 channels: up producer, down consumer
    down: 2 channels: down producer; pinned: an output of the network
  """
  leaves, structure = jax.tree_util.tree_flatten(variables)
  paths = variable_paths(variables)
  shapes = [tuple(np.shape(leaf)) for leaf in leaves]
  store = labels.Labels()
  roots = frozenset(path.split('/')[0] for path in trees.flatten(variables))
  walker = coupling.Coupling(store, roots)
  values, starts = [], []
  for shape in shapes:
    starts += [(store.count + sum(shape[:axis])) for axis in range(len(shape))]
    values.append(walker.variable(shape))
  axes = [(index, axis) for index, shape in enumerate(shapes) for axis in range(len(shape))]

  for function in (apply,) if callable(apply) else apply:
    with modes.convolution_mode('lax'):
      program = jax.make_jaxpr(lambda flat, *inputs, function=function: function(
          jax.tree.unflatten(structure, flat), *inputs))(leaves, *inputs)
    rest = [labels.activation(tuple(variable.aval.shape)) for variable in program.jaxpr.invars[len(leaves):]]
    results = jaxprs.interpret(
        program.jaxpr, program.consts, [*values, *rest], walker.rule, walker.literal)
    for result in results:
      for factor in result.factors:
        store.pin(factor, 'an output of the network')
  return _Assembly(walker, paths, shapes, np.array(starts, int), axes).graph()


class _Assembly:
  """Groups from labels."""

  def __init__(self, walker: coupling.Coupling, paths: list[Path], shapes: list[tuple[int, ...]], starts: np.ndarray,
               axes: list[tuple[int, int]]):
    self.walker, self.paths, self.shapes, self.starts, self.axes = walker, paths, shapes, starts, axes
    self.classes, self.reasons = walker.labels.classes()
    self._pin_grouped()
    self.roles: dict[int, Role] = {}  # by position in `axes`
    order: list[int] = []
    roles: tuple[Role, ...] = ('producer', 'depthwise', 'consumer')
    for role in roles:
      for noted in walker.roles[role]:
        for slot in self._slots(noted):
          order.append(slot)
          self.roles.setdefault(slot, role)
    self.order = {slot: rank for rank, slot in enumerate(dict.fromkeys(order))}

  def _slots(self, noted: np.ndarray) -> list[int]:
    """The variables' axes that labels belong to; labels that padding made belong to none."""
    if not self.starts.size or not noted.size:
      return []
    last = self.starts[-1] + self.shapes[self.axes[-1][0]][self.axes[-1][1]]
    slots = np.searchsorted(self.starts, noted[noted < last], side='right') - 1
    return [int(slot) for slot in dict.fromkeys(slots.tolist())]

  def _pin_grouped(self) -> None:
    """The rows of a grouped kernel follow the channels it reads, unless something else holds on to them."""
    counts = np.bincount(self.classes, minlength=1)
    for read in self.walker.grouped:
      if not read.kernel.size or not read.inputs.size:
        continue
      rows, slots = self.classes[read.kernel], self._slots(read.kernel)
      index, axis = self.axes[slots[0]]
      outputs = (index, len(self.shapes[index]) - 1)
      stored = read.kernel.size == self.shapes[index][axis] and len(slots) == 1 and (
          not read.outputs.size or [self.axes[slot] for slot in self._slots(read.outputs)] == [outputs])
      held = next((self.reasons[int(row)] for row in rows if int(row) in self.reasons), None)
      if held is None and (counts[rows] > 1).any():
        held = f'the kernel of {read.module}, whose rows are tied to something else'
      if not stored:  # `Member.along` and `slicing.take` read the outputs from the last axis
        held = f'the kernel of {read.module}, which is not stored as it is used, outputs last'
      if held is not None:
        self.walker.labels.pin(read.inputs, held)
    self.classes, self.reasons = self.walker.labels.classes()

  def graph(self) -> ChannelGraph:
    entries = self._entries()
    named: dict[tuple[Any, ...], list[int]] = {}
    for each, places in entries.items():
      producers = self._producers(places)
      if producers:
        named.setdefault((producers, self.reasons.get(each)), []).append(each)
    groups, where = [], {}
    taken: dict[str, int] = {}
    for (producers, reason), units in sorted(named.items(), key=lambda item: (self.order[item[0][0][0]], item[1][0])):
      units = [each for _, each in sorted((entries[each][producers[0], 1], each) for each in units)]
      path = trees.without_collection(self.paths[self.axes[producers[0]][0]])
      name = path.rpartition('/')[0] or path
      taken[name] = taken.get(name, 0) + 1
      name += f'#{taken[name]}' if taken[name] > 1 else ''
      groups.append(Group(name, len(units), self._members(units, entries), reason))
      if reason is None:
        where.update({each: (name, unit) for unit, each in enumerate(units)})
    constraints = self._constraints(where)
    shapes = dict(zip(self.paths, self.shapes, strict=True))
    return ChannelGraph(tuple(groups), constraints, shapes)

  def _entries(self) -> dict[int, dict[tuple[int, int], list[int]]]:
    """Class -> (position in `axes`, groups) -> places, of all classes that have a place in a variable."""
    entries: dict[int, dict[tuple[int, int], list[int]]] = {}
    rows = {int(slot) for read in self.walker.grouped for slot in self._slots(read.kernel)}

    def add(slot: int, groups: int, labels_: np.ndarray) -> None:
      for place, each in enumerate(self.classes[labels_].tolist()):
        entries.setdefault(each, {}).setdefault((slot, groups), []).append(place)

    for slot, (index, axis) in enumerate(self.axes):
      size = self.shapes[index][axis]
      if size > 1 and slot not in rows:
        add(slot, 1, np.arange(self.starts[slot], self.starts[slot] + size))
    done = set()
    for read in self.walker.grouped:
      if read.inputs.size and int(read.kernel[0]) not in done:
        done.add(int(read.kernel[0]))
        add(self._slots(read.kernel)[0], read.groups, read.inputs)
        self.roles[self._slots(read.kernel)[0]] = 'consumer'
    return entries

  def _producers(self, places: Mapping[tuple[int, int], list[int]]) -> tuple[int, ...]:
    for role in ('producer', 'depthwise'):
      slots = [slot for slot, _ in places if self.roles.get(slot) == role]
      if slots:
        return tuple(sorted(slots, key=self.order.__getitem__))
    return ()

  def _members(
      self, units: list[int], entries: Mapping[int, Mapping[tuple[int, int], list[int]]]) -> tuple[Member, ...]:
    keys = dict.fromkeys(key for unit in units for key in entries[unit])
    makers = [key for key in keys if self.roles.get(key[0]) == 'producer']
    ordered = sorted(keys, key=lambda key: (key not in makers, self.order.get(key[0], 0) if key in makers else key[0]))
    members = []
    for slot, groups in ordered:
      index, axis = self.axes[slot]
      indices = tuple(tuple(entries[unit].get((slot, groups), ())) for unit in units)
      members.append(Member(self.paths[index], axis, self.roles.get(slot) or self._by_module(index), indices, groups))
    return tuple(members)

  def _by_module(self, index: int) -> Role:
    module = trees.without_collection(self.paths[index]).rpartition('/')[0]
    kernels = {trees.without_collection(self.paths[self.axes[slot][0]]).rpartition('/')[0] for slot in self.order}
    return 'bias' if module in kernels else 'norm'

  def _constraints(self, where: Mapping[int, tuple[str, int]]) -> tuple[Constraint, ...]:
    constraints = []
    for read in self.walker.grouped:
      sides: tuple[tuple[Literal['input', 'output'], np.ndarray], ...] = (
          ('input', read.inputs), ('output', read.outputs))
      for side, noted in sides:
        channels_ = [where.get(each) for each in self.classes[noted].tolist()]
        if any(channel is not None for channel in channels_):
          rows = len(channels_) // read.groups
          parts = tuple(tuple(channels_[start:start + rows]) for start in range(0, len(channels_), rows))
          constraints.append(Constraint(read.module, side, parts))
    return tuple(constraints)
