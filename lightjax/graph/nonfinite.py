"""Finding where a NaN or an infinity comes from."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from lightjax.core import modes, trees
from lightjax.core.typing import Path, Variables
from lightjax.graph import jaxprs


class _Value(NamedTuple):
  """An array, the cause of what is not finite in it, and the variables that it is made of alone (activations: none)."""
  array: Any
  cause: str | None = None
  made_of: frozenset[Path] = frozenset()
  is_activation: bool = False


def first_nonfinite(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> str | None:
  """Where the NaN or infinity in a network's output was born.

  Runs the network operation by operation. Infinities that never reach the output (a guarded division) and those that
  the program writes itself (the -inf of a mask) are no cause.

  Args:
    apply: `apply(variables, *inputs)`, any pure function; a gradient works too.
    variables: pytree of arrays.
    *inputs: arrays.
  Returns:
    None if all outputs are finite. Otherwise the variable or input that was not finite to begin with, or the first
    operation on the way to the output that made a non-finite value of finite ones: 'stage1/block0/norm1: rsqrt of
    batch_stats/stage1/block0/norm1/var'.
  """
  with modes.convolution_mode('lax'):
    jaxpr = jax.make_jaxpr(apply)(variables, *inputs)
  named = trees.flatten(variables)
  roots = frozenset(path.split('/')[0] for path in named)
  arguments = []
  for key_path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    path = trees.path_string(key_path)
    kind = 'parameter' if named.get(path) is leaf else 'variable'
    arguments.append(_Value(leaf, None if _is_finite(leaf) else f'{kind} {path}', frozenset({path})))
  for index, tree in enumerate(inputs):
    arguments += [_Value(leaf, None if _is_finite(leaf) else f'input {index}', is_activation=True)
                  for leaf in jax.tree.leaves(tree)]

  def rule(equation: core.JaxprEqn, operands: list[_Value], stack: str) -> list[_Value]:
    results = equation.primitive.bind(*(operand.array for operand in operands), **equation.params)
    is_activation = any(operand.is_activation for operand in operands)
    made_of = frozenset().union(*(operand.made_of for operand in operands))
    module = jaxprs.module_name(stack, roots)
    described = ': '.join(part for part in (module, equation.primitive.name) if part)
    if made_of:
      described += f' of {", ".join(sorted(made_of))}'
    return [
        _Value(result, _cause(result, operands, described), frozenset() if is_activation else made_of, is_activation)
        for result in (results if equation.primitive.multiple_results else [results])]

  outputs = jaxprs.interpret(jaxpr.jaxpr, jaxpr.consts, arguments, rule, _Value)
  return next((output.cause for output in outputs if output.cause is not None), None)


def _cause(result: Any, operands: list[_Value], described: str) -> str | None:
  """Whom a result that is not finite comes from: the first operand that has a cause already, else this operation."""
  if _is_finite(result):
    return None
  inherited = next((operand.cause for operand in operands if operand.cause is not None), None)
  if inherited is not None:
    return inherited
  written = any(not _is_finite(operand.array) for operand in operands)
  if written and not bool(jnp.isnan(result).any()):
    return None  # an infinity that the program put there itself, carried on
  return described


def _is_finite(array: Any) -> bool:
  dtype = array.dtype if hasattr(array, 'dtype') else np.asarray(array).dtype
  return not jnp.issubdtype(dtype, jnp.inexact) or bool(jnp.isfinite(array).all())
