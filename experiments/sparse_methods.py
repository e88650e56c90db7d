"""Methods of unstructured pruning by the names that papers give them, as overrides of the stage `prune`.

Each is a combination of the stage's fields; a table that compares them says which budget and sparsity they share.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEFORE = {'begin': 0.0, 'end': 0.0}  # of training
SPARSE_TRAINING = {
  'criterion': 'magnitude', 'schedule': 'periodic', 'first': 'random', 'begin': 0.0, 'end': 0.75, 'every': 100}

METHODS: Mapping[str, Mapping[str, Any]] = {
  'magnitude': {'criterion': 'magnitude', 'schedule': 'cubic', 'begin': 0.1, 'end': 0.6, 'every': 100},
  'SNIP': {'criterion': 'snip', **BEFORE},
  'GraSP': {'criterion': 'grasp', **BEFORE},
  'SynFlow': {'criterion': 'synflow', 'rounds': 100, **BEFORE},
  'static': {'criterion': 'random', **BEFORE},
  'SET': {**SPARSE_TRAINING, 'grow': 'random'},
  'RigL': {**SPARSE_TRAINING, 'grow': 'gradient_magnitude'},
  # In every step: weights that are masked for long move freely, and a mask that comes late lets them in all at once
  # (LeNet-300-100 at 95 % learns nothing with 10 steps between two masks and a learning rate of 0.1).
  'STE': {
    'criterion': 'magnitude', 'schedule': 'periodic', 'straight_through': True, 'begin': 0.0, 'end': 1.0, 'every': 1},
  'AC/DC': {'criterion': 'magnitude', 'schedule': 'alternating', 'begin': 0.1, 'end': 0.7, 'every': 500},
}


# What a method asks of the run, besides its stage.
RUN: Mapping[str, Mapping[str, Any]] = {'GraSP': {'criteria_temperature': 200.0}}  # see `prune.criteria.grasp`


def overrides(method: str, *, sparsity: float, budget: str) -> dict[str, Any]:
  """A method at a sparsity under a budget, as overrides of a config that has a stage `prune`.

  Args:
    method: a name of `METHODS`.
    sparsity: ratio 0..1 of zeros; of MACs under 'equal_macs(...)'.
    budget: as the stage takes it.
  Returns:
    Dotted field to value.
  """
  fields = {'sparsity': sparsity, 'budget': budget, **METHODS[method]}
  return {
    'compress.stages': ('prune',), **{f'compress.prune.{name}': value for name, value in fields.items()},
    **RUN.get(method, {})}
