"""Path rules: which transform takes which parameter, decided once, before training, and printable."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightjax.core import trees
from lightjax.core.typing import Layout, Path

# Left alone unless the user says otherwise. 'not_kernel': biases, norm scales and offsets, whatever is no conv's or
# dense layer's kernel; 'first_conv' and 'last_dense': by the order of the graph, not by name.
DEFAULT_SKIP = ('not_kernel', 'first_conv', 'last_dense')


class Assigned(NamedTuple):
  """One line of the table that says which rule took which parameter: `by` is a rule's pattern or a default's name."""
  path: Path
  by: str
  rule: int | None


def roles(paths: Sequence[Path], layouts: Mapping[Path, Layout]) -> dict[Path, str]:
  """The role of each parameter that a default may leave alone; kernels in the middle of the network have none.

  Args:
    paths: the parameters in question, all of the network's or some.
    layouts: all kernels of the network, from its graph.
  Returns:
    Path to 'not_kernel', 'first_conv' or 'last_dense'.
  """
  found = {path: 'not_kernel' for path in paths if path not in layouts}
  kernels = sorted(layouts, key=lambda path: layouts[path].order)
  first_conv = [path for path in kernels if layouts[path].kind == 'conv'][:1]
  last_dense = [path for path in kernels if layouts[path].kind == 'dense'][-1:]
  found |= {path: 'first_conv' for path in first_conv if path in paths}
  found |= {path: 'last_dense' for path in last_dense if path in paths}
  return found


def selected(
  paths: Sequence[Path], layouts: Mapping[Path, Layout], skip: Sequence[str] = DEFAULT_SKIP
) -> tuple[Path, ...]:
  """The parameters that no default leaves alone, in the tree's order."""
  unknown = [each for each in skip if each not in DEFAULT_SKIP]
  if unknown:
    raise ValueError(f'skip={unknown[0]!r} is no default; nearest: {trees.nearest(unknown[0], DEFAULT_SKIP, 1)}.')
  role = roles(paths, layouts)
  return tuple(path for path in paths if role.get(path) not in skip)


def assign(
  patterns: Sequence[str], paths: Sequence[Path], layouts: Mapping[Path, Layout], skip: Sequence[str] = DEFAULT_SKIP
) -> tuple[Assigned, ...]:
  """Give each parameter to the first pattern that matches its whole path.

  Args:
    patterns: regular expressions, in order.
    paths: all parameters.
    layouts: the kernels among them, from the graph.
    skip: defaults that go before every pattern; see `DEFAULT_SKIP`.
  Returns:
    One line a parameter, in the tree's order; `rule` is None where a default or no pattern took it.
  Raises:
    ValueError: a pattern took nothing: no path matches (the nearest are named), a default goes before it, or an earlier
      pattern took all that it matches.
  """
  free = set(selected(paths, layouts, skip))
  role = roles(paths, layouts)
  table = []
  for path in paths:
    if path not in free:
      table.append(Assigned(path, f'default: {role[path]}', None))
      continue
    index = next((i for i, pattern in enumerate(patterns) if re.fullmatch(pattern, path)), None)
    table.append(Assigned(path, 'no rule' if index is None else patterns[index], index))
  for index, pattern in enumerate(patterns):
    if any(taken.rule == index for taken in table):
      continue
    matches = [path for path in paths if re.fullmatch(pattern, path)]
    if not matches:
      near = trees.nearest(pattern, paths)
      raise ValueError(f'where: rule {index + 1} {pattern!r} matches no parameter; nearest: {near}.')
    if not free.intersection(matches):
      raise ValueError(
        f'where: rule {index + 1} {pattern!r} matches only parameters that a default leaves alone '
        f'({matches[0]!r}: {role[matches[0]]}); drop the rule, or take that default out of skip={tuple(skip)!r}.'
      )
    raise ValueError(f'where: rule {index + 1} {pattern!r} comes too late: earlier rules took all that it matches.')
  return tuple(table)
