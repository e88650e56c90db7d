"""The contract of a compression transform, and how transforms compose.

A network is a pure function of its variables; compressing it is another pure function, `variables -> view`, that the
forward pass sees instead. A `Transform` is that function, what it owns, when it moves, and what is stored in the end.

    method = chain(prune(...), where((('stem/.*', None), ('.*/kernel', quantize.weights(bits=8)))))
    own = method.init(variables, context)
    logits = model.apply(method.view(variables, own, None), x)
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lightjax.core import encoded, rngs, rules, trees
from lightjax.core.encoded import Encoded
from lightjax.core.typing import Array, Layout, Leaves, Path, PyTree, Variables


class Own(NamedTuple):
  """What a transform owns, one pytree in two halves: `trainable` gets gradients and updates, `state` does not."""
  trainable: PyTree = ()
  state: PyTree = ()


class Context(NamedTuple):
  """What a transform may know beside its input. Closures are lazy: a criterion that does not call one pays nothing.

  Attributes:
    layouts: path to how the network uses that kernel (from the graph).
    paths: the parameters that this transform may touch; None: all that no default leaves alone.
    step: training steps completed, int32 scalar.
    key: PRNG key of this step and stage.
    gradients: () -> path to the dense gradient of the loss at the final view.
    loss: variables -> mean loss on the step's batch in training mode, with the variables taken as they are (no view).
    apply: (variables, *inputs) -> outputs in evaluation mode, likewise without a view.
    batch: the inputs of the step, a tuple; before training arrays or only their shapes.
    observed: what this transform's interception wrote in the step's forward pass.
    modules: the trace that interception needs at init: (interceptor, collections) -> None, one abstract forward pass
      under the interceptor, with linen collections beside the variables.
  """
  layouts: Mapping[Path, Layout]
  paths: tuple[Path, ...] | None = None
  step: Array | int = 0
  key: Array | None = None
  gradients: Callable[[], Leaves] | None = None
  loss: Callable[[Variables], Array] | None = None
  apply: Callable[..., Any] | None = None
  batch: tuple[Any, ...] | None = None
  observed: PyTree = None
  modules: Callable[[Callable[..., Any], Mapping[str, Any]], None] | None = None

  def select(self, variables: Variables) -> dict[Path, Any]:
    """The leaves that this transform may touch, by path.

    Raises:
      ValueError: there is none.
    """
    leaves = trees.flatten(variables)
    paths = rules.selected(tuple(leaves), self.layouts) if self.paths is None else self.paths
    if not paths:
      raise ValueError(
        'the defaults leave every parameter alone (biases, norms, the first conv, the last dense layer); '
        "name parameters with where(((pattern, transform),), skip=('not_kernel',))."
      )
    return {path: leaves[path] for path in paths}

  def need(self, name: str, asker: str) -> Any:
    """A lazy closure, or an error that says who asked for it."""
    value = getattr(self, name)
    if value is None:
      raise ValueError(f'{asker} needs context.{name}, which this caller does not give: pass it in the Context.')
    return value


class Interception(NamedTuple):
  """Work on activations in the forward pass: `make(collection)` gives linen's interceptor, `values` the collection."""
  make: Callable[[str], Callable[..., Any]]
  values: PyTree


class Taken(NamedTuple):
  """One line of the printable table: stage, parameter and the rule that gave the one to the other."""
  stage: str
  path: Path
  by: str


