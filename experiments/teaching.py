"""The teachers of a run, and the terms of its loss (`config.distill`).

A term of `distill.terms` is a field of its name: `loss` (a name of lightjax.distill.losses), `weight` (of its mean over
the batch), `student` and `teacher` (rules for taps, see lightjax.distill.taps), `learner` (a name of
lightjax.distill.learners), `of` ('teacher', or 'self': the student's own deeper layers teach) and `hyper`, the
arguments of loss and learner.
"""
from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import starting
from experiments.reshaping import NOTHING, Surgery
from lightjax import artifact, binarize, quantize
from lightjax.core import specs
from lightjax.core.transform import Transform
from lightjax.core.typing import Array, PyTree
from lightjax.distill import learners, losses, taps, terms
from lightjax.distill.terms import Term
from lightjax.train import step as steps

BATCH = 500  # images at a time whose logits are computed beforehand
SEVERAL = ('fsp', 'review')  # losses that compare sequences of taps


class Teacher(NamedTuple):
  """A frozen network, its numbers left open.

  Attributes:
    network: linen module, for the shapes of its taps; None where channels were removed, which leaves no modules.
    classes: number of its logits.
    apply: (numbers, images, **call) -> what linen's apply returns, in evaluation mode.
    surgery: what was changed of the network.
  """
  network: nn.Module | None
  classes: int
  apply: Callable[..., Any]
  surgery: Surgery = NOTHING


def is_taught(config: ml_collections.ConfigDict) -> bool:
  """Whether a config distils, by a teacher or by itself."""
  return bool(config.distill.config or config.distill.weights or config.distill.terms)


def stored(folder: str, network: Callable[[Mapping[str, Any]], Any]) -> tuple[Teacher, PyTree]:
  """The teacher of an artifact, as it computes when it is deployed: integers, ranges, removed channels.

  Args:
    folder: holds an artifact.ljx.
    network: description of a model -> linen module.
  Returns:
    The teacher and its numbers.
  Raises:
    SpecError: there is no artifact.
    ArtifactError: it is damaged.
  """
  starting.digest(pathlib.Path(folder))  # says what is missing
  found = artifact.load(pathlib.Path(folder) / starting.FILE)
  model, inputs = network(found.network['model']), found.encoded.activations
  surgery = Surgery.from_json(found.network.get('surgery', []))
  forward = surgery.apply(model.apply)
  binary = binarize.binary_modules(inputs)
  integer = {module: calls for module, calls in inputs.items() if module not in binary}

  def apply(numbers: PyTree, images: Array, **call: Any) -> Any:
    with nn.intercept_methods(quantize.frozen_interceptor(integer)), \
        nn.intercept_methods(binarize.frozen_interceptor(inputs)):
      return forward(numbers, images, **call)

  frozen = Teacher(None if surgery.steps else model, model.classes, apply, surgery)
  return frozen, found.variables


