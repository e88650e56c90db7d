"""Iterative magnitude pruning with rewinding: one chain of runs, each a row, each pruned from the one before.

A round is an ordinary run that starts from the previous round (`start.config`): its masks are ranked by that run's last
weights, before training, and its weights are set back. Rounds are units, so that cells, tables and seeds share them.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def rounds(
  base: str, sparsities: Sequence[float], *, fields: Mapping[str, Any], prune: Mapping[str, Any], rewind: str = '0'
) -> Iterator[tuple[float, dict[str, Any]]]:
  """The overrides of each round of a chain; before the first comes the dense run.

  Args:
    base: config file with a stage `prune`.
    sparsities: after each round, ascending ratios 0..1.
    fields: overrides that all runs of the chain share, the dense one included.
    prune: fields of the stage in each round, such as its criterion and budget.
    rewind: what is trained in each round: '0' the initialization (the lottery ticket), '500' the weights of the dense
      run after so many steps (rewinding), 'fresh' new random ones (the control), 'last' those of the previous round
      (fine-tuning).
  Yields:
    (sparsity, overrides of `base`).
  Source: Frankle and Carbin 2019, arXiv:1803.03635, section 2; Frankle et al. 2020, arXiv:1912.05671, for steps > 0.
  """
  parent = dict(fields)
  for sparsity in sparsities:
    parent = {
      **fields, 'compress.stages': ('prune',), **{f'compress.prune.{name}': value for name, value in prune.items()},
      'compress.prune.sparsity': sparsity, 'compress.prune.begin': 0.0, 'compress.prune.end': 0.0,
      'start.config': base, 'start.overrides': tuple(parent.items()),
      'start.rewind': rewind,
    }
    yield sparsity, dict(parent)
