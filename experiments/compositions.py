"""Which two methods compose, in which order: found by construction on a small network, rendered into a page.

COMMAND: python -m experiments.compositions --page=WORKSPACE.md

A surgery (channels, low rank) changes the network before the first step; a transform is a stage of the chain, which
acts on what is left; distillation is a term of the loss and composes with all.
"""
from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import commands, reshaping
from experiments.reshaping import Surgery
from lightjax import binarize, factorize, graph, quantize, share
from lightjax.core import schedules, specs
from lightjax.core.transform import Transform, chain, named, where
from lightjax.core.typing import Variables
from lightjax.factorize import Factorization
from lightjax.prune import budgets, criteria, patterns, surgery
from lightjax.prune import transforms as pruning
from lightjax.prune.surgery import Removal
from lightjax.train import compression
from lightjax.train.compression import Compressed

_PAGE = flags.DEFINE_string('page', '', 'A page whose table is written anew; without it, it is printed.')

BEGIN, END = '<!-- compositions: python -m experiments.compositions --page=WORKSPACE.md -->', '<!-- end -->'
DISTILL = 'distill'
X = jax.ShapeDtypeStruct((1, 12, 12, 3), jnp.float32)
# What stands in a cell, by what the refusal says.
REFUSALS = {
  'zeros': 'zeros', 'values that': 'levels', 'stores as integers': 'levels', 'changes the network': 'network'}
CAPTION = (
  'Rows come first, columns after them. *zeros*: the second does not keep the zeros of the first; *levels*: it changes '
  'what\nthe first stores as integers or in a codebook; *network*: it changes the network, which comes before the '
  'chain.')


class Network(nn.Module):
  """Convolutions, normalization and dense layers, of which defaults leave the first and the last alone."""

  @nn.compact
  def __call__(self, x: Any, train: bool = False) -> Any:
    """Images [b h w 3] -> logits [b 10]."""
    x = nn.relu(nn.Conv(8, (3, 3), strides=2, name='stem')(x))
    x = nn.Conv(16, (3, 3), use_bias=False, name='conv')(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name='norm')(x))
    x = nn.relu(nn.Conv(32, (1, 1), name='pointwise')(x))
    x = nn.relu(nn.Dense(64, name='fc')(x.mean((1, 2))))
    return nn.Dense(10, name='head')(x)


class Built(NamedTuple):
  """A network under two methods.

  Attributes:
    surgery: what was changed of it.
    compressed: what is left of it under its chain.
    variables: what is left of the variables.
    own: what the chain owns at first.
  """
  surgery: Surgery
  compressed: Compressed
  variables: Variables
  own: Any


def _pruned(pattern: patterns.Pattern) -> Transform:
  return pruning.prune(criteria.magnitude, pattern, budgets.uniform, schedules.constant(0.5), every=1)


def _channels(apply: Callable[..., Any], variables: Variables, x: Any) -> Removal:
  """Half of the channels of each layer, the first."""
  coupling = graph.channels(apply, variables, x)
  return surgery.plan(coupling, {group.name: np.arange(group.size) < group.size // 2
                                 for group in coupling.prunable if group.size > 8})


def _low_rank(apply: Callable[..., Any], variables: Variables, x: Any) -> Factorization:
  ranks = (('conv/kernel', (4, 8)), ('pointwise/kernel', 4), ('fc/kernel', 8))
  return factorize.factorize(
    apply, variables, x, method='tucker2', ranks=factorize.ranks.by_path(ranks)).factorization


SURGERIES: dict[str, Callable[..., Removal | Factorization]] = {'channels': _channels, 'low rank': _low_rank}
TRANSFORMS: dict[str, Transform] = {
  'prune': _pruned(patterns.unstructured),
  'N:M': _pruned(patterns.n_of_m(1, 2, axis=-1)),
  'share': share.share(share.starts.linear, bits=3),
  'int8': quantize.weights(bits=8),
  'int4': quantize.weights(bits=4),
  'LSQ': quantize.weights(bits=4, scale=quantize.scales.lsq),
  'binary': binarize.weights(binarize.binarizers.xnor, clip=None),
  'ternary': binarize.weights(binarize.binarizers.ternary, clip=None),
}
NAMES = (*SURGERIES, *TRANSFORMS, DISTILL)