def build(
  config: ml_collections.ConfigDict, student: nn.Module | None, teacher: Teacher | None, *, shape: tuple[int, ...],
  classes: int, examples: int,
) -> tuple[steps.Distillation, Transform]:
  """How a run is taught, and the last stage of its chain, which owns what its terms train.

  Args:
    config: complete.
    student: its network; None where channels were removed.
    teacher: of the run; None where it is taught by itself and the labels alone.
    shape: (h, w, c) of the images.
    classes: of the data.
    examples: images to train on.
  Returns:
    (distillation, transform).
  Raises:
    SpecError: another class count than the teacher's; a tap that matches nothing; shapes that do not fit (both sides
      are printed).
  """
  if teacher is not None and teacher.classes != classes:
    raise specs.SpecError(
      f'distill: the teacher knows {teacher.classes} classes and the data has {classes}; a teacher must have been '
      'trained on the same classes.')
  captured = functools.cache(lambda who: _captured(who, shape))

  def modules(who: nn.Module | None, field: str) -> Mapping[str, Any]:
    if who is None:
      raise specs.SpecError(f'{field}: the network has lost channels and is no longer made of modules; tap '
                            f'{taps.OUTPUT!r}, its output.')
    return captured(who)[1]

  def selected(rule: str, who: nn.Module | None, field: str) -> tuple[str, ...]:
    return (taps.OUTPUT,) if rule == taps.OUTPUT else specs.call(
      functools.partial(taps.select, field=field), {}, rule, modules(who, field), field='distill')

  def term(name: str) -> Term:
    field = f'distill.{name}'
    if name not in config.distill or name == 'terms':
      raise specs.SpecError(f'distill.terms names {name!r}, but there is no field {field}.')
    fields = {'student': '', 'teacher': '', 'learner': 'none', 'of': terms.TEACHER, 'hyper': {}, **config.distill[name]}
    if 'loss' not in fields or 'weight' not in fields:
      raise specs.SpecError(f'{field}: a term has a loss and a weight.')
    of, hyper = fields['of'], dict(fields['hyper'])
    if of not in (terms.TEACHER, terms.SELF):
      raise specs.SpecError(f"{field}.of={of!r} is none of 'teacher', 'self'.")
    if of == terms.TEACHER and teacher is None:
      raise specs.SpecError(f"{field}: there is no teacher; set distill.config or distill.weights, or of='self'.")
    loss = specs.resolve(fields['loss'], losses, field=f'{field}.loss')
    make = specs.resolve(fields['learner'], learners, field=f'{field}.learner')
    own = {key: hyper.pop(key) for key in tuple(hyper) if key in specs.arguments(make)}
    learner = specs.call(make, own, field=f'{field}.learner', size=examples, **(
      {} if student is None else _peer(student, shape)))
    source = student if of == terms.SELF or teacher is None else teacher.network
    return Term(
      name, loss, hyper, fields['weight'], learner, selected(fields['student'], student, f'{field}.student'),
      selected(fields['teacher'], source, f'{field}.teacher'), of, fields['loss'] in SEVERAL)

  main = Term('logits', specs.resolve(config.distill.loss, losses, field='distill.loss'), dict(config.distill.hyper),
              config.distill.weight, learners.none(), (taps.OUTPUT,), (taps.OUTPUT,))
  specs.check(main.loss, {**main.hyper, **({'labels': None} if 'labels' in specs.arguments(main.loss) else {})}, 2,
              field='distill.hyper')
  found = (*((main,) if teacher is not None and config.distill.weight else ()), *map(term, config.distill.terms))
  many = len(config.distill.seeds) > 1 or config.distill.precompute
  if many and terms.names(found, terms.TEACHER):
    raise specs.SpecError('distill: an ensemble and precomputed logits have no features to tap; use one teacher.')

  def shapes(each: Term) -> tuple[Sequence[Any], Sequence[Any]]:
    def of(who: nn.Module | None, names: Sequence[str]) -> list[tuple[int, ...]]:
      if tuple(names) == (taps.OUTPUT,):
        return [(1, classes)]
      output, intermediates = captured(who)
      return [tuple(one.shape) for one in taps.read(intermediates, output, names)]

    return of(student, each.student), of(
      student if each.of == terms.SELF or teacher is None else teacher.network, each.teacher)

  def probe(each: Term) -> None:
    """A batch of two, by shape only: what does not fit shows before a teacher is trained."""

    def value(key: Array) -> Any:
      student, teacher = (tuple(jnp.zeros((2, *one[1:])) for one in side) for side in shapes(each))
      numbers = jnp.arange(2)
      seen = learners.Seen(student, teacher, numbers, jnp.zeros((2, *shape)), numbers, key)
      return each.value(each.learner.init(key, *shapes(each)), seen)

    jax.eval_shape(value, jax.random.key(0))

  for each in found:
    specs.call(probe, {}, each, field=f'distill.{each.name}')

  def apply(numbers: PyTree, images: Array, index: Array | None, names: Sequence[str]) -> Mapping[str, Array]:
    if teacher is None:
      return {}
    if config.distill.precompute:
      return {taps.OUTPUT: numbers['logits'][index]}
    if not names:
      return {taps.OUTPUT: average(teacher, numbers, images)}
    output, mutated = teacher.apply(
      numbers[0], images, mutable=['intermediates'], capture_intermediates=taps.capture(names))
    return {taps.OUTPUT: output, **dict(zip(names, taps.read(mutated['intermediates'], output, names), strict=True))}

  weight = 1 - config.distill.weight if teacher is not None else 1.0
  return steps.Distillation(apply, found, weight, owned=True), terms.owner(found, shapes)


