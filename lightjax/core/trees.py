"""Parameters by path: `'stage1/block0/conv1/kernel'` for a linen module, and the like for any other pytree.

The parameters of `variables` are the collection 'params' where there is one (linen), else every array of the tree (an
NNX state, an Equinox partition). Statistics and other collections are never parameters.
"""
from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from lightjax.core.typing import Leaves, Path, Variables


def path_string(key_path: tuple[Any, ...]) -> Path:
  """The path of a leaf as JAX gives it, joined by '/'; a leading 'params' and a trailing '.value' (NNX) are left out.

  Example:
    >>> import jax
    >>> [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path({'params': {'fc': {'kernel': 1.0}}})]
    ['fc/kernel']
  """
  parts = []
  for key in key_path:
    for attribute in ('key', 'name', 'idx'):
      if hasattr(key, attribute):
        parts.append(str(getattr(key, attribute)))
        break
    else:
      parts.append(str(key))
  if parts[:1] == ['params']:
    parts = parts[1:]
  if len(parts) > 1 and parts[-1] == 'value':
    parts = parts[:-1]
  return '/'.join(parts)


def parameters(variables: Variables) -> Any:
  """The sub-tree that holds the parameters: `variables['params']`, or all of `variables` without such a collection."""
  return variables['params'] if has_collections(variables) else variables


def has_collections(variables: Variables) -> bool:
  """Whether the tree is linen's mapping of collections, one of them 'params'."""
  return isinstance(variables, Mapping) and 'params' in variables


def with_parameters(variables: Variables, params: Any) -> Variables:
  """The same variables around other parameters."""
  return {**variables, 'params': params} if has_collections(variables) else params


def flatten(variables: Variables) -> dict[Path, Any]:
  """The parameters by path, in the tree's order.

  Args:
    variables: any pytree; see the module's docstring for what counts as a parameter.
  Returns:
    Path to leaf; nothing is copied.
  """
  return {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parameters(variables))}


def replace(variables: Variables, leaves: Leaves) -> Variables:
  """Variables with some parameters exchanged.

  Args:
    variables: any pytree.
    leaves: path to the new leaf; paths not named stay as they are.
  Returns:
    A tree of the same structure.
  Raises:
    KeyError: a path is no parameter of `variables`; the message names the nearest.
  """
  if not leaves:
    return variables
  found = set()

  def exchange(key_path: tuple[Any, ...], leaf: Any) -> Any:
    path = path_string(key_path)
    found.add(path)
    return leaves.get(path, leaf)

  params = jax.tree_util.tree_map_with_path(exchange, parameters(variables))
  for path in leaves:
    if path not in found:
      raise KeyError(f'{path!r} is no parameter of these variables; nearest: {nearest(path, found)}.')
  return with_parameters(variables, params)


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
  """The names most like a misspelt one, as text for an error message.

  Example:
    >>> nearest('stage9/conv/kernel', ['stage3/conv/kernel', 'fc/bias'], count=1)
    "'stage3/conv/kernel'"
  """
  names = list(names)
  close = difflib.get_close_matches(name, names, n=count, cutoff=0.0)
  return ', '.join(repr(each) for each in close) if close else 'none'
