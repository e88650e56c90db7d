"""One trace of a network that computes what depends on its variables alone and notes the rest, equation by equation.

What is noted is a flat list: calls are entered, so that a step of a jitted or remat function stands beside the others.
`lowering` makes operations of it.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from lightjax.core import modes
from lightjax.core.typing import Variables
from lightjax.graph import jaxprs, parts
from lightjax.graph.coupling import ELEMENTWISE

__all__ = ['Equation', 'Recording', 'Reference', 'record']


class Reference(NamedTuple):
  """A value that depends on the inputs."""
  number: int


class Equation(NamedTuple):
  """An equation of which at least one operand depends on the inputs.

  Attributes:
    primitive: of JAX.
    params: its parameters.
    operands: `Reference`, or `graph.parts.Part` for what is known.
    results: what it computes.
    stack: names of the modules that it stands in.
  """
  primitive: Any
  params: dict[str, Any]
  operands: tuple[Any, ...]
  results: tuple[Reference, ...]
  stack: str

  @property
  def name(self) -> str:
    """Of the primitive."""
    return self.primitive.name

  @property
  def references(self) -> list[Reference]:
    """The operands that depend on the inputs, in order."""
    return [each for each in self.operands if isinstance(each, Reference)]


class Recording(NamedTuple):
  """A network's equations.

  Attributes:
    equations: in order.
    inputs: the network's.
    outputs: the leaves of what it returns; a `graph.parts.Part` depends on no input.
    structure: the pytree of the outputs.
    avals: shape and dtype of each reference, by its number.
  """
  equations: list[Equation]
  inputs: list[Reference]
  outputs: list[Any]
  structure: Any
  avals: list[Any]

  def shape(self, reference: Reference) -> tuple[int, ...]:
    """Of a value, batch of 1."""
    return tuple(self.avals[reference.number].shape)

  def dtype(self, reference: Reference) -> Any:
    """Of a value."""
    return self.avals[reference.number].dtype


def record(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> Recording:
  """The equations of a network that depend on its inputs; nothing of the network is run but what does not.

  Args:
    apply: `apply(variables, *inputs)`, pure.
    variables: arrays.
    *inputs: arrays or `jax.ShapeDtypeStruct`, batch first; the batch size does not matter.
  Returns:
    The recording of one example.
  """
  single = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in inputs]
  leaves = jax.tree.leaves(variables)
  with modes.convolution_mode('lax'):
    program, outputs = jax.make_jaxpr(apply, return_shape=True)(variables, *single)
  found = Recording([], [], [], jax.tree_util.tree_structure(outputs), [])

  def reference(aval: Any) -> Reference:
    found.avals.append(aval)
    return Reference(len(found.avals) - 1)

  def rule(equation: core.JaxprEqn, operands: list[Any], stack: str) -> Sequence[Any]:
    if any(isinstance(operand, Reference) for operand in operands):
      results = tuple(reference(variable.aval) for variable in equation.outvars)
      found.equations.append(Equation(equation.primitive, equation.params, tuple(operands), results, stack))
      return results
    name, shape = equation.primitive.name, parts.shape_of(equation)
    if name == 'broadcast_in_dim':
      return [parts.broadcast(equation, operands[0])]
    if name in ELEMENTWISE and any(part.shape == shape for part in operands):
      return [parts.elementwise(equation, operands, name)]
    return parts.bound(equation, [parts.full(part, name) for part in operands])

  found.inputs.extend(reference(variable.aval) for variable in program.jaxpr.invars[len(leaves):])
  known = [parts.whole(jnp.asarray(leaf)) for leaf in leaves]
  found.outputs.extend(jaxprs.interpret(program.jaxpr, program.consts, [*known, *found.inputs], rule, parts.whole))
  return found