def average(teacher: Teacher, numbers: Sequence[PyTree], images: Array) -> Array:
  """The mean of the teachers' logits: the geometric mean of what they predict."""
  return sum(teacher.apply(each, images) for each in numbers) / len(numbers)


def precomputed(teacher: Teacher, numbers: PyTree, normalize: Callable[[Array], Array], images: np.ndarray) -> PyTree:
  """The logits of all images to train on, in their order.

  Args:
    teacher: of the run.
    numbers: of each teacher.
    normalize: images as stored -> inputs.
    images: as stored.
  Returns:
    {'logits': [n, c]}, what the step is given in the place of the teachers.
  """
  forward = jax.jit(lambda numbers, images: average(teacher, numbers, normalize(images)))
  parts = [forward(numbers, images[start:start + BATCH]) for start in range(0, len(images), BATCH)]
  return {'logits': jnp.concatenate(parts)}


def accuracy(teacher: Teacher, numbers: PyTree, normalize: Callable[[Array], Array], source: Any) -> float:
  """Share of a split's images that the teachers together get right."""
  images, labels = source.arrays()
  return float(np.mean(np.argmax(precomputed(teacher, numbers, normalize, images)['logits'], -1) == labels))


def corrected(
  logits: Callable[[Array], Array], classes: Sequence[int], validation: Any, test: Any
) -> dict[str, float]:
  """Test accuracy with one number added to the logits of some classes, the one that is best on validation.

  Args:
    logits: images as stored -> logits.
    classes: whose logits are shifted.
    validation: split with all classes.
    test: split.
  Returns:
    'corrected/test/accuracy' and 'corrected/offset'.
  Source: Hinton et al. 2015, arXiv:1503.02531, section 3, which chooses the offset on the test set.
  """
  if not len(validation):
    raise specs.SpecError(f'correct_bias={tuple(classes)}: the offset is chosen on validation; set data.validation.')

  def outputs(source: Any) -> tuple[np.ndarray, np.ndarray]:
    images, labels = source.arrays()
    parts = [np.asarray(logits(images[start:start + BATCH])) for start in range(0, len(images), BATCH)]
    return np.concatenate(parts), labels

  def right(outputs: np.ndarray, labels: np.ndarray, offset: float) -> float:
    shifted = outputs.copy()
    shifted[:, list(classes)] += offset
    return float(np.mean(shifted.argmax(-1) == labels))

  held = outputs(validation)
  offset = float(max(np.arange(-20.0, 20.0, 0.1), key=lambda each: right(*held, each)))
  return {'corrected/test/accuracy': right(*outputs(test), offset), 'corrected/offset': round(offset, 1)}


def _peer(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Callable[..., Any]]:
  """A second student of the same network, for `learners.peer`."""

  def initialize(key: Array) -> Any:
    return model.init(key, jnp.zeros((1, *shape), jnp.float32), train=False)

  def forward(variables: Any, images: Array, key: Array) -> Any:
    return model.apply(variables, images, train=True, mutable=[name for name in variables if name != 'params'],
                       rngs={'dropout': key})

  return {'initialize': initialize, 'forward': forward}


def _captured(model: nn.Module, shape: tuple[int, ...]) -> tuple[Any, Mapping[str, Any]]:
  """Shapes of a network's output and of what all of its modules give, for one image."""

  def forward(key: Array, images: Array) -> Any:
    variables = model.init(key, images, train=False)
    return model.apply(variables, images, train=False, mutable=['intermediates'],
                       capture_intermediates=lambda module, method: method == '__call__')

  output, mutated = jax.eval_shape(forward, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
  return output, mutated['intermediates']
