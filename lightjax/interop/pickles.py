"""Reads the pickles inside PyTorch's files without the power of pickle: nothing of a file is imported or called.

Python's own unpickler can call any function, and allocates what a file claims. This one is an interpreter of the
opcodes that plain data needs; a global is a name, to be found in a table of the caller's or refused. Memory is bounded
by the length of the file.
"""
from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

from lightjax.interop.errors import WeightsError, damage_named

# Opcodes whose argument is the value.
_VALUES = frozenset((
  'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
  'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE',
  'BINUNICODE8',
))
_CONSTANTS: dict[str, Callable[[], Any]] = {
  'NONE': lambda: None, 'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False,
  'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_TUPLE': tuple,
}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class Function(NamedTuple):
  """What a file may call: one of the caller's own functions."""
  call: Callable[..., Any]


def read(file: BinaryIO, *, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
  """The next pickle of a file.

  Args:
    file: stands after the pickle's end when this returns.
    names: 'module.name' to what stands for that global: a `Function`, or a value.
    persistent: turns a persistent id, such as that of a storage, into a value.
  Returns:
    Plain data: dicts, lists, tuples, numbers, strings, None, and what `names` and `persistent` gave.
  Raises:
    WeightsError: a global that is not in `names`, an opcode that plain data does not need, or a damaged file.
  """
  machine = _Machine(names, persistent)
  with damage_named('the pickle'):
    for opcode, argument, _ in pickletools.genops(file):
      if opcode.name == 'STOP':
        return machine.pop()
      machine.run(opcode.name, argument)
  raise WeightsError('the pickle has no end.')


class _Machine:
  """A stack, the stacks below open marks, and the memo."""

  def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any]):
    self.names, self.persistent = names, persistent
    self.stack: list[Any] = []
    self.below: list[list[Any]] = []
    self.memo: dict[int, Any] = {}

  def pop(self) -> Any:
    return self.stack.pop()

  def pop_mark(self) -> list[Any]:
    items, self.stack = self.stack, self.below.pop()
    return items

  def run(self, opcode: str, argument: Any) -> None:
    """Perform one opcode."""
    if opcode in _VALUES:
      self.stack.append(argument)
    elif opcode in _CONSTANTS:
      self.stack.append(_CONSTANTS[opcode]())
    elif opcode in _TUPLES:
      items = [self.pop() for _ in range(_TUPLES[opcode])]
      self.stack.append(tuple(reversed(items)))
    elif opcode in ('BINPUT', 'LONG_BINPUT', 'PUT'):
      self.memo[argument] = self.stack[-1]
    elif opcode in ('BINGET', 'LONG_BINGET', 'GET'):
      self.stack.append(self.memo[argument])
    elif opcode in ('PROTO', 'FRAME'):
      pass
    else:
      operation = getattr(self, f'do_{opcode.lower()}', None)
      if operation is None:
        raise WeightsError(f'the pickle has the opcode {opcode}, which tensors, numbers, strings and their '
                           'containers do not need; it is refused.')
      operation(argument)

  def do_memoize(self, _: Any) -> None:
    self.memo[len(self.memo)] = self.stack[-1]

  def do_mark(self, _: Any) -> None:
    self.below.append(self.stack)
    self.stack = []

  def do_tuple(self, _: Any) -> None:
    items = tuple(self.pop_mark())
    self.stack.append(items)

  def do_list(self, _: Any) -> None:
    items = self.pop_mark()
    self.stack.append(items)

  def do_dict(self, _: Any) -> None:
    items = self.pop_mark()
    self.stack.append({})
    self._set(items)

  def do_append(self, _: Any) -> None:
    self._extend([self.pop()])

  def do_appends(self, _: Any) -> None:
    self._extend(self.pop_mark())

  def do_setitem(self, _: Any) -> None:
    value, key = self.pop(), self.pop()
    self._set([key, value])

  def do_setitems(self, _: Any) -> None:
    self._set(self.pop_mark())

  def do_global(self, argument: str) -> None:
    self._push_global(*argument.split(' ', 1))

  def do_stack_global(self, _: Any) -> None:
    name, module = self.pop(), self.pop()
    self._push_global(module, name)

  def do_binpersid(self, _: Any) -> None:
    self.stack.append(self.persistent(self.pop()))

  def do_reduce(self, _: Any) -> None:
    arguments, function = self.pop(), self.pop()
    if not isinstance(function, Function) or not isinstance(arguments, tuple):
      raise WeightsError(f'the pickle calls a {type(function).__name__}; it is refused.')
    self.stack.append(function.call(*arguments))

  def do_build(self, _: Any) -> None:
    """Attributes of an OrderedDict: a state_dict keeps the versions of its modules there. They are not needed."""
    self.pop()
    if not isinstance(self.stack[-1], dict):
      raise WeightsError(f'the pickle sets the state of a {type(self.stack[-1]).__name__}; it is refused.')

  def _push_global(self, module: Any, name: Any) -> None:
    if not (isinstance(module, str) and isinstance(name, str) and f'{module}.{name}' in self.names):
      asked = f'{module}.{name}'[:200] if isinstance(module, str) and isinstance(name, str) else 'no name'
      raise WeightsError(
        f'the pickle asks for {asked}; only tensors, numbers, strings and their containers are read. If you trust the '
        'file, load it where it was made and save the state_dict alone.')
    self.stack.append(self.names[f'{module}.{name}'])

  def _extend(self, items: list[Any]) -> None:
    if not isinstance(self.stack[-1], list):
      raise WeightsError(f'the pickle appends to a {type(self.stack[-1]).__name__}; it is refused.')
    self.stack[-1].extend(items)

  def _set(self, items: list[Any]) -> None:
    """Keys are strings and numbers: hashing a deeply nested tuple, or printing a huge number, would not end well."""
    if not isinstance(self.stack[-1], dict):
      raise WeightsError(f'the pickle sets an item of a {type(self.stack[-1]).__name__}; it is refused.')
    for key, value in zip(items[::2], items[1::2], strict=True):
      if not isinstance(key, str | int | float) or (isinstance(key, int) and key.bit_length() > 64):
        raise WeightsError(f'the pickle has a {type(key).__name__} as a key; it is refused.')
      self.stack[-1][key] = value
