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
  """The path of a leaf of `variables` as JAX gives it, joined by '/'; linen's leading 'params' is left out.

  Example:
    >>> import jax
    >>> [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path({'params': {'fc': {'kernel': 1.0}}})]
    ['fc/kernel']
  """
  return join(key_path[1:] if key_path[:1] == (jax.tree_util.DictKey('params'),) else key_path)


def join(key_path: tuple[Any, ...]) -> Path:
  """The keys joined by '/', collections included, without the attribute in which an NNX variable keeps its array."""
  if len(key_path) > 1 and key_path[-1] == jax.tree_util.GetAttrKey('value'):
    key_path = key_path[:-1]
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def without_collection(path: Path) -> Path:
  """A path that `join` made, as `flatten` would name it: linen's leading 'params/' is left out."""
  return path.removeprefix('params/')


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
  return {join(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parameters(variables))}


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
    path = join(key_path)
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
