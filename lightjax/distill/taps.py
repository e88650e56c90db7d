"""Taps: what modules of a linen network give, by rules on their paths, without an edit of the network.

linen's `capture_intermediates` stores the outputs; these functions say which (`capture`) and find them (`read`). A rule
is a regular expression for all of a module's path, 'stage[12]'; a module that is called more than once has its later
calls as 'fc#1', 'fc#2'; where a module's `__call__` calls its base class's, that call comes first. The rule '' is the
network's own output.

    logits, mutated = model.apply(variables, x, capture_intermediates=capture(names), mutable=['intermediates'])
    first, second = read(mutated['intermediates'], logits, names)
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightjax.core import trees

__all__ = ['OUTPUT', 'capture', 'found', 'read', 'select']

OUTPUT = ''
_CALL = '__call__'


def found(intermediates: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
  """What every module gave.

  Args:
    intermediates: the collection that linen captured, of arrays or shapes.
  Returns:
    Module path to its outputs, one a call; in natural order ('block2' before 'block10').
  """
  outputs: dict[str, tuple[Any, ...]] = {}

  def walk(level: Mapping[str, Any], path: tuple[str, ...]) -> None:
    for name, value in level.items():
      if name == _CALL:
        outputs['/'.join(path)] = value
      elif isinstance(value, Mapping):
        walk(value, (*path, name))

  walk(intermediates, ())
  return {path: outputs[path] for path in sorted(outputs, key=_natural)}


def select(rule: str, intermediates: Mapping[str, Any], *, field: str) -> tuple[str, ...]:
  """The names that a rule means.

  Args:
    rule: a regular expression for a whole name, or '' for the network's output.
    intermediates: what linen captured of all modules; shapes suffice.
    field: the config field, for messages.
  Returns:
    Names, in natural order.
  Raises:
    ValueError: nothing matches (the nearest are named; a module inside `nn.scan` or `nn.vmap` is not reached), or what
      matches gives no array.
  """
  if rule == OUTPUT:
    return (OUTPUT,)
  outputs = {name if call == 0 else f'{name}#{call}': value
             for name, values in found(intermediates).items() if name for call, value in enumerate(values)}
  names = tuple(name for name in outputs if re.fullmatch(rule, name))
  if not names:
    raise ValueError(f'{field}={rule!r} matches no module that the forward pass calls; '
                     f'nearest: {trees.nearest(rule, outputs)}.')
  for name in names:
    if not hasattr(outputs[name], 'shape'):
      raise ValueError(f'{field}={rule!r}: {name!r} gives {type(outputs[name]).__name__} and no array.')
  return names


def capture(names: Sequence[str]) -> Callable[[Any, str], bool]:
  """The filter for linen's `capture_intermediates`.

  Args:
    names: of `select`.
  Returns:
    (module, method name) -> whether its output is wanted.
  """
  wanted = {name.partition('#')[0] for name in names} - {OUTPUT}
  return lambda module, method: method == _CALL and '/'.join(module.path) in wanted


def read(intermediates: Mapping[str, Any], output: Any, names: Sequence[str]) -> tuple[Any, ...]:
  """The outputs of some names.

  Args:
    intermediates: what linen captured, arrays or shapes.
    output: of the network.
    names: of `select`.
  Returns:
    Arrays, one a name.
  Raises:
    ValueError: a module was called less often than when it was selected.
  """
  outputs = found(intermediates)

  def one(name: str) -> Any:
    module, _, call = name.partition('#')
    calls = outputs.get(module, ())
    if len(calls) <= int(call or 0):
      raise ValueError(f'tap {name!r}: {module!r} was called {len(calls)} times in this forward pass.')
    return calls[int(call or 0)]

  return tuple(output if name == OUTPUT else one(name) for name in names)


def _natural(path: str) -> list[tuple[int, str]]:
  return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', path)]
