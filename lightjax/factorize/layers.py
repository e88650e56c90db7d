"""A layer that can be split: its kernel in the order of its factors, what each rank costs and loses."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lightjax.factorize import decompositions
from lightjax.factorize.decompositions import Decomposition, Shape
from lightjax.graph.factored import NAMES, Use

__all__ = ['Layer', 'Option']

Ranks = tuple[int, ...]


class Option(NamedTuple):
  """One choice for a layer.

  Attributes:
    ranks: of its decomposition; () leaves the layer whole.
    damage: what is lost, 0 for the whole layer: the ratio 0..1 of the kernel's squared norm that is cut off (of both
      sides, added, for Tucker-2: a bound of it), or what a measurement says.
    macs: of one example.
    params: trainable numbers of the kernel.
  """
  ranks: Ranks
  damage: float
  macs: int
  params: int


class Layer(NamedTuple):
  """A kernel and how it is split.

  Attributes:
    decomposition: name of a function of `decompositions`.
    shape: of the kernel as stored.
    use: how the network multiplies with it.
  """
  decomposition: str
  shape: Shape
  use: Use

  @property
  def method(self) -> Decomposition:
    """The decomposition itself."""
    return getattr(decompositions, self.decomposition)()

  @property
  def canonical(self) -> Shape:
    """Shape of the kernel as [window..., inputs, outputs]."""
    use = self.use
    return (*(self.shape[axis] for axis in use.window_axes), *(
      math.prod(self.shape[axis] for axis in axes) for axes in (use.input_axes, use.output_axes)))

  def ordered(self, kernel: Any) -> Any:
    """The kernel as [window..., inputs, outputs]."""
    return kernel.transpose(self.use.order).reshape(self.canonical)

  def split(self, kernel: Any, ranks: Ranks) -> dict[str, np.ndarray]:
    """Factors by name, of the kernel's dtype, with a dense layer's axes apart again."""
    factors = self.method.split(self.ordered(np.asarray(kernel, np.float64)), ranks)
    return {name: factor.reshape(shape).astype(kernel.dtype)
            for (name, shape), factor in zip(self.shapes(ranks).items(), factors, strict=True)}

  def product(self, factors: Mapping[str, Any]) -> Any:
    """The kernel that factors stand for, as stored."""
    named = [factors[name] for name in NAMES if name in factors]
    if self.use.kind == 'dense':
      first, second = named
      named = [first.reshape(-1, first.shape[-1]), second.reshape(second.shape[0], -1)]
    made = self.method.product(named).reshape([self.shape[axis] for axis in self.use.order])
    return made.transpose(np.argsort(self.use.order))

  def shapes(self, ranks: Ranks) -> dict[str, Shape]:
    """Shapes of the factors by name."""
    if self.use.kind == 'dense':
      use, (rank,) = self.use, ranks
      return {'first': (*(self.shape[axis] for axis in use.input_axes), rank),
              'second': (rank, *(self.shape[axis] for axis in use.output_axes))}
    return dict(zip(NAMES, self.method.shapes(self.canonical, ranks), strict=False))

  @property
  def whole(self) -> Option:
    """The layer as it is."""
    return Option((), 0.0, self._macs([self.canonical]), math.prod(self.shape))

  def option(self, ranks: Ranks, damage: float) -> Option:
    """The layer at some ranks."""
    shapes = self.method.shapes(self.canonical, ranks)
    return Option(ranks, damage, self._macs(shapes), sum(map(math.prod, shapes)))

  def options(self, kernel: Any) -> list[Option]:
    """The layer at all ranks that are worth it, by the energy that they cut off, smallest ranks first.

    Where there are two ranks, each goes with the fewest of the other that cuts off no more.
    """
    tails = self._tails(kernel)
    found: list[tuple[Ranks, float]]
    if len(tails) == 1:
      found = [((rank,), tails[0][rank]) for rank in range(1, len(tails[0]))]
    else:
      inputs, outputs = tails
      pairs = {(p, _fewest(outputs, inputs[p])) for p in range(1, len(inputs))}
      pairs |= {(_fewest(inputs, outputs[q]), q) for q in range(1, len(outputs))}
      found = [((p, q), inputs[p] + outputs[q]) for p, q in sorted(pairs) if self._possible(p, q)]
    return [self.option(ranks, float(damage)) for ranks, damage in found]

  def at_energy(self, kernel: Any, ratio: float) -> Option:
    """The layer at the fewest ranks that keep a ratio of the energy, on each side."""
    tails = self._tails(kernel)
    ranks = tuple(_fewest(each, 1 - ratio) for each in tails)
    if len(ranks) == 2:  # a side has no more singular vectors than the window times the other side's
      window = math.prod(self.canonical[:-2])
      p, q = ranks
      ranks = (max(p, -(-q // window)), max(q, -(-p // window)))
    return self.option(ranks, float(sum(each[rank] for each, rank in zip(tails, ranks, strict=True))))

  def _tails(self, kernel: Any) -> list[np.ndarray]:
    return [_tails(each) for each in self.method.energies(self.ordered(np.asarray(kernel, np.float64)))]

  def _possible(self, p: int, q: int) -> bool:
    window = math.prod(self.canonical[:-2])
    return p <= window * q and q <= window * p

  def _macs(self, shapes: Sequence[Shape]) -> int:
    """Multiply-adds of one example, of kernels one after another."""
    total = 0
    for before, after in self.use.extents:
      if self.use.kind == 'dense':
        total += before[0] * sum(map(math.prod, shapes))
        continue
      extent = list(before)
      for i, shape in enumerate(shapes):
        for axis in range(len(extent)):
          if next((j for j, each in enumerate(shapes) if each[axis] > 1), 0) == i:
            extent[axis] = after[axis]
        total += math.prod(extent) * math.prod(shape)
    return total


def _tails(energies: np.ndarray) -> np.ndarray:
  """At each rank 0, 1, ... the ratio of the energy beyond it; exactly 0 at full rank."""
  total = float(energies.sum())
  beyond = np.concatenate([np.cumsum(energies[::-1])[::-1], [0.0]])
  return beyond / total if total else np.zeros(len(beyond))


def _fewest(tails: np.ndarray, most: float) -> int:
  """The fewest ranks, at least one, that cut off no more."""
  return max(1, int(np.argmax(tails <= most)))