def build(*names: str) -> Built:
  """The small network under methods, in this order.

  Args:
    *names: of `NAMES`.
  Returns:
    Network and chain.
  Raises:
    ValueError: they do not compose so.
  """
  surgeries: list[str] = []
  stages: list[str] = []
  for name in names:
    if name in SURGERIES and stages:
      built = _under(tuple(surgeries), stages)
      view = built.compressed.transform.view(built.variables, built.own, None)
      SURGERIES[name](built.compressed.evaluate, view, X)  # refuses zeros by itself
      raise ValueError(f'{name!r} changes the network, whose weights {stages[0]!r} has changed; put it before.')
    if name in SURGERIES:
      surgeries.append(name)
    elif name in TRANSFORMS:
      stages.append(name)
  return _under(tuple(surgeries), stages)


def _under(surgeries: tuple[str, ...], stages: Sequence[str]) -> Built:
  changed = _changed(surgeries)
  compressed = changed.compressed._replace(
    transform=chain(*(named(name, where((('.*', TRANSFORMS[name]),))) for name in stages)))
  return changed._replace(compressed=compressed, own=compressed.init(changed.variables, key=jax.random.key(0)))


@functools.lru_cache
def _changed(surgeries: tuple[str, ...]) -> Built:
  """The network after surgeries, with an empty chain."""
  if not surgeries:
    done, variables = reshaping.NOTHING, jax.jit(Network().init)(jax.random.key(0), jnp.zeros(X.shape))
  else:
    *before, name = surgeries
    built = _changed(tuple(before))
    step = SURGERIES[name](built.compressed.evaluate, built.variables, X)
    done, variables = built.surgery.then(step), reshaping.cut(step, built.variables)
  compressed = compression.bind(done.apply(Network().apply), variables, chain(), X)
  return Built(done, compressed, variables, ())


def verdict(first: str, second: str) -> str:
  """'yes', or what stands in the way; see `CAPTION`.

  Args:
    first: of `NAMES`.
    second: of `NAMES`.
  Returns:
    The cell of the table.
  """
  try:
    build(first, second)
  except ValueError as error:
    return next(word for text, word in REFUSALS.items() if text in str(error))
  return 'yes'


def pairs() -> list[tuple[str, str]]:
  """All pairs of different methods, in both orders."""
  return list(itertools.permutations(NAMES, 2))


def table() -> str:
  """The matrix in Markdown."""
  cells = {pair: verdict(*pair) for pair in pairs()}
  rows = [('', *NAMES), ('---',) * (len(NAMES) + 1)]
  rows += [(first, *(cells.get((first, second), '') for second in NAMES)) for first in NAMES]
  return '\n'.join(['| ' + ' | '.join(row) + ' |' for row in rows] + ['', CAPTION])


def section(page: str) -> str:
  """What a page says between the marks.

  Raises:
    SpecError: it has no marks.
  """
  _, begin, rest = page.partition(BEGIN)
  inside, end, _ = rest.partition(END)
  if not begin or not end:
    raise specs.SpecError(f'the page has no {BEGIN} ... {END}; write them where the table is to stand.')
  return inside.strip()


def main() -> int:
  """Run the command."""
  made = table()
  if not _PAGE.value:
    print(made)
    return 0
  path = pathlib.Path(_PAGE.value)
  page = path.read_text()
  path.write_text(page.replace(section(page), made) if section(page) else page.replace(BEGIN, f'{BEGIN}\n{made}'))
  return 0


if __name__ == '__main__':
  commands.launch(main)
