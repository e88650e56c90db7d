"""Any network under any transform: the one place where views, interception and projection meet a forward pass.

The training loop of lightjax stands on it, and so can yours, in three lines:

    compressed, own = lightjax.compress(model, variables, method, x)               # prints which rule took what
    logits, observed = compressed.apply({'params': params}, own, x, observe=True)  # in your loss
    params, own, opt_state = compressed.update(params, own, opt_state, optimizer, step=step, observed=observed)  # after
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from lightjax import artifact, graph
from lightjax.core import transform as contract
from lightjax.core import trees
from lightjax.core.transform import Context, Interception, Own, Transform
from lightjax.core.typing import Array, Layout, Path, PyTree, Variables

__all__ = ['Compressed', 'bind', 'compress', 'mask_slots']


class Compressed(NamedTuple):
  """A network under a transform.

  Attributes:
    model: a linen module, or a pure `apply(variables, *inputs)` (NNX after `nnx.split`, Equinox after `partition`).
    transform: what compresses it.
    layouts: path to how the network uses that kernel.
    evaluate: (variables, *inputs) -> outputs of the uncompressed network in evaluation mode.
    inputs: shapes of an example batch.
    modules: one abstract forward pass under an interceptor, with collections beside the variables; a ValueError where
      the network is no linen module.
  """
  model: nn.Module | Callable[..., Any]
  transform: Transform
  layouts: Mapping[Path, Layout]
  evaluate: Callable[..., Any]
  inputs: tuple[Any, ...]
  modules: Callable[[Callable[..., Any], Mapping[str, Any]], None]

  def forward(self, variables: Variables, *inputs: Any, **call: Any) -> Any:
    """The network itself, uncompressed."""
    return _apply(self.model)(variables, *inputs, **call)

  def init(
    self,
    variables: Variables,
    *,
    key: Array | None = None,
    loss: Callable[[Variables], Array] | None = None,
    batch: tuple[Any, ...] | None = None,
  ) -> Own:
    """What the transform owns before the first step, for these variables.

    Args:
      variables: the network's own.
      key: PRNG key, for what starts from noise.
      loss: variables -> mean loss on a batch, for pruning at initialization by gradients.
      batch: the inputs of that batch, for criteria that look at activations.
    Returns:
      Trainables and state.
    """
    return self.transform.init(variables, Context(
      self.layouts, key=key, loss=loss, apply=self.evaluate, batch=self.inputs if batch is None else batch,
      modules=self.modules))

  def table(self, variables: Variables) -> str:
    """Which rule took which parameter, as text."""
    return contract.table(self.transform, variables, Context(self.layouts))

  def apply(
    self, variables: Variables, own: Own, *inputs: Any, key: Array | None = None, observe: bool = False, **call: Any
  ) -> Any:
    """The forward pass on the view.

    Args:
      variables: the network's own variables, uncompressed.
      own: what the transform owns.
      *inputs: the network's inputs.
      key: for stochastic transforms; None in evaluation.
      observe: a training pass: activation ranges move.
      **call: passed on (`train=True`, `mutable=...`, `rngs=...`).
    Returns:
      What the network returns; with `observe`, a pair of it and `observed`, to be given to `update`.
    """
    return self.apply_view(self.transform.view(variables, own, key), own, *inputs, observe=observe, **call)

  def apply_view(self, view: Variables, own: Own, *inputs: Any, observe: bool = False, **call: Any) -> Any:
    """The forward pass on a view that was taken already; otherwise as `apply`."""
    found, structure = jax.tree.flatten(
      self.transform.intercept(own, observe), is_leaf=lambda node: isinstance(node, Interception)
    )
    if not isinstance(self.model, nn.Module):
      output = self.forward(view, *inputs, **call)
      return (output, None) if observe else output
    collections = {f'observed{i}': each.values for i, each in enumerate(found)}
    mutable = call.pop('mutable', False)
    wanted = _names(mutable) if observe else mutable
    if observe:
      call['mutable'] = [*wanted, *collections]
    elif mutable is not False:
      call['mutable'] = mutable
    with contextlib.ExitStack() as stack:
      for collection, each in zip(collections, found, strict=True):
        stack.enter_context(nn.intercept_methods(each.make(collection)))
      result = self.forward({**view, **collections} if collections else view, *inputs, **call)
    if not observe:
      return result
    output, mutated = result
    observed = jax.tree.unflatten(structure, [mutated[collection] for collection in collections])
    rest = {name: value for name, value in mutated.items() if name not in collections}
    return ((output, rest) if mutable is not False else output), observed

  def update(
    self,
    variables: Variables,
    own: Own,
    opt_state: PyTree = None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    step: Array | int,
    key: Array | None = None,
    observed: PyTree = None,
    gradients: Any = None,
    loss: Callable[[Variables], Array] | None = None,
    batch: tuple[Any, ...] | None = None,
  ) -> tuple[Variables, Own, PyTree]:
    """Move masks, ranges and schedules after the optimizer's step, and make pruned weights exactly zero again.

    Args:
      variables: after the step; the whole variables, or the params alone.
      own: what the transform owns.
      opt_state: the optimizer's state over `variables` or their params; its slots are masked as the params are.
      optimizer: needed with `opt_state`.
      step: steps completed, this one included.
      key: PRNG key of the step, for criteria that draw.
      observed: second result of `apply(..., observe=True)`.
      gradients: tree of the dense gradients at the view, for criteria that ask for them.
      loss: variables -> mean loss on the batch, for criteria that ask for it.
      batch: the network's inputs in this step, for criteria that look at activations.
    Returns:
      (variables, own, opt_state), all of the given structure.
    """
    context = Context(
      self.layouts, step=step, key=key, observed=observed, loss=loss, apply=self.evaluate,
      batch=self.inputs if batch is None else batch,
      gradients=None if gradients is None else lambda: trees.flatten(gradients),
    )
    own = self.transform.update(variables, own, context)
    variables = self.transform.project(variables, own)
    if opt_state is not None:
      if optimizer is None:
        raise ValueError('update: opt_state is given without its optimizer; pass optimizer= too.')
      optimized = _optimized(optimizer, opt_state, variables)
      opt_state = mask_slots(optimizer, opt_state, self.support(optimized, own))
    return variables, own, opt_state

  def mask_optimizer(
    self, optimizer: optax.GradientTransformation, opt_state: PyTree, params: PyTree, own: Own
  ) -> PyTree:
    """The optimizer's state over {'params', 'transform'} with its slots masked as the params are."""
    if not self.transform.support(own):
      return opt_state
    unmasked = jax.tree.map(lambda leaf: jnp.ones((), bool), own.trainable)
    return mask_slots(optimizer, opt_state, {'params': self.support(params, own), 'transform': unmasked})

  def support(self, params: PyTree, own: Own) -> PyTree:
    """Where params may be non-zero: a tree like `params` of bool masks, a scalar True where there is no mask."""
    masks = dict(self.transform.support(own))
    return trees.replace(jax.tree.map(lambda leaf: jnp.ones((), bool), params), masks)

  def save(self, path: Any, variables: Variables, own: Own, *, network: Any = None, meta: Any = None) -> Any:
    """Write the artifact: the final view with the integers in place of floats; returns its `artifact.Sizes`."""
    view = self.transform.view(variables, own, None)
    encoded = self.transform.finalize(variables, own)
    return artifact.save(path, network=network, variables=view, encoded=encoded, meta=meta)


