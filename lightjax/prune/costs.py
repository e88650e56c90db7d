"""What a network costs when it keeps some of its channels: what a budget of `selection.choose` limits.

A cost is a function (name of a group -> bool [units]) -> number; groups that are not named are whole. Any function of
yours is one.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from lightjax.core import trees
from lightjax.core.typing import Path, Variables
from lightjax.graph.channels import ChannelGraph, variable_paths
from lightjax.graph.trace import trace
from lightjax.measure.latency import side_by_side
from lightjax.prune import surgery
from lightjax.prune.surgery import Removal

__all__ = ['channels', 'latency', 'macs', 'params', 'size_bytes']

Kept = Mapping[str, Any]
Cost = Callable[[Kept], float]


def channels(graph: ChannelGraph) -> Cost:
  """Units that are left, of all groups that can be pruned.

  Args:
    graph: coupling of the network's channels.
  Returns:
    The cost.
  """
  return lambda kept: float(sum(
    np.sum(kept[group.name]) if group.name in kept else group.size for group in graph.prunable))


def params(graph: ChannelGraph, variables: Variables) -> Cost:
  """Trainable numbers that are left; running statistics are none.

  Args:
    graph: coupling of the network's channels.
    variables: arrays or shapes.
  Returns:
    The cost.
  """
  prefix = 'params/' if trees.has_collections(variables) else ''
  return lambda kept: float(sum(
    math.prod(shape) for path, shape in left(surgery.plan(graph, kept)).items() if path.startswith(prefix)))


def size_bytes(graph: ChannelGraph, variables: Variables) -> Cost:
  """Bytes of all variables that are left, statistics included, each in its dtype; before any coding.

  Args:
    graph: coupling of the network's channels.
    variables: arrays or shapes.
  Returns:
    The cost.
  """
  width = {path: np.dtype(leaf.dtype).itemsize
           for path, leaf in zip(variable_paths(variables), jax.tree.leaves(variables), strict=True)}
  return lambda kept: float(sum(
    width[path] * math.prod(shape) for path, shape in left(surgery.plan(graph, kept)).items()))


def macs(graph: ChannelGraph, apply: Callable[..., Any], variables: Variables, *inputs: Any) -> Cost:
  """Multiply-adds of one example that are left.

  A product with a kernel costs in proportion to what is left of the kernel. A network that multiplies activations with
  each other, or with kernels that it computes, is traced again for each choice, which takes about a second.

  Args:
    graph: coupling of the network's channels.
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: arrays or shapes.
    *inputs: of the size that counts, one batch; arrays or shapes.
  Returns:
    The cost.
  """
  shapes = jax.eval_shape(lambda tree: tree, variables)
  operations = trace(apply, shapes, *inputs).operations
  prefix = 'params/' if trees.has_collections(variables) else ''

  def cost(kept: Kept) -> float:
    removal = surgery.plan(graph, kept)
    if any(operation.parameter is None for operation in operations):
      return float(trace(removal.apply(apply), jax.eval_shape(removal.cut, shapes), *inputs).macs)
    sizes = left(removal)
    return float(sum(
      operation.macs * math.prod(sizes[f'{prefix}{operation.parameter}'])
      // math.prod(removal.shapes[f'{prefix}{operation.parameter}']) for operation in operations))

  return cost


def latency(
  graph: ChannelGraph, apply: Callable[..., Any], variables: Variables, *inputs: Any, rounds: int = 30,
) -> Cost:
  """Time of a forward pass on this machine, as a ratio of the whole network's in the same minute.

  Each choice is built, compiled and measured in turns with the whole network, so that what else the machine does
  changes both; a choice takes seconds. Times are noisy: the choice that is found lies within their spread of the ratio.

  Args:
    graph: coupling of the network's channels.
    apply: `apply(variables, *inputs)`, pure, in evaluation mode.
    variables: arrays.
    *inputs: arrays of the batch size that counts.
    rounds: measured passes of each, 4 or more.
  Returns:
    The cost: 1 for the whole network.
  """
  whole = jax.jit(apply)

  def cost(kept: Kept) -> float:
    if all(np.all(mask) for mask in kept.values()):
      return 1.0
    removed = surgery.remove(apply, graph, variables, kept)
    smaller = jax.jit(removed.apply)
    seen = side_by_side(
      {'whole': lambda: whole(variables, *inputs), 'smaller': lambda: smaller(removed.variables, *inputs)},
      rounds=rounds)
    return seen['smaller'].median_ms / seen['whole'].median_ms

  return cost


def left(removal: Removal) -> dict[Path, tuple[int, ...]]:
  """Shape of every variable after a removal, by path with collection."""
  shapes = {}
  for path, whole in removal.shapes.items():
    shape = list(whole)
    for each in removal.kept.get(path, ()):
      shape[each.axis] = len(each.indices) // each.groups
    shapes[path] = tuple(shape)
  return shapes
