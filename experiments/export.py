"""Writes a network for other runtimes: StableHLO, ONNX or LiteRT, in float or in integers, checked as it is written.

A checkpoint is the folder of a finished run (pruned, smaller, quantized, shared, binarized or none of these), of
`experiments.import_weights` or of `experiments.quantize`; the network of its artifact is what is written. The file is
reloaded and compared with it on held images: the run's test images, the photographs of --images, or noise. A file that
computes something else is an error and is removed.

With --int8 the codes and ranges go out that training or `experiments.quantize` found. What those left in float is
calibrated on the first half of the images (of a run: on training images), and a network without any is quantized so.

COMMAND: python -m experiments.export --checkpoint=runs/one --format=onnx --int8 --output=network.onnx

  --checkpoint=weights/v2 --images=photographs --image=192,192,3    another size than that of the preprocessing
"""
from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from experiments import building, commands, quantize, starting
from experiments.reshaping import Surgery
from lightjax import artifact, binarize, data, models
from lightjax import quantize as quantization
from lightjax.core import specs
from lightjax.core.encoded import Encoded
from lightjax.core.typing import Variables
from lightjax.interop import export, preprocessing
from lightjax.quantize import lowering, simulation, trained
from lightjax.train import devices

CALIBRATED, COMPARED, NOISE = 64, 256, 32


class Source(NamedTuple):
  """A stored network and images for it.

  Attributes:
    name: of the network.
    apply: (variables, images) -> logits in evaluation mode, with binary inputs but without the rounding of others.
    rounded: the same with that rounding.
    variables: of the artifact.
    encoded: integers and ranges that were stored.
    calibration: images, [images, h, w, c].
    held: others, to compare on.
    quantized: what `experiments.quantize` stored; None for any other.
  """
  name: str
  apply: Callable[..., Any]
  rounded: Callable[..., Any]
  variables: Variables
  encoded: Encoded
  calibration: np.ndarray
  held: np.ndarray
  quantized: simulation.Quantized | None = None


def read(checkpoint: pathlib.Path, *, images: pathlib.Path | None = None, image: tuple[int, ...] = ()) -> Source:
  """The network of a folder.

  Args:
    checkpoint: folder with an artifact.ljx, or the artifact.
    images: folder of photographs; None: the images of the run, or noise.
    image: height, width and channels; (): those of the run, or of the network's preprocessing.
  Returns:
    The network and its images.
  Raises:
    ArtifactError: the file is damaged.
    SpecError: there is none, or its network is not known.
  """
  folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
  path = folder / starting.FILE if checkpoint.is_dir() else checkpoint
  if not path.is_file():
    raise specs.SpecError(f'--checkpoint={checkpoint}: no {starting.FILE} there; a finished run has one.')
  stored = artifact.load(path)
  fields = dict(stored.network['model'])
  name = fields.pop('name')
  model = specs.call(specs.resolve(name, models, field='model.name'), fields, field='model')
  surgery = Surgery.from_json(stored.network.get('surgery', []))
  calibration, held = _images(folder, name, images, image)
  inputs = stored.encoded.activations
  if stored.network.get('form') == 'quantized program':
    quantized = quantize.load(folder)
    return Source(name, model.apply, model.apply, {}, stored.encoded, calibration, held, quantized)
  binary = binarize.binary_modules(inputs)
  ranges = {module: calls for module, calls in inputs.items() if module not in binary}
  whole = surgery.apply(model.apply)

  def apply(variables: Variables, x: Any) -> Any:
    with nn.intercept_methods(binarize.frozen_interceptor(inputs)):
      return whole(variables, x, train=False)

  def rounded(variables: Variables, x: Any) -> Any:
    with nn.intercept_methods(quantization.frozen_interceptor(ranges)):
      return apply(variables, x)

  return Source(name, apply, rounded, stored.variables, stored.encoded, calibration, held)


