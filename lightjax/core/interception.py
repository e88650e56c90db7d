"""Interception of the inputs of chosen linen modules: who is reached, and what replaces their first argument.

Transforms of activations stand on it. It needs no flax: linen hands over what it knows of a call (`about`).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lightjax.core.transform import Context
from lightjax.core.typing import Path, Variables

__all__ = ['calls_of', 'module_path', 'nest', 'on_inputs', 'unnest']

Interceptor = Callable[..., Any]


def calls_of(variables: Variables, context: Context, name: str) -> dict[str, int]:
  """How often each module is called whose kernel a transform may touch.

  Args:
    variables: the network's.
    context: of the transform's init; needs `modules`.
    name: of the transform, for messages.
  Returns:
    Module path to its calls in one forward pass, 1 or more.
  Raises:
    ValueError: interception does not reach a module (inside `nn.scan` or `nn.vmap` it has no collection of its own), a
      module takes its input by keyword, or the network is no linen module.
  """
  modules: dict[str, Path] = {path.rpartition('/')[0]: path for path in context.select(variables)}
  calls: dict[str, int] = {}

  def count(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
    path = module_path(about)
    # Inside nn.scan and nn.vmap a layer is called, but no collection gets there that they were not told of.
    if path in modules and about.method_name == '__call__' and about.module.has_variable('probe', 'reached'):
      if not args:
        raise ValueError(f'{name}: the layer of {modules[path]!r} takes its input by keyword; give it by position.')
      calls[path] = calls.get(path, 0) + 1
    return following(*args, **kwargs)

  context.need('modules', name)(count, {'probe': nest({module: {'reached': np.zeros(())} for module in modules})})
  for module, path in modules.items():
    if module not in calls:
      raise ValueError(
        f'{name}: interception does not reach the layer of {path!r} (inside nn.scan or nn.vmap, or not called in the '
        f'forward pass); leave it alone with where((({path!r}, None), ...)).'
      )
  return calls


def on_inputs(
  modules: frozenset[str], change: Callable[[Any, str, Any], Any],
  after: Callable[[Any, Any, Any], Any] = lambda about, x, y: y,
) -> Interceptor:
  """An interceptor that replaces the first argument of each call of some modules.

  Args:
    modules: their paths.
    change: (about, 'call0' for the first call of that module, its input) -> what the module is given instead.
    after: (about, its input before the change, its output) -> what the network is given instead.
  Returns:
    For `flax.linen.intercept_methods`; one for each trace, since it counts the calls.
  """
  calls: dict[str, int] = {}

  def interceptor(following: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: Any) -> Any:
    path = module_path(about)
    if path not in modules or about.method_name != '__call__':
      return following(*args, **kwargs)
    index = calls.get(path, 0)
    calls[path] = index + 1
    return after(about, args[0], following(change(about, f'call{index}', args[0]), *args[1:], **kwargs))

  return interceptor


def module_path(about: Any) -> str:
  """The path of the module that is called, '' for the network itself."""
  return '/'.join(about.module.path)


def nest(state: Mapping[str, Any]) -> dict[str, Any]:
  """What belongs to modules in the shape of a linen collection.

  Example:
    >>> nest({'stage1/conv': {'range': 1}})
    {'stage1': {'conv': {'range': 1}}}
  """
  nested: dict[str, Any] = {}
  for module, values in state.items():
    level = nested
    for part in _parts(module):
      level = level.setdefault(part, {})
    level.update(values)
  return nested


def unnest(nested: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `nest`.

  Args:
    nested: a linen collection.
    like: module path to a mapping that has the names of the values.
  Returns:
    Module path to name to value.
  """
  flat = {}
  for module, values in like.items():
    level: Any = nested
    for part in _parts(module):
      level = level[part]
    flat[module] = {name: level[name] for name in values}
  return flat


def _parts(module: str) -> list[str]:
  """The names on the way to a module; none for the network itself."""
  return module.split('/') if module else []
