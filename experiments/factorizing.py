"""Kernels that a run splits into factors before its first step (`config.factorize`)."""
from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_collections

from experiments import building, removing
from lightjax import factorize
from lightjax.core import specs
from lightjax.core.typing import Array, Variables
from lightjax.factorize import Factorization


def asked(config: ml_collections.ConfigDict) -> bool:
  """Whether a config splits kernels."""
  return bool(config.factorize.method)


def find(
  config: ml_collections.ConfigDict, built: building.Program, variables: Variables, *, measures: bool = True
) -> Factorization:
  """What a config makes of the network.

  Args:
    config: complete.
    built: program of the network that is split.
    variables: of that network; the rule looks at their kernels.
    measures: whether the loss is measured, for the rule 'sensitivity'; if not, every choice is as good.
  Returns:
    The factorization.
  Raises:
    SpecError: a field names nothing; a pattern matches nothing; the budget can't be met; a kernel has zeros.
  """
  fields = config.factorize
  rule = specs.resolve_call(fields.ranks, factorize.ranks, field='factorize.ranks')
  loss_of = building.loss_function(config)
  batches = [removing.batch(config, built, index) for index in range(config.criteria_batches)]
  images, labels = (jnp.concatenate(parts) for parts in zip(*batches, strict=True))

  @jax.jit
  def loss(variables: Variables) -> Array:
    return loss_of(built.apply(variables, images), labels, 0.0).mean()

  example = jax.ShapeDtypeStruct((1, *built.splits.info.shape), jnp.float32)
  try:
    return factorize.factorize(
      built.apply, variables, example, method=fields.method, ranks=rule, only=fields.only, exclude=fields.exclude,
      skip=tuple(fields.skip), loss=loss if measures else lambda variables: 0.0).factorization
  except ValueError as error:
    raise specs.SpecError(f'factorize: {error}') from error
