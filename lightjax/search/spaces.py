"""Spaces by name. One of your own is a function in a file of yours that returns a `Space`; it needs no registration."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from lightjax.core import specs
from lightjax.search.space import Choice, Space

# The spaces; `load` finds one by its name.
__all__ = ['compression', 'mobile28']


def mobile28() -> Space:
  """240 small networks of inverted residuals for images of 28x28, about 1 to 15 M MACs.

  Each is a spec of `models.mobile_stages`: three stages at 28x28, 14x14 and 7x7.

  Returns:
    The space: windows of the first two stages and of the last, pixels; expansion; width multiplier; blocks of the
    second and third stage; squeeze-excite in these (a quarter of the hidden channels) or not.
  Example:
    >>> space = mobile28()
    >>> space.count, space.spec((0, 0, 0, 0, 0, 0))['stages']
    (240, ((2, 3, 16, 1, 1, 0.0), (2, 3, 24, 1, 2, 0.0), (2, 3, 40, 1, 2, 0.0)))
  """

  def build(options: dict[str, Any]) -> dict[str, Any]:
    expansion, early, late = options['expansion'], options['window'], options['late window']
    blocks, squeeze = options['blocks'], 0.25 if options['squeeze-excite'] else 0.0
    return {'name': 'mobile_stages', 'width': options['width'], 'stages': (
      (expansion, early, 16, 1, 1, 0.0), (expansion, early, 24, blocks, 2, squeeze),
      (expansion, late, 40, blocks, 2, squeeze))}

  return Space('mobile28', (
    Choice('window', (3, 5)), Choice('late window', (3, 5)), Choice('expansion', (2, 3, 4)),
    Choice('width', (0.5, 0.75, 1.0, 1.25, 1.5)), Choice('blocks', (1, 2)), Choice('squeeze-excite', (False, True)),
  ), build)


def compression(
  layers: Sequence[str], *, ratios: Sequence[float] = (), bits: Sequence[int] = (), ranks: Sequence[int] = (),
) -> Space:
  """What is done to each layer: how much is pruned, the bits of its weights, the rank of its factors.

  Args:
    layers: paths of kernels, or patterns of them.
    ratios: pruned of a layer, 0..1; none where nothing is pruned.
    bits: of a weight; likewise.
    ranks: of a layer's factors; likewise.
  Returns:
    The space. A spec has 'ratios', 'bits' and 'ranks', those that are given, each a tuple of pairs (layer, option):
    what `prune.budgets.by_path`, `share` and `factorize.ranks.by_path` take.
  Raises:
    ValueError: no layers, or nothing to choose.
  Example:
    >>> space = compression(('fc1/kernel', 'fc2/kernel'), bits=(2, 4, 8))
    >>> space.spec((0, 2))
    {'bits': (('fc1/kernel', 2), ('fc2/kernel', 8))}
  """
  kinds = {'ratios': tuple(ratios), 'bits': tuple(bits), 'ranks': tuple(ranks)}
  given = {kind: options for kind, options in kinds.items() if options}

  def build(options: dict[str, Any]) -> dict[str, Any]:
    return {kind: tuple((layer, options[f'{layer} {kind}']) for layer in layers) for kind in given}

  choices = tuple(Choice(f'{layer} {kind}', options) for layer in layers for kind, options in given.items())
  return Space('compression', choices, build)


def load(text: str) -> Space:
  """The space that a config or a command line means.

  Args:
    text: 'name', 'name(arguments)', or 'my_file:name' for one of your own.
  Returns:
    The space.
  Raises:
    SpecError: no such function, arguments that it refuses, or what it returns is no space.
  """
  found = specs.resolve_call(text if '(' in text else f'{text}()', sys.modules[__name__], field='space')
  if not isinstance(found, Space):
    raise specs.SpecError(f'space={text!r} returns {type(found).__name__}; want a lightjax.search.Space.')
  return found
