"""From configs to functions: names resolved in a namespace, fields checked against a signature, canonical identity.

A namespace's `__all__` is its registry: 'magnitude' is `criteria.magnitude`, and 'my_file:my_criterion' is the user's
own.
"""
from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightjax.core import trees


class SpecError(ValueError):
  """A config names what there is not, or gives a value that its receiver refuses."""


def resolve(name: str, namespace: types.ModuleType, *, field: str) -> Callable[..., Any]:
  """The function that a config means.

  Args:
    name: a name of the namespace's `__all__`, or 'module:attribute' for one of the user's own (the module is imported,
      the current directory included as Python's path has it).
    namespace: the package or module that holds the well-known ones.
    field: the config field, for messages.
  Returns:
    The function.
  Raises:
    SpecError: unknown name (the nearest are given), a module that cannot be imported, an attribute that it lacks or
      that is no function.
  Example:
    >>> from lightjax.core import schedules
    >>> resolve('lightjax.core.schedules:cubic', schedules, field='schedule') is schedules.cubic
    True
  """
  if ':' in name:
    module_name, _, attribute = name.partition(':')
    if not (module_name and attribute):
      raise SpecError(f"{field}={name!r}: a function of your own is named 'module:function'.")
    try:
      module = importlib.import_module(module_name)
    except ImportError as error:
      remedy = 'is its folder on PYTHONPATH?'
      raise SpecError(f'{field}={name!r}: cannot import {module_name!r} ({error}); {remedy}') from error
    if not hasattr(module, attribute):
      near = trees.nearest(attribute, dir(module))
      raise SpecError(f'{field}={name!r}: {module_name!r} has no {attribute!r}; nearest: {near}.')
    if not callable(getattr(module, attribute)):
      raise SpecError(f'{field}={name!r} is no function but {type(getattr(module, attribute)).__name__}.')
    return getattr(module, attribute)
  known = [each for each in namespace.__all__ if callable(getattr(namespace, each))]
  if name not in known:
    raise SpecError(
      f'{field}={name!r} is none of {namespace.__name__} (nearest: {trees.nearest(name, known)}); '
      "your own is named 'module:function'."
    )
  return getattr(namespace, name)


def resolve_call(
  text: str, namespace: types.ModuleType, *, field: str, given: Sequence[Any] = (),
  always: Mapping[str, Any] | None = None,
) -> Any:
  """What a config means by a name with or without arguments.

  Args:
    text: 'name' for the function itself, 'name(2, axis=-1)' for what it returns; an argument is a Python literal, or
      again a name or a call of the namespace.
    namespace: as for `resolve`.
    field: the config field, for messages.
    given: positional arguments from the caller, before those of the text; for the outermost call.
    always: keyword arguments from the caller, passed on where the function takes them; likewise.
  Returns:
    The function, or its result.
  Raises:
    SpecError: as `resolve`, or arguments that are none or that the function refuses.
  Example:
    >>> from lightjax.core import schedules
    >>> resolve_call('constant(0.5)', schedules, field='schedule').value(3)
    0.5
  """
  if '(' not in text:
    return resolve(text, namespace, field=field)
  name, _, rest = text.partition('(')
  function = resolve(name.strip(), namespace, field=field)

  def value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name | ast.Call):
      return resolve_call(ast.unparse(node), namespace, field=field)
    return ast.literal_eval(node)

  try:
    call_ = ast.parse(f'_({rest}', mode='eval').body
    if not isinstance(call_, ast.Call):
      raise ValueError('not a call')
    positional = [value(node) for node in call_.args]
    named = {str(each.arg): value(each.value) for each in call_.keywords}
  except SpecError:
    raise
  except (ValueError, SyntaxError) as error:
    raise SpecError(f'{field}={text!r}: arguments are Python literals, name(2, axis=-1) ({error}).') from error
  return call(function, named, *given, *positional, field=f'{field}={text}', **(always or {}))


