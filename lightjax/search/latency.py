"""The latency of a network from that of its operations, each measured once on this machine.

An operation is a module that the network calls, as a whole: a block, a convolution with its norm, the classifier. Two
are one where they compute the same program on the same shapes. What a call costs however little it computes is taken
off each; what the sum leaves out (the average before the classifier, what a whole network's compilation fuses) is for
an affine calibration on a few networks.
"""
from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lightjax.core import modes
from lightjax.measure.latency import side_by_side

__all__ = ['Calibration', 'Measured', 'Operation', 'Operations', 'calibrate', 'measure', 'predict', 'whole']

# Modules that only call others in turn, beside the network itself.
CONTAINERS = ('Blocks', 'Sequential')
TOGETHER = 12  # operations that are measured in turns with one another
CONSTANT = 'a call'
# Functions are printed with their place, which is another one in each process.
_IN_MEMORY = re.compile(r' at 0x[0-9a-f]+')


class Operation(NamedTuple):
  """A module of a network, on the shapes that it is called with.

  Attributes:
    key: hash of the program and its shapes.
    label: for people: the module's class, and the shapes of its input and output without the batch.
    module: by itself, without variables.
    arguments: that it is called with; arrays as shapes.
    bytes_moved: of its variables, inputs and output, what memory must give and take; a proxy of energy.
  """
  key: str
  label: str
  module: nn.Module
  arguments: tuple[Any, ...]
  bytes_moved: int


class Measured(NamedTuple):
  """What is known of an operation: label and bytes as above, and its latency beyond that of a call, with quartiles."""
  label: str
  bytes_moved: int
  median_ms: float
  quarter_ms: float
  three_quarters_ms: float


class Calibration(NamedTuple):
  """latency = `scale` * sum + `offset_ms`."""
  scale: float
  offset_ms: float


class Operations:
  """Finds the operations of networks; what many networks share is looked at once."""

  def __init__(self, containers: Sequence[str] = CONTAINERS) -> None:
    """Containers are names of classes that only call other modules, and are looked into."""
    self._containers = tuple(containers)
    self._known: dict[Any, Operation] = {}

  def of(self, model: nn.Module, image: jax.ShapeDtypeStruct) -> list[Operation]:
    """The operations of a network in execution order, one that runs twice twice; nothing is computed."""
    found: list[Operation] = []
    inside = False

    def note(following: Callable[..., Any], args: Any, kwargs: Any, about: Any) -> Any:
      nonlocal inside
      module = about.module
      is_container = not module.path or type(module).__name__ in self._containers
      if inside or is_container or about.method_name != '__call__':
        return following(*args, **kwargs)
      if kwargs:
        raise ValueError(f'{"/".join(module.path)} is called with {", ".join(kwargs)} by keyword; give it by position.')
      inside = True
      result = following(*args)
      found.append(self._operation(module, args, result))  # which calls the module once more
      inside = False
      return result

    with nn.intercept_methods(note):
      jax.eval_shape(model.init, jax.random.key(0), image)
    return found

  def _operation(self, module: nn.Module, args: Any, result: Any) -> Operation:
    alone = module.clone(parent=None, name=None)
    shapes = tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) if _is_array(each) else each for each in args)
    known = (_essence(alone), str(shapes))
    if known not in self._known:
      variables = _shapes_of(alone, shapes)
      with modes.convolution_mode('lax'):  # which prints what a convolution is
        program = jax.make_jaxpr(_call(alone, shapes))(variables, *filter(_is_array, shapes))
      moved = jax.tree.leaves((variables, shapes, result), is_leaf=_is_array)
      size = sum(math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in moved if _is_array(each))
      label = f'{type(alone).__name__} {_size(shapes[0])} -> {_size(result)}'
      self._known[known] = Operation(
        hashlib.sha256(_IN_MEMORY.sub('', str(program)).encode()).hexdigest()[:16], label, alone, shapes, size)
    return self._known[known]


def measure(
  operations: Iterable[Operation], *, rounds: int = 30, known: Mapping[str, Measured] | None = None,
  keep: Callable[[dict[str, Measured]], Any] = lambda table: None,
) -> dict[str, Measured]:
  """The latency of each distinct operation, a dozen at a time in turns with one another and with a call of nothing.

  Args:
    operations: of any number of networks.
    rounds: measured calls of each.
    known: those that were measured before, which are not measured again.
    keep: is given the table after each dozen.
  Returns:
    Key to latency, `known` included. The latency of an operation is never negative.
  """
  table = dict(known or {})
  todo = list({each.key: each for each in operations if each.key not in table}.values())
  for first in range(0, len(todo), TOGETHER):
    some = todo[first:first + TOGETHER]
    seen = side_by_side(
      {CONSTANT: _nothing(), **{each.key: _ready(each) for each in some}}, rounds=rounds)
    less = seen[CONSTANT].median_ms
    for each in some:
      figures = (max(figure - less, 0.0) for figure in seen[each.key][:3])
      table[each.key] = Measured(each.label, each.bytes_moved, *figures)
    keep(table)
  return table


