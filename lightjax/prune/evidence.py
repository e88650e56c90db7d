"""What a criterion can ask for by name, and what it costs: nothing that no criterion names is computed."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from lightjax.core import rngs, trees
from lightjax.core.transform import Context
from lightjax.core.typing import Array, Leaves, Path, Variables
from lightjax.prune import calibration

Criterion = Callable[..., Array]

# Sums over the steps, kept in the transform's state: (weight, gradient at the view) -> what a step adds.
ACCUMULATED: Mapping[str, Callable[[Array, Array], Array]] = {
  'squared_gradient': lambda weight, gradient: jnp.square(gradient),
  'movement': lambda weight, gradient: -weight * gradient,
}
OFFERED = (
  'weight', 'gradient', 'key', 'hessian_gradient', *ACCUMULATED, 'flow', 'input_norm', 'inverse_hessian')


def asked(criterion: Criterion, asker: str) -> tuple[str, ...]:
  """What a criterion's parameters name.

  Raises:
    ValueError: something that is not offered.
  """
  names = tuple(inspect.signature(criterion).parameters)
  for name in names:
    if name not in OFFERED:
      raise ValueError(f'{asker}: a criterion is offered {", ".join(OFFERED)}, not {name!r}.')
  return names


def gather(
  names: Sequence[str], variables: Variables, masked: Leaves, sums: Mapping[str, Leaves], seen: Array, context: Context,
  asker: str,
) -> dict[str, Leaves]:
  """The evidence of some names, by parameter.

  Args:
    names: of `OFFERED`.
    variables: at this stage, as they are.
    masked: path to the parameters as the masks leave them; the paths that are pruned.
    sums: name to sums over the steps, of `ACCUMULATED`.
    seen: steps that are in the sums.
    context: of the update.
    asker: for messages.
  Returns:
    Name to path to array.
  """
  view = trees.replace(variables, masked)
  leaves = trees.flatten(variables)

  def loss(parameters: Leaves) -> Array:
    return context.need('loss', asker)(trees.replace(view, parameters))

  def gradients() -> Leaves:
    return gradient_at(view, masked, context, asker)

  def keys() -> Leaves:
    key = rngs.fold(context.need('key', asker), context.step)
    return {path: rngs.fold(key, path) for path in masked}

  def hessian_gradients() -> Leaves:
    own = dict(masked)
    return jax.jvp(jax.grad(loss), (own,), (jax.grad(loss)(own),))[1]

  def flows() -> Leaves:
    apply, batch = context.need('apply', asker), context.need('batch', asker)
    ones = jax.tree.map(lambda each: jnp.ones((1, *each.shape[1:]), each.dtype), batch)
    absolute = trees.with_parameters(view, jax.tree.map(jnp.abs, trees.parameters(view)))

    def total(parameters: Leaves) -> Array:
      output = apply(trees.replace(absolute, parameters), *ones)
      return sum((each.sum() for each in jax.tree.leaves(output)), jnp.float32(0))

    return jax.grad(total)({path: jnp.abs(leaf) for path, leaf in masked.items()})

  def moments(reduce: Callable[[calibration.Moment, tuple[int, ...]], Array]) -> Leaves:
    apply, batch = context.need('apply', asker), context.need('batch', asker)
    found = calibration.moments(apply, view, batch, tuple(masked))
    return {path: reduce(found[path], leaf.shape) for path, leaf in masked.items()}

  sources: dict[str, Callable[[], Leaves]] = {
    'weight': lambda: {path: leaves[path] for path in masked}, 'gradient': gradients, 'key': keys,
    'hessian_gradient': hessian_gradients, 'flow': flows,
    'squared_gradient': lambda: {
      path: total / jnp.maximum(seen, 1) for path, total in sums['squared_gradient'].items()},
    'movement': lambda: sums['movement'],
    'input_norm': lambda: moments(calibration.input_norm),
    'inverse_hessian': lambda: moments(calibration.inverse_diagonal),
  }
  return {name: sources[name]() for name in names}


def gradient_at(view: Variables, paths: Mapping[Path, Array], context: Context, asker: str) -> Leaves:
  """The dense gradient at the final view, where the caller has it; else that of its loss at this stage's view."""
  if context.gradients is not None:
    return context.gradients()
  if context.loss is None:
    context.need('gradients', asker)
  loss = context.need('loss', asker)
  leaves = trees.flatten(view)
  return jax.grad(lambda parameters: loss(trees.replace(view, parameters)))({path: leaves[path] for path in paths})