def compress(
  model: nn.Module | Callable[..., Any],
  variables: Variables,
  method: Transform,
  *inputs: Any,
  key: Array | None = None,
  loss: Callable[[Variables], Array] | None = None,
  **call: Any,
) -> tuple[Compressed, Own]:
  """Put a network under a transform, and print which rule took which parameter.

  Args:
    model: a linen module or a pure `apply(variables, *inputs)`.
    variables: its variables, trained or fresh.
    method: `prune(...)`, `chain(...)`, `where(...)`; any Transform.
    *inputs: one example batch, arrays or `jax.ShapeDtypeStruct`s; only shapes matter, but for pruning before training
      by what the activations are.
    key: PRNG key for transforms that start from noise.
    loss: variables -> mean loss on a batch, for pruning before training by gradients (SNIP, GraSP).
    **call: what an evaluation pass needs beside the inputs, `train=False` say.
  Returns:
    (the compressed network, what its transform owns).
  Raises:
    ValueError: a rule that matches nothing, a stage that loses an earlier one's zeros, a layer out of reach.
  """
  compressed = bind(model, variables, method, *inputs, **call)
  own = compressed.init(variables, key=key, loss=loss, batch=inputs)
  print(compressed.table(variables))
  return compressed, own


def bind(
  model: nn.Module | Callable[..., Any], variables: Variables, method: Transform, *inputs: Any, **call: Any
) -> Compressed:
  """A network and a transform, by shape only: `variables` and `inputs` may be `jax.ShapeDtypeStruct`s."""

  def forward(variables: Variables, *inputs: Any) -> Any:
    return _apply(model)(variables, *inputs, **call)

  def modules(interceptor: Callable[..., Any], collections: Mapping[str, Any]) -> None:
    if not isinstance(model, nn.Module):
      raise ValueError(
        'activations can be intercepted in a flax.linen module only, and this network is a plain function; '
        'leave transforms of activations out of the chain.')
    with nn.intercept_methods(interceptor):
      # A new function each time: JAX keeps traces by function, and an old one would not meet the interceptor.
      jax.eval_shape(lambda *arguments: forward(*arguments), {**variables, **collections}, *inputs)

  layouts = graph.layouts(graph.trace(forward, variables, *inputs))
  shapes = jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), inputs)
  return Compressed(model, method, layouts, forward, shapes, modules)


def mask_slots(optimizer: optax.GradientTransformation, opt_state: PyTree, masks: PyTree) -> PyTree:
  """Zero the params-shaped slots of an optimizer's state (momenta, second moments, averages) where a mask is False.

  Args:
    optimizer: whose state it is; any optax transformation, wrapped or not.
    opt_state: its state.
    masks: tree like the params that it was initialized with: bool masks, or a scalar True.
  Returns:
    The state, masked; slots of another shape (factored moments) and those of a scalar True stay as they are.
  """

  def mask(slot: Any, keep: Any) -> Any:
    if isinstance(slot, optax.MaskedNode) or slot.shape != keep.shape:
      return slot
    return jnp.where(keep, slot, 0)

  return optax.tree_utils.tree_map_params(
    optimizer, mask, opt_state, masks, is_leaf=lambda node: isinstance(node, optax.MaskedNode)
  )


def _optimized(optimizer: optax.GradientTransformation, opt_state: PyTree, variables: Variables) -> PyTree:
  """The tree that an optimizer's state belongs to: all variables, or their params."""
  for tree in (variables, trees.parameters(variables)):
    fresh: Any = jax.tree.structure(jax.eval_shape(optimizer.init, tree))
    if fresh == jax.tree.structure(opt_state):
      return tree
  raise ValueError('update: opt_state belongs neither to these variables nor to their params.')


def _apply(model: nn.Module | Callable[..., Any]) -> Callable[..., Any]:
  return model.apply if isinstance(model, nn.Module) else model


def _names(mutable: Any) -> list[str]:
  if mutable is False:
    return []
  return [mutable] if isinstance(mutable, str) else list(mutable)