class Transform(NamedTuple):
  """A compression method as pure functions; see the module's docstring and `transform` for the defaults.

  Attributes:
    name: for messages and tables.
    init: (variables, context) -> own.
    view: (variables, own, key) -> variables: what the forward pass sees; pure, differentiable, same tree and shapes.
    update: (variables, own, context) -> own: masks, ranges and schedules move here, at the stage's own input.
    project: (variables, own) -> variables: after the optimizer's step; pruned weights stay exactly zero.
    support: own -> path to bool mask (or a scalar True): the entries of the params that may be non-zero. The trainer
      masks the optimizer's slots and the averaged params with it, so that a weight that grows back starts afresh under
      any optimizer.
    intercept: (own, train) -> Interception, or a tuple of such, or None.
    finalize: (variables, own) -> Encoded: what is stored; every figure on sizes is computed from it.
    describe: (variables, context) -> which parameters it takes, and why.
  """
  name: str
  init: Callable[[Variables, Context], Own]
  view: Callable[[Variables, Own, Array | None], Variables]
  update: Callable[[Variables, Own, Context], Own]
  project: Callable[[Variables, Own], Variables]
  support: Callable[[Own], Leaves]
  intercept: Callable[[Own, bool], Any]
  finalize: Callable[[Variables, Own], Encoded]
  describe: Callable[[Variables, Context], tuple[Taken, ...]]


def transform(
  name: str,
  *,
  init: Callable[[Variables, Context], Own],
  view: Callable[[Variables, Own, Array | None], Variables] = lambda variables, own, key: variables,
  update: Callable[[Variables, Own, Context], Own] = lambda variables, own, context: own,
  project: Callable[[Variables, Own], Variables] = lambda variables, own: variables,
  support: Callable[[Own], Leaves] = lambda own: {},
  intercept: Callable[[Own, bool], Any] = lambda own, train: None,
  finalize: Callable[[Variables, Own], Encoded] = lambda variables, own: encoded.NOTHING,
) -> Transform:
  """A transform of its own parts; what is left out does nothing.

  Example (a transform that halves what it is given):
    >>> half = transform('half', init=lambda variables, context: Own(state=tuple(context.select(variables))),
    ...                  view=lambda variables, own, key: trees.replace(
    ...                    variables, {path: 0.5 * trees.flatten(variables)[path] for path in own.state}))
    >>> variables = {'fc': jnp.ones(2)}
    >>> own = half.init(variables, Context(layouts={}, paths=('fc',)))
    >>> half.view(variables, own, None)
    {'fc': Array([0.5, 0.5], dtype=float32)}
  """

  def describe(variables: Variables, context: Context) -> tuple[Taken, ...]:
    return tuple(Taken(name, path, 'default') for path in context.select(variables))

  return Transform(name, init, view, update, project, support, intercept, finalize, describe)


def chain(*stages: Transform) -> Transform:
  """Transforms one after another: each sees the view of those before it.

  Args:
    *stages: in order; `chain()` is the identity.
  Returns:
    Their composition; what it owns is a tuple, one entry a stage.
  Raises (at init):
    ValueError: a stage does not keep the zeros or the few values of an earlier one, or changes what an earlier one
      stores as integers; both and the parameter are named.
  """

  def narrow(variables: Variables, context: Context) -> tuple[Context, ...]:
    return tuple(context._replace(key=_stage_key(context.key, i)) for i in range(len(stages)))

  return _compose('chain', stages, narrow, _describe_all(stages))


def where(
  rules_: Sequence[tuple[str, Transform | None]], *, skip: Sequence[str] = rules.DEFAULT_SKIP
) -> Transform:
  """Transforms by path: each parameter goes to the first rule whose pattern matches its whole path.

  Args:
    rules_: pairs (regular expression, transform); None as transform leaves the parameter alone.
    skip: defaults that go before the rules: 'not_kernel' (biases, norms), 'first_conv', 'last_dense'.
  Returns:
    One transform.
  Raises (at init):
    ValueError: a rule took nothing; the message names the nearest paths or the reason.
  Example:
    where((('stem/.*', None), ('.*/kernel', prune(...))), skip=('not_kernel',))
  """
  patterns = tuple(pattern for pattern, _ in rules_)
  stages = tuple(stage for _, stage in rules_ if stage is not None)
  numbers = tuple(i for i, (_, stage) in enumerate(rules_) if stage is not None)

  def assign(variables: Variables, context: Context) -> tuple[rules.Assigned, ...]:
    paths = tuple(trees.flatten(variables)) if context.paths is None else context.paths
    return rules.assign(patterns, paths, context.layouts, skip)

  def narrow(variables: Variables, context: Context) -> tuple[Context, ...]:
    lines = assign(variables, context)
    return tuple(
      context._replace(paths=tuple(line.path for line in lines if line.rule == i), key=_stage_key(context.key, i))
      for i in numbers
    )

  def describe(variables: Variables, context: Context) -> tuple[Taken, ...]:
    contexts = narrow(variables, context)
    inner = [each for stage, inside in zip(stages, contexts, strict=True) for each in stage.describe(variables, inside)]
    taken = []
    for line in assign(variables, context):
      for each in [each for each in inner if each.path == line.path] or [Taken('-', line.path, '')]:
        taken.append(each._replace(by=line.by if each.by in ('', 'default') else f'{line.by} > {each.by}'))
    return tuple(taken)

  return _compose('where', stages, narrow, describe)


