"""The term of the loss that a config's `regularize` names."""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from lightjax import graph
from lightjax.core import specs
from lightjax.core.typing import Array, Variables
from lightjax.prune import regularizers, selection


def penalty(
  config: ml_collections.ConfigDict, apply: Callable[..., Any], shapes: Variables, example: Any
) -> Callable[[Variables], Array] | None:
  """The term of the loss that `config.regularize` names; None for none.

  Args:
    config: complete.
    apply: of the network that is trained.
    shapes: of its variables.
    example: shape of its input.
  Raises:
    SpecError: a field names nothing, or the regularizer asks for more than groups and a strength.
  """
  fields = config.regularize
  if not fields.name:
    return None
  term = specs.resolve(fields.name, regularizers, field='regularize.name')
  asked = [name for name, each in inspect.signature(term).parameters.items()
           if each.default is each.empty and name not in ('variables', 'groups', 'strength')]
  if asked:
    raise specs.SpecError(
      f'regularize.name={fields.name!r} asks for {", ".join(asked)}, which a config has no field for; '
      'call it in a program of your own.')
  try:
    groups = selection.candidates(graph.channels(apply, shapes, example), only=fields.only, exclude=fields.exclude)
    jax.eval_shape(lambda variables: term(variables, groups, strength=fields.strength), shapes)
  except ValueError as error:
    raise specs.SpecError(f'regularize: {error}') from error
  return functools.partial(term, groups=groups, strength=fields.strength)