def in_integers(source: Source) -> simulation.Quantized:
  """A stored network as a quantized one, with the codes and ranges of its training where it has any.

  Args:
    source: from `read`.
  Returns:
    The quantized network.
  Raises:
    SpecError: what was stored has no place in integers.
  """
  if source.quantized is not None:
    return source.quantized
  given = jax.ShapeDtypeStruct((1, *source.calibration.shape[1:]), jnp.float32)
  network = lowering.lower(source.apply, source.variables, given)
  if not source.encoded.parameters:
    return quantize.post_training(network, source.calibration, method=('equalize', 'correct'))[1]
  ranges = simulation.calibrate(network, *np.array_split(source.calibration, len(source.calibration)))
  try:
    return trained.assemble(network, source.encoded, ranges)
  except ValueError as error:
    raise specs.SpecError(str(error)) from error


def _images(
  folder: pathlib.Path, name: str, images: pathlib.Path | None, image: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
  """Images to calibrate with and others to compare on."""
  how = preprocessing.of(name)
  if images is not None:
    if image:
      how = dataclasses.replace(how, size=image[0], resize=round(how.resize * image[0] / how.size))
    found = quantize.images(images, how, CALIBRATED + COMPARED)
    half = max(1, len(found) // 2)
    return found[:half][:CALIBRATED], found[half:] if len(found) > 1 else found
  if (folder / 'config.json').is_file():
    splits = building.read_splits(_config(folder))
    return tuple(
      np.asarray(data.normalize(
        jnp.asarray(split.take(np.arange(min(count, len(split))))[0]), mean=splits.info.mean, std=splits.info.std))
      for split, count in ((splits.train, CALIBRATED), (splits.test, COMPARED)))  # type: ignore[return-value]
  shape = image or (how.size, how.size, 3)
  noise = np.random.default_rng(0).standard_normal((NOISE, *shape), np.float32)
  return noise[:NOISE // 2], noise[NOISE // 2:]


def _config(folder: pathlib.Path) -> ml_collections.ConfigDict:
  """The config of a run, as it was written."""

  def tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {key: tuples(each) for key, each in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value

  try:
    return ml_collections.ConfigDict(tuples(json.loads((folder / 'config.json').read_text())['config'])).lock()
  except (ValueError, KeyError, TypeError) as error:
    raise OSError(f'{folder}/config.json is damaged ({error}); restore it, or name the artifact itself') from error


def main() -> int:
  """Run the command."""
  given = flags.FLAGS
  if problem := export.missing(given.format):
    raise specs.SpecError(problem)
  devices.configure()
  if not all(size.isdigit() for size in given.image) or len(given.image) not in (0, 3):
    raise specs.SpecError(f'--image={",".join(given.image)}: give height, width and channels, such as 32,32,3.')
  source = read(pathlib.Path(given.checkpoint), images=pathlib.Path(given.images) if given.images else None,
                image=tuple(map(int, given.image)))
  output = pathlib.Path(given.output or f'{source.name}{"_int8" * given.int8}{export.FORMATS[given.format]}')
  output.parent.mkdir(parents=True, exist_ok=True)
  try:
    if given.int8 or source.quantized is not None:
      report = export.save_integers(output, in_integers(source), source.held, format=given.format)
    else:
      report = export.save(
        output, source.rounded, source.variables, source.held, format=given.format,
        rounds=bool(source.encoded.activations))
  except export.ExportError as error:
    raise specs.SpecError(str(error)) from error
  print(text(report))
  return 0


def text(report: export.Report) -> str:
  """A report as two lines."""
  return (
    f'written: {report.path}, {report.size_bytes:,} bytes; {report.latency_ms:.2f} ms an image, '
    f'{report.jax_ms:.2f} ms in JAX\n'
    f'compared on {report.examples} images: the first choice is the same on {report.same}, outputs differ by at most '
    f'{report.difference:.2g}, by {report.steps:.2g} steps of 1/255 of their range in the mean')


if __name__ == '__main__':
  flags.DEFINE_string('checkpoint', None, 'Folder with an artifact, or the artifact.')
  flags.DEFINE_enum('format', None, sorted(export.FORMATS), 'Of the file.')
  flags.DEFINE_bool('int8', False, 'In integers.')
  flags.DEFINE_string('output', None, "The file; the network's name here without it.")
  flags.DEFINE_string('images', None, 'Folder of photographs to calibrate with and to compare on.')
  flags.DEFINE_list('image', [], 'Height, width and channels of an image, where no run or preprocessing says it.')
  flags.mark_flags_as_required(['checkpoint', 'format'])
  commands.launch(main)