def named(name: str, stage: Transform) -> Transform:
  """The same transform under another name, for tables that show two of a kind."""
  return stage._replace(name=name, describe=lambda variables, context: tuple(
    taken._replace(stage=name) if taken.stage == stage.name else taken for taken in stage.describe(variables, context)))


def table(method: Transform, variables: Variables, context: Context) -> str:
  """Which rule took which parameter, as text: one line a stage and parameter."""
  lines = method.describe(variables, context)
  if not lines:
    return 'no transform: every parameter is left alone'
  rows = [('stage', 'parameter', 'by'), *lines]
  widths = [max(len(row[i]) for row in rows) for i in range(3)]
  padded = (zip(row, widths, strict=True) for row in rows)
  return '\n'.join('  '.join(cell.ljust(width) for cell, width in row).rstrip() for row in padded)


def _stage_key(key: Array | None, index: int) -> Array | None:
  return None if key is None else rngs.fold(key, index)


def _describe_all(stages: Sequence[Transform]) -> Callable[[Variables, Context], tuple[Taken, ...]]:
  return lambda variables, context: tuple(taken for stage in stages for taken in stage.describe(variables, context))


def _compose(
  name: str,
  stages: Sequence[Transform],
  narrow: Callable[[Variables, Context], Sequence[Context]],
  describe: Callable[[Variables, Context], tuple[Taken, ...]],
) -> Transform:
  """Stages in order, each at the view of those before it; `narrow` says at init what each of them may touch."""

  def split(own: Own) -> list[Own]:
    return [Own(*halves) for halves in zip(own.trainable, own.state, strict=True)]

  def join(owns: Sequence[Own]) -> Own:
    return Own(tuple(own.trainable for own in owns), tuple(own.state for own in owns))

  def init(variables: Variables, context: Context) -> Own:
    owns: list[Own] = []
    zeros: dict[Path, str] = {}
    stored: dict[Path, str] = {}
    values: dict[Path, tuple[str, int]] = {}
    for stage, narrowed in zip(stages, narrow(variables, context), strict=True):
      own = stage.init(variables, narrowed)
      seen = stage.view(variables, own, narrowed.key)
      _refuse_lost_zeros(stage, own, variables, zeros)
      zeros.update({path: stage.name for path in stage.support(own)})
      # What intercepts activations has no ranges yet to finalize with; it takes none of the parameters.
      takes = () if len(stages) == 1 or jax.tree.leaves(stage.intercept(own, False)) else tuple(
        stage.finalize(variables, own).parameters)
      _refuse_lost_integers(stage, {*takes, *stage.support(own)}, variables, seen, stored)
      stored.update(dict.fromkeys(takes, stage.name))
      if len(stages) > 1:
        _refuse_lost_values(stage, variables, seen, values)
      variables = seen
      owns.append(own)
    return join(owns)

  def view(variables: Variables, own: Own, key: Array | None) -> Variables:
    for i, (stage, each) in enumerate(zip(stages, split(own), strict=True)):
      variables = stage.view(variables, each, _stage_key(key, i))
    return variables

  def update(variables: Variables, own: Own, context: Context) -> Own:
    moved = []
    for i, (stage, each) in enumerate(zip(stages, split(own), strict=True)):
      observed = None if context.observed is None else context.observed[i]
      inner = context._replace(key=_stage_key(context.key, i), observed=observed, paths=None)
      moved.append(stage.update(variables, each, inner))
      variables = stage.view(variables, moved[-1], inner.key)
    return join(moved)

  def project(variables: Variables, own: Own) -> Variables:
    for stage, each in zip(stages, split(own), strict=True):
      variables = stage.project(variables, each)
    return variables

  def support(own: Own) -> Leaves:
    merged: dict[Path, Any] = {}
    for stage, each in zip(stages, split(own), strict=True):
      for path, mask in stage.support(each).items():
        merged[path] = jnp.logical_and(merged[path], mask) if path in merged else mask
    return merged

  def intercept(own: Own, train: bool) -> Any:
    return tuple(stage.intercept(each, train) for stage, each in zip(stages, split(own), strict=True))

  def finalize(variables: Variables, own: Own) -> Encoded:
    parts = []
    for stage, each in zip(stages, split(own), strict=True):
      parts.append(stage.finalize(variables, each))
      variables = stage.view(variables, each, None)
    return encoded.merge(parts)

  return Transform(name, init, view, update, project, support, intercept, finalize, describe)