def check(function: Callable[..., Any], fields: Mapping[str, Any], given: int, *, field: str) -> None:
  """Compare a config's fields with the keyword arguments of a function.

  Args:
    function: the receiver.
    fields: keyword arguments.
    given: how many positional arguments the caller passes.
    field: the config field that holds `fields`, for messages.
  Raises:
    SpecError: a field that the function does not take (the nearest are given), or one that it needs and does not get.
  """
  takes, open_ended = _keywords(function, given)
  name = getattr(function, '__name__', str(function))
  for each in fields:
    if each not in takes and not open_ended:
      raise SpecError(f'{field}.{each}: {name} has no such field; nearest: {trees.nearest(each, takes)}.')
  missing = [each for each, default in takes.items() if default is inspect.Parameter.empty and each not in fields]
  if missing:
    raise SpecError(f'{field}: {name} needs {", ".join(missing)}.')


def arguments(function: Callable[..., Any]) -> tuple[str, ...]:
  """The names of all that a function takes."""
  return tuple(inspect.signature(function).parameters)


def call(function: Callable[..., Any], fields: Mapping[str, Any], *given: Any, field: str, **always: Any) -> Any:
  """Call a function with a config's fields as keyword arguments, all of them checked first.

  Args:
    function: the receiver.
    fields: keyword arguments from a config.
    *given: positional arguments from the caller.
    field: the config field that holds `fields`, for messages.
    **always: keyword arguments from the caller, passed on where the function takes them.
  Returns:
    What the function returns.
  Raises:
    SpecError: as `check`, or a value that the function refuses with ValueError.
  """
  takes, open_ended = _keywords(function, len(given))
  arguments = {each: value for each, value in always.items() if each in takes or open_ended} | dict(fields)
  check(function, arguments, len(given), field=field)
  try:
    return function(*given, **arguments)
  except SpecError:
    raise
  except ValueError as error:
    raise SpecError(f'{field}: {error}') from error


def _keywords(function: Callable[..., Any], given: int) -> tuple[dict[str, Any], bool]:
  """Keyword arguments left after `given` positional ones, with their defaults; and whether there may be any others."""
  parameters = list(inspect.signature(function).parameters.values())
  positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
  left = [each for each in positional[given:] if each.kind is each.POSITIONAL_OR_KEYWORD]
  left += [each for each in parameters if each.kind is each.KEYWORD_ONLY]
  return {each.name: each.default for each in left}, any(each.kind is each.VAR_KEYWORD for each in parameters)


def without_defaults(function: Callable[..., Any], fields: Mapping[str, Any]) -> dict[str, Any]:
  """The fields that differ from a function's defaults: a new field with a default leaves old identities valid."""
  parameters = inspect.signature(function).parameters

  def is_default(name: str, value: Any) -> bool:
    default = parameters[name].default if name in parameters else inspect.Parameter.empty
    # A function is equal to itself only: it may have no canonical form, and `empty` is a class.
    return default is value if callable(default) else canonical(default) == canonical(value)

  return {name: value for name, value in fields.items() if not is_default(name, value)}


def canonical(value: Any) -> Any:
  """Plain JSON data in which equal values are equal: 1 and 1.0 are one (True is not), tuples are lists, keys sorted.

  A function or class is its 'module:name'.

  Raises:
    SpecError: a value that has no canonical form (an array, an object, NaN, a function without a name of its own).
  Example:
    >>> canonical({'b': (1.0, 2.5), 'a': None})
    {'a': None, 'b': [1, 2.5]}
  """
  if value is None or isinstance(value, (bool, str, int)):
    return value
  if isinstance(value, float):
    if not math.isfinite(value):
      raise SpecError(f'{value} is no value of a config.')
    return int(value) if value.is_integer() else value
  if isinstance(value, Mapping):
    return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
  if isinstance(value, Sequence):
    return [canonical(each) for each in value]
  name = getattr(value, '__qualname__', '<') if callable(value) else '<'
  if '<' not in name:  # neither '<lambda>' nor 'outer.<locals>.inner', which many functions share
    return f'{value.__module__}:{name}'
  raise SpecError(f'{value!r} of type {type(value).__name__} is no plain value of a config.')


def digest(value: Any, *, length: int = 16) -> str:
  """Hexadecimal hash of a value's canonical form."""
  return hashlib.sha256(json.dumps(canonical(value), sort_keys=True).encode()).hexdigest()[:length]


def source_digest(name: str, function: Callable[..., Any]) -> str | None:
  """Hash of the source of a user's 'module:function': editing it makes a new identity. None for the library's."""
  if ':' not in name:
    return None
  return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
