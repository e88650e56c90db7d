"""One option for each layer, such as its bits, so that the sum of the costs stays within a limit.

What an option does to a layer is measured with all other layers left as they are (a sensitivity); the damages of layers
are added, which is what both functions assume.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from lightjax.core.typing import Path
from lightjax.factorize import ranks
from lightjax.factorize.layers import Option as Split

__all__ = ['Option', 'greedy', 'linear']


class Option(NamedTuple):
  """What may be done to a layer.

  Attributes:
    value: bits, a ratio, a rank: what a config would say.
    damage: what the loss grows by, or the accuracy falls by, if only this is done.
    cost: bits, bytes, ms.
  """
  value: Any
  damage: float
  cost: float


def greedy(options: Mapping[Path, Sequence[Option]], limit: float) -> dict[Path, Option]:
  """From the least damage on, again and again the step that saves most cost per damage; see `ranks.cheapest`.

  Args:
    options: of each layer, at least one.
    limit: of the sum of their costs.
  Returns:
    The option of each layer.
  Raises:
    ValueError: the cheapest options cost more.
  Example:
    >>> layers = {'a': [Option(8, 0.0, 8), Option(4, 0.1, 4)], 'b': [Option(8, 0.0, 8), Option(4, 0.5, 4)]}
    >>> {path: option.value for path, option in greedy(layers, 12).items()}
    {'a': 4, 'b': 8}
  """
  _check(options, limit, 'greedy')
  splits: dict[Path, list[Split]] = {
    path: [Split((index,), option.damage, 0, option.cost)  # type: ignore[arg-type]
           for index, option in enumerate(given)] for path, given in options.items()}
  chosen = ranks.cheapest(splits, limit, cost='params')
  return {path: options[path][split.ranks[0]] for path, split in chosen.items()}


def linear(options: Mapping[Path, Sequence[Option]], limit: float) -> dict[Path, Option]:
  """The options of the least damage that there is, as an integer linear program.

  min sum damage x  with x in {0, 1}, one option a layer and sum cost x <= limit.

  Args:
    options: of each layer, at least one.
    limit: of the sum of their costs.
  Returns:
    The option of each layer.
  Raises:
    ValueError: the cheapest options cost more.
    ArithmeticError: the solver gave up.
  """
  _check(options, limit, 'linear')
  flat = [(path, option) for path, given in options.items() for option in given]
  one_each = np.array([[float(path == each) for path, _ in flat] for each in options])
  solved = optimize.milp(
    [option.damage for _, option in flat], integrality=np.ones(len(flat)), bounds=optimize.Bounds(0, 1),
    constraints=(
      optimize.LinearConstraint(one_each, 1, 1),
      optimize.LinearConstraint(np.array([[option.cost for _, option in flat]]), ub=limit)))
  if not solved.success:
    raise ArithmeticError(f'linear: {solved.message}')
  return {path: option for (path, option), taken in zip(flat, solved.x, strict=True) if taken > 0.5}


def _check(options: Mapping[Path, Sequence[Option]], limit: float, name: str) -> None:
  for path, given in options.items():
    if not given:
      raise ValueError(f'{name}: {path!r} has no option; give one or more.')
  least = sum(min(option.cost for option in given) for given in options.values())
  if least > limit:
    raise ValueError(f'{name}: the cheapest options cost {least:g}, over the limit {limit:g}; raise it.')