def _refuse_lost_integers(
  stage: Transform, takes: set[Path], before: Variables, after: Variables, stored: Mapping[Path, str]
) -> None:
  """Refuse a stage that moves a parameter off the grid on which an earlier one stores it."""
  if not stored:
    return
  leaves, seen = trees.flatten(before), trees.flatten(after)
  for path, earlier in stored.items():
    if path in takes or bool(jnp.any(seen[path] != leaves[path])):
      raise ValueError(
        f'chain: {stage.name!r} changes {path!r}, which {earlier!r} stores as integers; '
        f'put it before {earlier!r}, or leave {path!r} to one of them by a rule.')


def _refuse_lost_values(
  stage: Transform, before: Variables, after: Variables, values: dict[Path, tuple[str, int]]
) -> None:
  """Refuse a stage that gives a parameter more values than the few of an earlier one; notes the few of this one."""
  leaves = trees.flatten(before)
  for path, leaf in trees.flatten(after).items():
    if leaf is leaves[path]:
      continue
    array = np.asarray(leaf).reshape(-1)
    # A cheap no for almost every float array.
    is_few = np.unique(array[:_SAMPLE]).size <= _FEW and np.unique(array).size <= min(_FEW, array.size // 4)
    count = np.count_nonzero(np.unique(array)) if is_few else array.size
    earlier, few = values.get(path, ('', array.size))
    if count > few:
      raise ValueError(
        f'chain: {stage.name!r} does not keep the {few} values that {earlier!r} gives {path!r}; '
        f'put it before {earlier!r}, or leave {path!r} to one of them by a rule.')
    if is_few and path not in values:
      values[path] = stage.name, int(count)


# So many values are a codebook's, of which the file stores indices; so many weights are looked at first.
_FEW, _SAMPLE = 256, 4096


def _refuse_lost_zeros(stage: Transform, own: Own, variables: Variables, zeros: Mapping[Path, str]) -> None:
  """Probe a stage with half of each sparse parameter at zero; refuse it if a zero comes out as something else."""
  if not zeros:
    return
  leaves = trees.flatten(variables)
  probes = {}
  for path in zeros:
    leaf = leaves[path]
    probes[path] = jnp.where(jnp.arange(leaf.size).reshape(leaf.shape) % 2, leaf, 0)
  seen = trees.flatten(stage.view(trees.replace(variables, probes), own, jax.random.key(0)))
  for path, probe in probes.items():
    if bool(jnp.any((probe == 0) & (seen[path] != 0))):
      raise ValueError(
        f'chain: {stage.name!r} does not keep the zeros that {zeros[path]!r} makes in {path!r}; '
        f'put it before {zeros[path]!r}, or leave {path!r} to one of them by a rule.'
      )
