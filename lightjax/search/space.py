"""What a search may choose from: named choices, and what a set of options means as plain data.

A candidate is a tuple of integers, one a choice: which of its options is taken. It can be hashed, stored in arrays and
compared; `Space.spec` turns it into what a config says.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lightjax.core import specs, trees

__all__ = ['Candidate', 'Choice', 'Space']

Candidate = tuple[int, ...]


class Choice(NamedTuple):
  """One thing to decide.

  Attributes:
    name: of the choice.
    options: at least one, plain data, in the order of their size where they have one.
  """
  name: str
  options: tuple[Any, ...]


@dataclass(frozen=True)
class Space:
  """All combinations of the options of some choices.

  Attributes:
    name: for messages and files.
    choices: in the order of a candidate's integers.
    build: name of each choice to its option -> a spec, plain nested data: for networks the arguments of
      `lightjax.models.create`, name included.

  Example:
    >>> space = Space('pair', (Choice('bits', (2, 4, 8)), Choice('ratio', (0.0, 0.5))), build=dict)
    >>> space.count, space.spec((1, 1)), space.candidate({'bits': 8, 'ratio': 0.0})
    (6, {'bits': 4, 'ratio': 0.5}, (2, 0))
    >>> print(space)
    pair: 6 candidates
      bits   2 | 4 | 8
      ratio  0.0 | 0.5
  """
  name: str
  choices: tuple[Choice, ...]
  build: Callable[[dict[str, Any]], Mapping[str, Any]]

  def __post_init__(self) -> None:
    names = [choice.name for choice in self.choices]
    if not names or len(set(names)) < len(names):
      raise ValueError(f'space {self.name!r}: choices {names}; a space has one or more, each with a name of its own.')
    for choice in self.choices:
      distinct = {repr(specs.canonical(option)) for option in choice.options}
      if not choice.options or len(distinct) < len(choice.options):
        raise ValueError(
          f'space {self.name!r}: options {choice.options} of {choice.name!r}; give one or more, all different.')

  def __str__(self) -> str:
    width = max(len(choice.name) for choice in self.choices)
    lines = [f'  {choice.name:<{width}}  {" | ".join(map(str, choice.options))}' for choice in self.choices]
    return '\n'.join([f'{self.name}: {self.count:,} candidates', *lines])

  @property
  def sizes(self) -> tuple[int, ...]:
    """Options of each choice."""
    return tuple(len(choice.options) for choice in self.choices)

  @property
  def count(self) -> int:
    """Candidates."""
    return math.prod(self.sizes)

  def __iter__(self) -> Iterator[Candidate]:
    return itertools.product(*map(range, self.sizes))

  def options(self, candidate: Candidate) -> dict[str, Any]:
    """Name of each choice to the option that a candidate takes; a ValueError for what is no candidate."""
    if len(candidate) != len(self.choices) or not all(
        0 <= index < size for index, size in zip(candidate, self.sizes, strict=True)):
      raise ValueError(f'space {self.name!r}: {candidate} is no candidate; want one index for each of {self.sizes}.')
    return {choice.name: choice.options[index] for choice, index in zip(self.choices, candidate, strict=True)}

  def spec(self, candidate: Candidate) -> dict[str, Any]:
    """What a candidate means, as `build` says it."""
    return dict(self.build(self.options(candidate)))

  def candidate(self, options: Mapping[str, Any]) -> Candidate:
    """The inverse of `options`; equal as configs are, so that 1 and 1.0, or lists and tuples, are the same."""
    names = [choice.name for choice in self.choices]
    for name in options:
      if name not in names:
        raise ValueError(f'space {self.name!r}: no choice {name!r}; nearest: {trees.nearest(name, names)}.')
    found = []
    for choice in self.choices:
      if choice.name not in options:
        raise ValueError(f'space {self.name!r}: no option for {choice.name!r}; give one of {choice.options}.')
      known = [specs.canonical(option) for option in choice.options]
      wanted = specs.canonical(options[choice.name])
      if wanted not in known:
        raise ValueError(f'space {self.name!r}: {choice.name}={options[choice.name]!r} is none of {choice.options}.')
      found.append(known.index(wanted))
    return tuple(found)

  def sample(self, generator: np.random.Generator) -> Candidate:
    """A candidate, all equally likely."""
    return tuple(int(generator.integers(size)) for size in self.sizes)

  def mutate(self, candidate: Candidate, generator: np.random.Generator) -> Candidate:
    """The candidate with another option in one choice, both equally likely; itself where there is no other option."""
    open_ = [place for place, size in enumerate(self.sizes) if size > 1]
    if not open_:
      return candidate
    place = open_[int(generator.integers(len(open_)))]
    shift = 1 + int(generator.integers(self.sizes[place] - 1))
    return (*candidate[:place], (candidate[place] + shift) % self.sizes[place], *candidate[place + 1:])

  def crossover(self, first: Candidate, second: Candidate, generator: np.random.Generator) -> Candidate:
    """In each choice the option of one of two parents, both equally likely."""
    return tuple(pair[int(generator.integers(2))] for pair in zip(first, second, strict=True))
