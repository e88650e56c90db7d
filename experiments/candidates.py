"""Candidates of a search for channels (`config.search`): what they cost, and how good they are, masked.

All candidates of a network share its compiled functions: which channels stay is an argument of them.
"""
from __future__ import annotations

import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import building, configuration, removing, unit
from lightjax import graph, measure
from lightjax.core import rngs, specs
from lightjax.core.transform import Own
from lightjax.core.typing import Array, Variables
from lightjax.graph.channels import ChannelGraph, Group
from lightjax.prune import channel_masks, costs, selection, surgery
from lightjax.search import Candidate, Space, channels, latency
from lightjax.train import devices

HELD = 64  # images of the validation split on which a smaller network must repeat the masked one
ROUNDS = 30  # measured calls of an operation or a network

Kept = dict[str, np.ndarray]


class Network(NamedTuple):
  """A network whose channels are searched.

  Attributes:
    config: complete.
    built: its program.
    variables: that the search starts from.
    coupling: of its channels.
    groups: that may lose channels.
    operations: of one image.
    space: how many channels of each group stay.
    scores: importance of the channels of `variables`.
  """
  config: ml_collections.ConfigDict
  built: building.Program
  variables: Variables
  coupling: ChannelGraph
  groups: tuple[Group, ...]
  operations: tuple[graph.Operation, ...]
  space: Space
  scores: dict[str, np.ndarray]

  def kept(self, candidate: Candidate, scores: Mapping[str, np.ndarray] | None = None) -> Kept:
    """The channels that a candidate leaves, the most important ones by these scores, or by the network's own."""
    return selection.keep(self.coupling, self.scores if scores is None else scores, self.space.spec(candidate))

  def within(self, variables: Variables, kept: Kept) -> dict[str, np.ndarray]:
    """Scores by other variables, of which only some channels are left: those that are not come last."""
    found = removing.scores(self.config, self.built, variables, self.coupling, self.groups)
    return {name: np.where(kept[name], each, each.min() - 1.0) for name, each in found.items()}


def network(config: ml_collections.ConfigDict, built: building.Program, variables: Variables) -> Network:
  """What a config lets a search choose from.

  Raises:
    SpecError: a field of `remove` names nothing, or a pattern matches nothing.
  """
  fields = config.remove
  if not fields.importance:
    raise specs.SpecError("search.strategy without remove.importance, which says what stays; set it, to 'l1' say.")
  example = removing.example(built)
  coupling = graph.channels(built.apply, variables, example)
  try:
    groups = selection.candidates(coupling, only=fields.only, exclude=fields.exclude)
    space = channels.space(groups, multiple=fields.multiple, minimum=fields.minimum)
    scores = removing.scores(config, built, variables, coupling, groups)
  except specs.SpecError:
    raise
  except ValueError as error:
    raise specs.SpecError(f'remove: {error}') from error
  operations = graph.trace(built.apply, jax.eval_shape(lambda tree: tree, variables), example).operations
  return Network(config, built, variables, coupling, groups, operations, space, scores)


def cost(searched: Network, place: pathlib.Path) -> Callable[[Candidate], float]:
  """Candidate -> what `remove.cost` says that it costs: counted, or milliseconds that measured operations add up to.

  Args:
    searched: the network.
    place: file of the measured operations, which are not measured again.
  Returns:
    The cost.
  Raises:
    SpecError: an unknown cost, or one that can't be predicted for this network.
  """
  name, offered = searched.config.remove.cost, removing.counted(searched.built, searched.variables)
  if name != 'latency':
    if name not in offered:
      raise specs.SpecError(f"remove.cost={name!r} is none of {', '.join(map(repr, offered))}, 'latency'.")
    counted = offered[name](searched.coupling)
    return functools.cache(lambda candidate: counted(searched.kept(candidate)))
  return functools.cache(specs.call(_Predicted, {}, searched, place, field='remove.cost=latency'))


