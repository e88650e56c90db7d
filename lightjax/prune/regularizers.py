"""Terms of the loss that drive channels towards zero, so that removing them changes little.

    loss = cross_entropy + regularizers.group_lasso(variables, graph.prunable, strength=1e-4)

Pure functions of the variables: they differentiate, jit and add up. A strength may be a traced number.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lightjax.core.typing import Variables
from lightjax.graph.channels import Group, Member, Role, variable_paths

__all__ = ['batch_norm_l1', 'group_lasso', 'growing', 'growing_strength']

KERNELS: tuple[Role, ...] = ('producer', 'depthwise')


def batch_norm_l1(
  variables: Variables, groups: Sequence[Group], *, strength: float | Float[Array, ''],
) -> Float[Array, '']:
  """strength * sum |gamma| over BatchNorm's scales of the groups.

  Args:
    variables: the network's own.
    groups: of the channel graph; those that may lose channels.
    strength: 1e-5 to 1e-4 in the paper.
  Returns:
    The term.
  Raises:
    ValueError: the groups have no scale.
  Source: Liu et al. 2017, arXiv:1708.06519, eq. 1.
  """
  scales = [leaf for _, member, leaf in _members(variables, groups)
            if member.role == 'norm' and member.path.rpartition('/')[2] == 'scale']
  if not scales:
    raise ValueError('batch_norm_l1: the groups have no BatchNorm scale; take group_lasso.')
  return strength * sum((jnp.abs(leaf).sum() for leaf in scales), jnp.float32(0))


def group_lasso(
  variables: Variables, groups: Sequence[Group], *, strength: float | Float[Array, ''],
  roles: Sequence[Role] = KERNELS,
) -> Float[Array, '']:
  """strength * sum over units of sqrt(p) ||w||, p being the number of weights w of a unit.

  Args:
    variables: the network's own.
    groups: of the channel graph; those that may lose channels.
    strength: of the term.
    roles: members whose weights make a unit: 'producer', 'depthwise', 'consumer', 'norm', 'bias'.
  Returns:
    The term; its gradient is 0 at a unit of zeros.
  Source: Wen et al. 2016, arXiv:1608.03665, eq. 3; with sqrt(p) Yuan and Lin 2006, eq. 2.2.
  """
  total = jnp.float32(0)
  for group in groups:
    squares, sizes = _squares(variables, group, roles)
    positive = squares > 0
    norms = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
    total += (jnp.sqrt(sizes) * norms).sum()
  return strength * total


def growing(
  variables: Variables, groups: Sequence[Group], kept: Mapping[str, Any], *, strength: float | Float[Array, ''],
  roles: Sequence[Role] = KERNELS,
) -> Float[Array, '']:
  """strength / 2 * sum w^2 over the units that are to go, while the others train freely.

  Args:
    variables: the network's own.
    groups: of the channel graph.
    kept: name of a group -> bool [units], from `selection.choose`; the units with False are driven to zero.
    strength: grows while the network trains, see `growing_strength`.
    roles: members whose weights make a unit.
  Returns:
    The term.
  Source: Wang et al. 2021, arXiv:2012.09243, section 3.2 (GReg-1).
  """
  total = jnp.float32(0)
  for group in groups:
    if group.name in kept:
      squares, _ = _squares(variables, group, roles)
      total += jnp.where(np.asarray(kept[group.name]), 0.0, squares).sum()
  return 0.5 * strength * total


def growing_strength(
  step: int | Array, *, increment: float, every: int, ceiling: float,
) -> Float[Array, '']:
  """The strength of `growing` at a step: it is raised by `increment` every so many steps, up to a ceiling.

  Args:
    step: steps completed.
    increment: 1e-4 in the paper.
    every: steps between two raises; 5 to 10 in the paper.
    ceiling: 1 in the paper.
  Returns:
    The strength.
  Example:
    >>> [round(float(growing_strength(step, increment=0.1, every=5, ceiling=0.3)), 1) for step in (0, 5, 9, 100)]
    [0.0, 0.1, 0.1, 0.3]

  Source: Wang et al. 2021, arXiv:2012.09243, algorithm 1.
  """
  return jnp.minimum(increment * (jnp.asarray(step) // every), ceiling)


def _members(variables: Variables, groups: Sequence[Group]) -> Iterator[tuple[Group, Member, Array]]:
  leaves = dict(zip(variable_paths(variables), jax.tree.leaves(variables), strict=True))
  for group in groups:
    for member in group.members:
      path = member.path if member.path in leaves else member.path.removeprefix('params/')  # the params alone
      if path in leaves:
        yield group, member, leaves[path]


def _squares(variables: Variables, group: Group, roles: Sequence[Role]) -> tuple[Array, np.ndarray]:
  """Sum of squares and number of weights of each unit."""
  squares, sizes = jnp.zeros(group.size), np.zeros(group.size)
  for _, member, leaf in _members(variables, [group]):
    if member.role in roles and not member.path.startswith('batch_stats/'):
      along = member.along(leaf)
      each = jnp.square(along).reshape(along.shape[0], -1).sum(-1)
      units = np.repeat(np.arange(group.size), [len(places) for places in member.indices])
      places = np.array([place for unit in member.indices for place in unit], int)
      squares = squares.at[units].add(each[places])
      np.add.at(sizes, units, along[0].size)
  return squares, sizes
