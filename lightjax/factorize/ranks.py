"""How many ranks each layer keeps: by what is cut off, or by what the whole network may cost.

A rule is a function (network) -> {path: ranks}; layers that it does not name stay whole. Yours may be any other.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lightjax.core import trees
from lightjax.core.typing import Path
from lightjax.factorize.layers import Layer, Option, Ranks

__all__ = ['Network', 'budget', 'by_path', 'cheapest', 'energy', 'sensitivity']


class Network(NamedTuple):
  """What a rule may know.

  Attributes:
    layers: those that can be split, by path, in execution order.
    kernels: their kernels.
    macs: of the whole network, multiply-adds of one example.
    params: trainable numbers of the whole network.
    damaged: path and ranks -> the loss of the network with that one layer at these ranks, () for the whole network;
      None where no loss is given.
  """
  layers: Mapping[Path, Layer]
  kernels: Mapping[Path, Any]
  macs: int
  params: int
  damaged: Callable[[Path, Ranks], float] | None = None


Rule = Callable[[Network], dict[Path, Ranks]]


def energy(ratio: float) -> Rule:
  """The fewest ranks that keep a ratio of the energy, the sum of squared singular values, of each layer by itself.

  Args:
    ratio: 0..1, of each side for Tucker-2.
  Returns:
    A rule. Layers of which the factors would be no smaller stay whole.
  Raises:
    ValueError: no ratio.
  """
  _check(ratio, 'energy')

  def rule(network: Network) -> dict[Path, Ranks]:
    found = {}
    for path, layer in network.layers.items():
      option = layer.at_energy(network.kernels[path], ratio)
      if option.params < layer.whole.params:
        found[path] = option.ranks
    return found

  return rule


def by_path(ranks: Sequence[tuple[str, int | tuple[int, ...]]]) -> Rule:
  """Ranks that are written down.

  Args:
    ranks: pairs (regular expression of the whole path, rank or ranks), the first match wins; what none matches stays
      whole.
  Returns:
    A rule.
  Raises (where it is used):
    ValueError: a pattern matches no layer that can be split.
  """
  pairs = tuple((pattern, (each,) if isinstance(each, int) else tuple(each)) for pattern, each in ranks)

  def rule(network: Network) -> dict[Path, Ranks]:
    found: dict[Path, Ranks] = {}
    taken = set()
    for path in network.layers:
      pair = next((pair for pair in pairs if re.fullmatch(pair[0], path)), None)
      if pair is not None:
        found[path] = pair[1]
        taken.add(pair)
    for pair in pairs:
      if pair not in taken:
        raise ValueError(
          f'by_path: {pair[0]!r} takes no layer that can be split; nearest: {trees.nearest(pair[0], network.layers)}.')
    return found

  return rule


def budget(ratio: float, *, cost: str = 'macs') -> Rule:
  """Ranks of all layers together, so that the whole network costs a ratio of what it did, and least energy is cut off.

  The sum over layers of the ratio of energy that each loses is made small; see `cheapest`.

  Args:
    ratio: 0..1 of the network's cost that may be left.
    cost: 'macs', or 'params', which is the bytes of the float network.
  Returns:
    A rule.
  Raises:
    ValueError: no ratio or no such cost; where it is used: not even rank one everywhere costs so little.
  """
  _check(ratio, 'budget')
  _check_cost(cost, 'budget')

  def rule(network: Network) -> dict[Path, Ranks]:
    options = {path: [*layer.options(network.kernels[path]), layer.whole] for path, layer in network.layers.items()}
    return _within(network, options, ratio, cost, 'budget')

  return rule


def sensitivity(ratio: float, *, cost: str = 'macs', levels: int = 6) -> Rule:
  """As `budget`, with what a layer's ranks do to the loss, measured, in place of the energy that they cut off.

  Each layer is split alone, at `levels` ranks between one and those at which its factors cost as much as itself.

  Args:
    ratio: 0..1 of the network's cost that may be left.
    cost: 'macs' or 'params'.
    levels: ranks of each layer that are measured, 1 or more; one evaluation of the loss each.
  Returns:
    A rule, which needs a loss.
  Raises:
    ValueError: as `budget`; where it is used: there is no loss.
  """
  _check(ratio, 'sensitivity')
  _check_cost(cost, 'sensitivity')
  if levels < 1:
    raise ValueError(f'sensitivity: levels={levels}; measure 1 rank of each layer or more.')

  def rule(network: Network) -> dict[Path, Ranks]:
    if network.damaged is None:
      raise ValueError('sensitivity measures the loss, and none is given; pass loss=, or use budget.')
    options = {}
    for path, layer in network.layers.items():
      worth = [each for each in layer.options(network.kernels[path])
               if getattr(each, cost) < getattr(layer.whole, cost)]
      chosen = [worth[round(i * (len(worth) - 1) / max(levels - 1, 1))] for i in range(levels)] if worth else []
      before = network.damaged(path, ())
      options[path] = [
        *(each._replace(damage=max(network.damaged(path, each.ranks) - before, 0.0))
          for each in dict.fromkeys(chosen)), layer.whole]
    return _within(network, options, ratio, cost, 'sensitivity')

  return rule


def cheapest(options: Mapping[Path, Sequence[Option]], limit: float, *, cost: str) -> dict[Path, Option]:
  """One option of each layer, so that they cost no more than a limit and the sum of their damages is small.

  From the least damage on, the step that saves most per damage is taken, along the convex hull of each layer's options;
  what the last step saved too much is given back where it undoes most damage. Every sum on the hulls is the least for
  its cost.

  Args:
    options: of each layer, at least one.
    limit: of the sum of their costs.
    cost: 'macs' or 'params'.
  Returns:
    The option of each layer.
  Raises:
    ValueError: the cheapest options cost more.
  """

  def price(option: Option) -> int:
    return getattr(option, cost)

  hulls = {path: _hull(each, price) for path, each in options.items()}
  place = dict.fromkeys(hulls, 0)
  spent = sum(price(hull[0]) for hull in hulls.values())

  def slope(path: Path) -> float:
    now, then = hulls[path][place[path]:place[path] + 2]
    return (then.damage - now.damage) / (price(now) - price(then))

  while spent > limit:
    open_ = [path for path in hulls if place[path] + 1 < len(hulls[path])]
    if not open_:
      raise ValueError(f'the least that these layers can cost is {spent} {cost}, and {limit:.0f} may be left for them.')
    path = min(open_, key=slope)
    spent -= price(hulls[path][place[path]])
    place[path] += 1
    spent += price(hulls[path][place[path]])
  chosen = {path: hull[place[path]] for path, hull in hulls.items()}
  while True:
    better = [
      (chosen[path].damage - each.damage, path, each) for path, given in options.items() for each in given
      if each.damage < chosen[path].damage and spent + price(each) - price(chosen[path]) <= limit]
    if not better:
      return chosen
    _, path, each = max(better, key=lambda found: found[0])
    spent += price(each) - price(chosen[path])
    chosen[path] = each


def _within(
  network: Network, options: Mapping[Path, Sequence[Option]], ratio: float, cost: str, name: str
) -> dict[Path, Ranks]:
  whole = getattr(network, cost)
  others = whole - sum(getattr(layer.whole, cost) for layer in network.layers.values())
  try:
    chosen = cheapest(options, ratio * whole - others, cost=cost)
  except ValueError as error:
    raise ValueError(
      f'{name}: {ratio} of {whole} {cost} are {ratio * whole:.0f}, of which {others} belong to layers that stay whole; '
      f'{error} Raise the ratio, or split more layers.') from None
  return {path: option.ranks for path, option in chosen.items() if option.ranks}


def _hull(options: Sequence[Option], price: Callable[[Option], Any]) -> list[Option]:
  """The lower convex hull of damage over cost, from the least damage to the least cost."""
  hull: list[Option] = []
  for each in sorted(options, key=lambda option: (option.damage, price(option))):
    if hull and price(each) >= price(hull[-1]):
      continue
    while len(hull) > 1 and (hull[-1].damage - hull[-2].damage) * (price(hull[-1]) - price(each)) >= (
        each.damage - hull[-1].damage) * (price(hull[-2]) - price(hull[-1])):
      hull.pop()
    hull.append(each)
  return hull


def _check(ratio: float, name: str) -> None:
  if not 0.0 < ratio <= 1.0:
    raise ValueError(f'{name}: ratio={ratio} is a ratio 0..1.')


def _check_cost(cost: str, name: str) -> None:
  if cost not in ('macs', 'params'):
    raise ValueError(f"{name}: cost={cost!r} is none of 'macs', 'params'.")