class _Predicted:
  """Latency of a batch of 32 images in ms, from operations; calibrated on the whole network and two narrow ones."""

  def __init__(self, searched: Network, place: pathlib.Path):
    self._searched, self._place = searched, place
    self._operations(tuple(each - 1 for each in searched.space.sizes))  # refuses what has no kernels
    self._known: dict[str, latency.Measured] = {}
    self._line: latency.Calibration | None = None
    if place.is_file():
      before = json.loads(place.read_text())
      self._known = {key: latency.Measured(**row) for key, row in before['operations'].items()}
      self._line = latency.Calibration(**before['calibration']) if before['calibration'] else None
    if self._line is None:
      self._calibrate()

  def __call__(self, candidate: Candidate) -> float:
    return max(latency.predict(self._measured(candidate), self._known, self._line), 1e-3)

  def _operations(self, candidate: Candidate) -> list[latency.Operation]:
    left = costs.left(surgery.plan(self._searched.coupling, self._searched.kept(candidate)))
    return channels.kernels(
      self._searched.coupling, self._searched.operations, left, batch_size=removing.LATENCY_BATCH)

  def _measured(self, candidate: Candidate) -> list[latency.Operation]:
    operations = self._operations(candidate)
    if any(each.key not in self._known for each in operations):
      self._known = latency.measure(operations, rounds=ROUNDS, known=self._known)
      self._write()
    return operations

  def _calibrate(self) -> None:
    sizes = self._searched.space.sizes
    some = dict.fromkeys(tuple((size - 1) * part // 3 for size in sizes) for part in (3, 2, 1))
    sums = [latency.predict(self._measured(candidate), self._known) for candidate in some]
    images = removing.noise(self._searched.built)
    calls = {}
    for number, candidate in enumerate(some):
      removed = surgery.remove(
        self._searched.built.apply, self._searched.coupling, self._searched.variables, self._searched.kept(candidate))
      calls[str(number)] = functools.partial(jax.jit(removed.apply), removed.variables, images)
    seen = measure.side_by_side(calls, rounds=ROUNDS)
    self._line = latency.calibrate(sums, [seen[str(number)].median_ms for number in range(len(some))])
    self._write()

  def _write(self) -> None:
    self._place.parent.mkdir(parents=True, exist_ok=True)
    unit.write(self._place, json.dumps({
      'batch_size': removing.LATENCY_BATCH, 'versions': devices.versions(), 'cores': devices.cores(),
      'calibration': self._line._asdict() if self._line else None,
      'operations': {key: each._asdict() for key, each in self._known.items()}}, indent=1))


class Masked:
  """Trains and evaluates candidates of a network, masked, with one compilation."""

  def __init__(self, searched: Network):
    """Builds the program; it is compiled when the first candidate comes."""
    self._searched, config = searched, searched.config
    plain = ml_collections.ConfigDict(config.copy_and_resolve_references()).unlock()
    plain.learning_rate = ml_collections.ConfigDict(
      {'schedule': 'constant', 'peak': config.search.peak, 'warmup_epochs': 0.0})
    plain = configuration.override(plain.lock(), [
      ('average', 0.0), ('distill.config', ''), ('distill.weights', ''), ('distill.terms', ()), ('regularize.name', ''),
      ('start.fresh', ()), ('start.rewind', 'last')])
    self._program = building.masked(
      plain, searched.built.surgery, channel_masks.channel_masks(searched.coupling))
    if not len(self._program.splits.validation):
      raise specs.SpecError('data.validation=0: a search needs a validation split, the test set is not for choosing.')
    self._state = self._program.initial(config.seed, searched.variables, None)
    self._key = devices.replicate(rngs.root(config.seed), self._program.mesh)

  def train(self, variables: Variables, kept: Kept, first: int) -> Variables:
    """The variables after `search.steps` steps of what is left, from the batch `first` on, statistics estimated again.

    Raises:
      ArithmeticError: a step was not finite.
    """
    own, config = self._own(kept), self._searched.config
    masked = self._program.compressed.transform.project(variables, own)
    if config.search.steps:
      state = self._state.replace(
        step=jnp.asarray(first, jnp.int32), params=masked['params'], own=own,
        collections={name: each for name, each in masked.items() if name != 'params'})
      state = jax.tree.map(jnp.copy, state)  # the step donates its buffers
      for batch in itertools.islice(self._program.batches(config.seed, first), config.search.steps):
        state = self._program.advance(state, self._key, batch, None)
      if int(state.failed[0]) >= 0:
        raise ArithmeticError(f'search: training a candidate diverged; lower search.peak={config.search.peak}.')
      masked = self._program.compressed.transform.project(state.variables(), own)
    return removing.reestimated(config, self._searched.built, masked)

  def accuracy(self, variables: Variables, kept: Kept) -> float:
    """On the validation split."""
    return self._program.evaluate('validation', variables, self._own(kept))['accuracy']

  def _own(self, kept: Kept) -> Own:
    stage = Own(self._state.own.trainable[0], self._state.own.state[0])
    chosen = channel_masks.choose(stage, kept)
    return devices.replicate(self._state.own._replace(state=(chosen.state,)), self._program.mesh)


def measured(searched: Network, variables: Variables, kept: Kept) -> dict[str, float]:
  """The latency of a candidate whose channels are really removed, in turns with the whole network.

  Args:
    searched: the network.
    variables: of the candidate, masked.
    kept: channels that stay.
  Returns:
    'measured_ms' and 'whole_ms', medians, of a batch of 32.
  Raises:
    ArithmeticError: the smaller network computes something else than the masked one.
  """
  apply, built = searched.built.apply, searched.built
  removed = surgery.remove(apply, searched.coupling, variables, kept)
  whole, smaller = jax.jit(apply), jax.jit(removed.apply)
  held = built.normalize(jnp.asarray(built.splits.validation.take(
    np.arange(min(HELD, len(built.splits.validation))))[0]))
  expected: Array = whole(surgery.mask(searched.coupling, variables, kept), held)
  difference = float(jnp.max(jnp.abs(smaller(removed.variables, held) - expected)))
  if not difference <= 1e-4 * float(1 + jnp.max(jnp.abs(expected))):
    raise ArithmeticError(
      f'search: without its channels the network differs from the masked one by {difference}; please report it.')
  images = removing.noise(built)
  seen = measure.side_by_side({
    'whole': lambda: whole(searched.variables, images), 'smaller': lambda: smaller(removed.variables, images)},
    rounds=ROUNDS)
  return {'measured_ms': seen['smaller'].median_ms, 'whole_ms': seen['whole'].median_ms}


def layers(searched: Network) -> Sequence[channels.Layer]:
  """What strategies see that look at layers."""
  return channels.layers(searched.groups, searched.coupling, searched.operations)