def whole(models: Mapping[str, nn.Module], image: jax.ShapeDtypeStruct, *, rounds: int = 30) -> dict[str, float]:
  """The latency of whole networks, a dozen at a time in turns.

  Args:
    models: name to network.
    image: batch of images that it is called with.
    rounds: measured calls of each.
  Returns:
    Name to the median in ms.
  """
  found: dict[str, float] = {}
  names = list(models)
  for first in range(0, len(names), TOGETHER):
    calls = {name: _ready(Operation('', '', models[name], (image,), 0)) for name in names[first:first + TOGETHER]}
    found |= {name: latency.median_ms for name, latency in side_by_side(calls, rounds=rounds).items()}
  return found


def predict(
  operations: Sequence[Operation], table: Mapping[str, Measured], calibration: Calibration | None = None,
) -> float:
  """The latency of a network: the sum of those of its operations.

  Args:
    operations: of the network.
    table: that `measure` returned, for the same batch.
    calibration: is applied to the sum; none gives the sum.
  Returns:
    In ms.
  Raises:
    ValueError: an operation that was not measured.
  """
  for each in operations:
    if each.key not in table:
      raise ValueError(f'the table has no {each.label} ({each.key}); measure the operations of this network as well.')
  total = sum(table[each.key].median_ms for each in operations)
  return calibration.scale * total + calibration.offset_ms if calibration else total


def calibrate(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Calibration:
  """The line through sums and measured latencies with the least squared relative error.

  Args:
    sums_ms: of networks, as `predict` gives them without a calibration.
    measured_ms: of the same networks, whole.
  Returns:
    The line.
  Raises:
    ValueError: fewer than two different networks.
  Example:
    >>> line = calibrate([1.0, 2.0, 4.0], [3.0, 5.0, 9.0])
    >>> round(line.scale, 6), round(line.offset_ms, 6)
    (2.0, 1.0)
  """
  if len(sums_ms) != len(measured_ms) or len(set(sums_ms)) < 2:
    raise ValueError(f'calibrate: {len(sums_ms)} sums and {len(measured_ms)} latencies; give two or more networks.')
  sums, latencies = np.asarray(sums_ms), np.asarray(measured_ms)
  scale, offset = np.linalg.lstsq(
    np.stack([sums, np.ones_like(sums)], 1) / latencies[:, None], np.ones_like(sums), rcond=None)[0]
  return Calibration(float(scale), float(offset))


def _essence(value: Any) -> Any:
  """What two modules have in common that compute the same: types and fields, functions as such."""
  if isinstance(value, nn.Module):
    fields = [field.name for field in dataclasses.fields(value) if field.name not in ('parent', 'name')]
    return type(value), tuple((name, _essence(getattr(value, name))) for name in fields)
  if isinstance(value, functools.partial):
    return functools.partial, _essence(value.func), _essence(value.args), _essence(value.keywords)
  if isinstance(value, Mapping):
    return dict, tuple((name, _essence(value[name])) for name in sorted(value))
  if isinstance(value, tuple | list):
    return type(value), tuple(map(_essence, value))
  return type(value), value if isinstance(value, Hashable) else id(value)


def _ready(operation: Operation) -> Callable[[], Any]:
  """A call of the compiled operation on noise."""
  shapes = _shapes_of(operation.module, operation.arguments)
  generator = np.random.default_rng(0)
  # Positive, as variances are; small, so that nothing overflows.
  variables, arrays = jax.tree.map(
    lambda each: jnp.asarray(generator.uniform(0.01, 0.02, each.shape), each.dtype),
    (shapes, list(filter(_is_array, operation.arguments))))
  compiled = jax.jit(_call(operation.module, operation.arguments))
  return lambda: compiled(variables, *arrays)


def _nothing() -> Callable[[], Any]:
  compiled, number = jax.jit(lambda x: x + 1), jnp.zeros(())
  return lambda: compiled(number)


def _call(module: nn.Module, arguments: tuple[Any, ...]) -> Callable[..., Any]:
  def call(variables: Any, *arrays: Any) -> Any:
    given = iter(arrays)
    return module.apply(variables, *(next(given) if _is_array(each) else each for each in arguments))
  return call


def _shapes_of(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
  def init(*arrays: Any) -> Any:
    given = iter(arrays)
    return module.init(jax.random.key(0), *(next(given) if _is_array(each) else each for each in arguments))
  return jax.eval_shape(init, *filter(_is_array, arguments))


def _is_array(value: Any) -> bool:
  return hasattr(value, 'shape') and hasattr(value, 'dtype')


def _size(value: Any) -> str:
  return 'x'.join(map(str, value.shape[1:]))
