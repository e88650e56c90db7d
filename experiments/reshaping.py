"""What a run changes of its network before the first step: channels removed, kernels split into factors.

A `Surgery` is those steps in order, those of the run that it starts from first. It is plain data, kept in the run's
folder and in its artifact, beside the description of the whole network.
"""
from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from lightjax.core.typing import Variables
from lightjax.factorize import Factorization
from lightjax.prune.surgery import Removal

FILE = 'surgery.json'
KINDS: dict[str, Any] = {'removal': Removal, 'factorization': Factorization}


class Surgery(NamedTuple):
  """Changes of a network, one after another.

  Attributes:
    steps: removals of channels and factorizations.
  """
  steps: tuple[Removal | Factorization, ...] = ()

  def apply(self, apply: Callable[..., Any]) -> Callable[..., Any]:
    """The function of what is left that computes what `apply` does."""
    for step in self.steps:
      apply = step.apply(apply)
    return apply

  def cut(self, variables: Variables) -> Variables:
    """What is left of the whole network's variables; shapes become shapes."""
    for step in self.steps:
      variables = cut(step, variables)
    return variables

  def then(self, step: Removal | Factorization) -> Surgery:
    """One more step."""
    return Surgery((*self.steps, step))

  def to_json(self) -> list[dict[str, Any]]:
    """As plain data: one entry a step, its kind and what it says."""
    return [{kind: step.to_json()} for step in self.steps for kind, made in KINDS.items() if isinstance(step, made)]

  @classmethod
  def from_json(cls, data: Sequence[dict[str, Any]]) -> Surgery:
    """What `to_json` made.

    Raises:
      ValueError: it is something else.
    """
    steps = []
    for entry in data:
      (kind, content), = entry.items() if isinstance(entry, dict) and len(entry) == 1 else [('', None)]
      if kind not in KINDS:
        raise ValueError(f'a step of a surgery is one of {", ".join(KINDS)}, not {entry!r:.80}')
      steps.append(KINDS[kind].from_json(content))
    return cls(tuple(steps))


NOTHING = Surgery()


def cut(step: Removal | Factorization, variables: Variables) -> Variables:
  """What one step leaves of variables; shapes become shapes."""
  if isinstance(step, Factorization):
    return step.split(variables)
  is_shape = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(variables))
  return jax.eval_shape(step.cut, variables) if is_shape else step.cut(variables)


def read(folder: pathlib.Path) -> Surgery:
  """The surgery of a run that has begun; nothing where it has none.

  Raises:
    OSError: it is damaged.
  """
  path = folder / FILE
  if not path.exists():
    return NOTHING
  try:
    return Surgery.from_json(json.loads(path.read_text()))
  except ValueError as error:
    raise OSError(f'{path} is damaged ({error}); remove {folder} to train it again') from error

