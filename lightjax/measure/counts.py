"""Parameters, non-zeros and MACs of a network, by layer and in total.

Conventions. *Parameters* are the trainable ones: scales and biases of normalization layers are in, running statistics
are a figure of their own. *MACs* are the multiply-adds of convolutions and dense products for one example, those with
padding included, nothing else: no biases, normalizations, activations or poolings. One MAC is two FLOPs.
"""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lightjax.core import trees
from lightjax.core.typing import Variables
from lightjax.graph.trace import Trace, trace

Apply = Callable[[Variables, Any], Any]


class Layer(NamedTuple):
  """A module that owns parameters, or an operation without any.

  Attributes:
    module: its path.
    kind: 'conv', 'dense', or '' for parameters that no operation multiplies with (normalization, embeddings).
    shapes: of its parameters, by name.
    params: trainable numbers.
    nonzeros: those of them that are not zero.
    macs: multiply-adds for one example; a module used twice counts twice.
    output_shape: of its operation, without the batch; of the first if there are several, () if there is none.
  """
  module: str
  kind: str
  shapes: dict[str, tuple[int, ...]]
  params: int
  nonzeros: int
  macs: int
  output_shape: tuple[int, ...]


@dataclass(frozen=True)
class Counts:
  """What `count` found.

  Attributes:
    layers: in execution order.
    statistics: numbers in the other collections of the variables, running means and variances for instance; not in
      `params`.
  """
  layers: tuple[Layer, ...]
  statistics: int

  @property
  def params(self) -> int:
    """Trainable numbers."""
    return sum(layer.params for layer in self.layers)

  @property
  def nonzeros(self) -> int:
    """Trainable numbers that are not zero; equal to `params` where only shapes were given."""
    return sum(layer.nonzeros for layer in self.layers)

  @property
  def macs(self) -> int:
    """Multiply-adds for one example."""
    return sum(layer.macs for layer in self.layers)

  def table(self) -> str:
    """The counts as text, a row a layer, totals last."""
    rows: list[tuple[str, ...]] = [('module', 'kind', 'output', 'params', 'nonzeros', 'MACs')]
    for layer in self.layers:
      output = 'x'.join(map(str, layer.output_shape))
      figures = (layer.params, layer.nonzeros, layer.macs)
      rows.append((layer.module or '.', layer.kind, output, *(f'{figure:,}' for figure in figures)))
    rows.append(('total', '', '', *(f'{figure:,}' for figure in (self.params, self.nonzeros, self.macs))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
      cells = [cell.ljust(width) if column < 3 else cell.rjust(width)
               for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
      lines.append('  '.join(cells).rstrip())
    return '\n'.join((*lines, f'running statistics, not in params: {self.statistics:,}'))


def count(
    model: nn.Module | tuple[Apply, Variables],
    input_shape: tuple[int, ...],
    *,
    variables: Variables | None = None,
    train: bool = False,
) -> Counts:
  """Counts a network without running it.

  Args:
    model: a linen module, or (apply, variables) with a pure `apply(variables, x)` of any library.
    input_shape: of one example, e.g. (32, 32, 3).
    variables: of the linen module, arrays or shapes; without them it is initialized on shapes alone.
    train: counts the module as it trains, where that differs (auxiliary heads); needs a module with the argument
      `train`.
  Returns:
    Counts by layer; non-zeros are those of `variables` if they are arrays.
  Raises:
    ValueError: `variables` or `train` beside a pair, or `train` for a module without it.
  Example:
    >>> count(nn.Dense(10), (784,)).params
    7850
  """
  x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  if isinstance(model, tuple):
    if variables is not None or train:
      raise ValueError('count: an (apply, variables) pair already says its variables and its mode; leave out '
                       '`variables` and `train`.')
    apply, variables = model
  else:
    apply = _linen_apply(model, train)
    if variables is None:
      variables = jax.eval_shape(_linen_init(model, train), x)
  return Counts(_layers(trace(apply, variables, x), variables), _statistics(variables))


def _train_argument(model: nn.Module, train: bool) -> dict[str, Any]:
  if 'train' in inspect.signature(type(model).__call__).parameters:
    return {'train': train}
  if train:
    raise ValueError(f'count: {type(model).__name__}.__call__ has no argument `train`; leave it out.')
  return {}


def _rngs() -> dict[str, jax.Array]:
  return {'params': jax.random.key(0), 'dropout': jax.random.key(1)}


def _linen_init(model: nn.Module, train: bool) -> Callable[[Any], Variables]:
  return lambda x: model.init(_rngs(), x, **_train_argument(model, train))


def _linen_apply(model: nn.Module, train: bool) -> Apply:
  return lambda variables, x: model.apply(variables, x, **_train_argument(model, train), rngs=_rngs(), mutable=True)


def _statistics(variables: Variables) -> int:
  if not trees.has_collections(variables):
    return 0
  others = {name: collection for name, collection in variables.items() if name != 'params'}
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(others))


def _layers(network: Trace, variables: Variables) -> tuple[Layer, ...]:
  leaves = trees.flatten(variables)
  modules: dict[str, list[str]] = {}
  for path in network.parameters:
    modules.setdefault(path.rpartition('/')[0], []).append(path)
  operations: dict[str, list[Any]] = {module: [] for module in modules}
  for operation in network.operations:
    operations.setdefault(operation.module, []).append(operation)
  return tuple(_layer(module, modules.get(module, []), leaves, performed) for module, performed in operations.items())


def _layer(module: str, paths: list[str], leaves: dict[str, Any], operations: list[Any]) -> Layer:
  return Layer(
      module=module,
      kind=operations[0].kind if operations else '',
      shapes={path.rpartition('/')[2]: tuple(leaves[path].shape) for path in paths},
      params=sum(math.prod(leaves[path].shape) for path in paths),
      nonzeros=sum(_nonzeros(leaves[path]) for path in paths),
      macs=sum(operation.macs for operation in operations),
      output_shape=operations[0].output_shape[1:] if operations else ())


def _nonzeros(leaf: Any) -> int:
  return math.prod(leaf.shape) if isinstance(leaf, jax.ShapeDtypeStruct) else int(np.count_nonzero(np.asarray(leaf)))
