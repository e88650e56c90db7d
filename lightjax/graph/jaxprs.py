"""Walking a jaxpr: every equation in execution order, calls entered, values of the caller's own kind.

A `rule` says what an equation does to the values; it may compute them, or track where they come from.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core

# Calls whose operands and results are those of the function inside, one to one, and the equation's name for the inside.
CALLS = {
    'jit': 'jaxpr', 'pjit': 'jaxpr', 'closed_call': 'call_jaxpr', 'core_call': 'call_jaxpr', 'remat2': 'jaxpr',
    'checkpoint': 'jaxpr', 'custom_jvp_call': 'call_jaxpr', 'custom_vjp_call': 'call_jaxpr',
}

Rule = Callable[[core.JaxprEqn, list[Any], str], Sequence[Any]]
CallRule = Callable[[core.JaxprEqn, list[Any], str], Sequence[Any] | None]


def interpret(
    jaxpr: core.Jaxpr, constants: Sequence[Any], arguments: Sequence[Any], rule: Rule, literal: Callable[[Any], Any],
    stack: str = '', call: CallRule = lambda equation, operands, stack: None,
) -> list[Any]:
  """Runs `rule` over a jaxpr and the jaxprs that it calls.

  Args:
    jaxpr: what to walk.
    constants: arrays that the traced function closed over, as they are.
    arguments: one value for each input.
    rule: (equation, values of its operands, name stack) -> values of its results.
    literal: makes the value of a number or an array that stands in the jaxpr.
    stack: name stack of the caller, joined by '/'.
    call: like `rule`, for calls (`CALLS`); where it returns None the call is entered.
  Returns:
    One value for each output.
  """
  values = dict(zip(jaxpr.invars, arguments, strict=True))
  values.update(zip(jaxpr.constvars, map(literal, constants), strict=True))

  def read(variable: Any) -> Any:
    return literal(variable.val) if isinstance(variable, core.Literal) else values[variable]

  for equation in jaxpr.eqns:
    operands = [read(variable) for variable in equation.invars]
    here = '/'.join(part for part in (stack, str(equation.source_info.name_stack)) if part)
    results: Sequence[Any] | None
    if equation.primitive.name in CALLS:
      results = call(equation, operands, here)
      if results is None:
        inner, inner_constants = open_jaxpr(equation.params[CALLS[equation.primitive.name]])
        results = interpret(inner, inner_constants, operands, rule, literal, here, call)
    else:
      results = rule(equation, operands, here)
    values.update(zip(equation.outvars, results, strict=True))
  return [read(variable) for variable in jaxpr.outvars]


def bind(equation: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
  """The results of an equation on arrays of the shapes that it was traced with, calls with derivatives included."""
  found = equation.primitive.get_bind_params(equation.params)
  functions, params = found if isinstance(found, tuple) else ((), found)  # the older of jax's two conventions
  results = equation.primitive.bind(*functions, *operands, **params)
  return list(results) if equation.primitive.multiple_results else [results]


def open_jaxpr(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> tuple[core.Jaxpr, Sequence[Any]]:
  """A jaxpr and its constants, of either kind."""
  return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, core.ClosedJaxpr) else (jaxpr, ())


def inner_jaxprs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
  """The jaxprs inside an equation: bodies of loops, branches, what a call runs."""
  found = []
  for parameter in equation.params.values():
    for each in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
      if isinstance(each, (core.Jaxpr, core.ClosedJaxpr)):
        found.append(open_jaxpr(each)[0])
  return found


def contains(jaxpr: core.Jaxpr, primitives: frozenset[str]) -> bool:
  """Whether one of these primitives occurs at any depth."""
  return any(
      equation.primitive.name in primitives or any(contains(inner, primitives) for inner in inner_jaxprs(equation))
      for equation in jaxpr.eqns)


def module_name(stack: str, roots: frozenset[str]) -> str:
  """The module that a name stack speaks of, as the parameters' paths would name it.

  Flax opens the stack with the class of the network and marks methods (`ResNet/ResNet.head/fc`), transformations wrap
  its parts (`jvp(ResNet)`); none of that is in a parameter's path.

  Args:
    stack: parts joined by '/'.
    roots: first parts of the parameters' paths.
  Returns:
    A path such as 'stage1/block0/conv1', '' where only the network itself is named.
  Example:
    >>> module_name('jvp(ResNet)/stage1/block0', frozenset({'stage1'}))
    'stage1/block0'
  """
  parts = re.sub(r'\w+\(|\)', '', stack).split('/')
  parts = [part for part in parts if part and '.' not in part]
  return '/'.join(parts if not parts or parts[0] in roots else parts[1:])
