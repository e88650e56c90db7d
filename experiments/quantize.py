"""Quantizes trained weights without labels: folding, equalization, calibration, bias correction, AdaRound.

Weights are a folder of `experiments.import_weights` or of a finished run, or a file of weights with the network's name.
Images are a folder of photographs like those that the network will see; a few dozen do. The first of them calibrate,
those after them compare the quantized network with the float one. The folder of the result gets an artifact.ljx, from
which `experiments.quantize.load` makes the network in integers, and report.json.

What is printed has a line a layer: bits of a weight, the ends of its result's range, the signal to quantization noise
of its weights, of its result with the errors of all layers before it, and, with --sensitivity, of the logits where that
layer alone is quantized; then how often the first choice is the float network's, simulated and in integers.

COMMAND: python -m experiments.quantize --weights=weights/v2 --images=photographs --workdir=runs/int8

  --model=mobilenet_v2 --weights=mobilenet_v2-b0353104.pth    a file of weights
  --method=equalize,absorb,adaround,correct                   all that there is; equalize,correct without it
  --weight_bits=4 --weight_rules='stem/.*=8'                  bits of a weight, and of some layers
"""
from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image, UnidentifiedImageError

from experiments import commands, import_weights, starting, unit
from lightjax import artifact, interop, models
from lightjax.core import rngs, specs
from lightjax.interop import preprocessing
from lightjax.quantize import bias, equalization, integer, lowering, program, report, rounding, simulation, storage
from lightjax.train import devices

METHODS = ('equalize', 'absorb', 'adaround', 'correct')
SUFFIXES = ('.jpg', '.jpeg', '.png')


def post_training(
  network: program.Network, images: np.ndarray, *, method: Sequence[str], weight_bits: Any = 8,
  activation_bits: int = 8, per_channel: bool = True, steps: int = 1000, seed: int = 0,
) -> tuple[program.Network, simulation.Quantized]:
  """A float network, quantized.

  Args:
    network: from `lowering.lower`.
    images: calibration inputs, [images, height, width, channels].
    method: of `METHODS`, in any order; they are carried out in that of `METHODS`.
    weight_bits: see `simulation.quantize`.
    activation_bits: 2..8.
    per_channel: a step for each output channel, or one a kernel.
    steps: of AdaRound, a layer.
    seed: of AdaRound.
  Returns:
    (the equalized float network, the quantized one).
  Raises:
    SpecError: an unknown method.
  """
  for name in method:
    if name not in METHODS:
      raise specs.SpecError(f'method: {name!r} is none of {", ".join(METHODS)}.')
  batches = np.array_split(images, len(images))
  if 'equalize' in method:
    network = equalization.equalize(network)
  if 'absorb' in method:
    network = equalization.absorb(network, *batches)
  quantized = simulation.quantize(
    network, simulation.calibrate(network, *batches), weight_bits=weight_bits, activation_bits=activation_bits,
    per_channel=per_channel)
  if 'adaround' in method:
    quantized = rounding.adaround(network, quantized, images, key=rngs.root(seed), steps=steps)
  if 'correct' in method:
    quantized = bias.correct(network, quantized, images)
  return network, quantized


def lowered(model: dict[str, Any], variables: Any) -> program.Network:
  """The program of a network by name, at the size of its preprocessing.

  Args:
    model: name and arguments, as in `config.model`.
    variables: its variables; None: zeros, for parameters that come from elsewhere.
  Returns:
    Program and parameters.
  """
  arguments = dict(model)
  network = models.create(arguments.pop('name'), **arguments)
  size = preprocessing.of(model['name']).size
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  if variables is None:
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(image.shape)))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  return lowering.lower(lambda variables, x: network.apply(variables, x, train=False), variables, image)


def save(folder: pathlib.Path, model: dict[str, Any], quantized: simulation.Quantized) -> artifact.Sizes:
  """Write the artifact of a quantized network.

  Args:
    folder: to write into.
    model: name and arguments of the network.
    quantized: what becomes of it.
  Returns:
    The bytes of the file.
  """
  folder.mkdir(parents=True, exist_ok=True)
  return artifact.save(
    folder / starting.FILE, network={'model': model, 'form': 'quantized program'}, **storage.stored(quantized))


def load(folder: pathlib.Path) -> simulation.Quantized:
  """The quantized network of a folder; `integer.convert` makes it run in integers.

  Args:
    folder: that `save` wrote.
  Returns:
    The quantized network.
  Raises:
    ArtifactError: the file is damaged.
    SpecError: it holds something else.
  """
  found = artifact.load(folder / starting.FILE)
  if found.network.get('form') != 'quantized program':
    raise specs.SpecError(f'{folder}: its artifact is no network that experiments.quantize wrote.')
  return storage.restored(lowered(found.network['model'], None), found.variables, found.encoded)


def images(folder: pathlib.Path, how: preprocessing.Preprocessing, count: int) -> np.ndarray:
  """The first photographs of a folder, by name, as inputs.

  Args:
    folder: with .jpg, .jpeg or .png files, at any depth.
    how: the preprocessing of the network.
    count: how many at most.
  Returns:
    [images, height, width, 3].
  Raises:
    SpecError: there is none, or one cannot be read.
  """
  paths = [path for path in sorted(folder.rglob('*')) if path.suffix.lower() in SUFFIXES][:count]
  if not paths:
    raise specs.SpecError(f'--images={folder}: no file there ends in {", ".join(SUFFIXES)}.')
  found = []
  for path in paths:
    try:
      with Image.open(path) as image:
        found.append(interop.prepare(image, how))
    except UnidentifiedImageError as error:
      raise specs.SpecError(f'{path} is no image that can be read.') from error
  return np.stack(found)


def read(weights: pathlib.Path, model: str | None) -> starting.Imported:
  """The weights to quantize: a folder with an artifact, or a file and the network's name."""
  if weights.is_dir():
    found = starting.read(weights)
    if model is not None and model != found.model['name']:
      raise specs.SpecError(f'--model={model}: the weights of {weights} are of {found.model["name"]}.')
    return found
  if model is None:
    raise specs.SpecError(f'--weights={weights} is a file of weights: say --model=NAME of the network, too.')
  with tempfile.TemporaryDirectory() as folder:
    import_weights.write(pathlib.Path(folder), weights, model)
    return starting.read(pathlib.Path(folder))


def compare(
  original: program.Network, quantized: simulation.Quantized, in_integers: integer.IntegerNetwork, inputs: np.ndarray,
) -> dict[str, Any]:
  """How near a quantized network is to the float one.

  Args:
    original: in float.
    quantized: what became of it.
    in_integers: the same, converted.
    inputs: to compare on, [images, height, width, channels].
  Returns:
    For 'simulated' and 'in integers' `same`, on how many inputs the first choice is the float network's, and
    `sqnr_db` of the logits; `images`.
  """
  exact, simulated, integers = (np.asarray(jax.jit(function)(inputs)) for function in (
    lambda x: program.run(original, x), lambda x: simulation.simulate(quantized, x), in_integers.apply))
  return {'images': len(inputs)} | {
    name: {'same': int((exact.argmax(-1) == logits.argmax(-1)).sum()), 'sqnr_db': report.sqnr_db(exact, logits)}
    for name, logits in (('simulated', simulated), ('in integers', integers))}


def main() -> int:
  """Run the command."""
  given = flags.FLAGS
  devices.configure()
  folder = pathlib.Path(given.workdir)
  found = read(pathlib.Path(given.weights), given.model)
  every = images(pathlib.Path(given.images), preprocessing.of(found.model['name']), given.count + given.compare)
  inputs, others = every[:given.count], every[given.count:]
  rules = [rule(text) for text in given.weight_rules] + [('.*', given.weight_bits)]
  original = lowered(found.model, found.variables)
  try:
    network, quantized = post_training(
      original, inputs, method=given.method, weight_bits=rules, activation_bits=given.activation_bits,
      per_channel=given.per_channel, steps=given.steps)
  except ValueError as error:
    raise specs.SpecError(str(error)) from error
  lines = report.by_layer(network, quantized, inputs)
  if given.sensitivity:
    alone = report.sensitivity(network, quantized, inputs[:8])
    lines = tuple(line._replace(alone_sqnr_db=alone[line.layer]) for line in lines)
  in_integers = integer.convert(quantized)
  compared = compare(original, quantized, in_integers, others if len(others) else inputs)
  sizes = save(folder, found.model, quantized)
  numbers = {'float_bytes': integer.memory_bytes(original), 'integer_bytes': in_integers.size_bytes,
             'file_bytes': sizes.total}
  unit.write(folder / 'report.json', json.dumps(
    {'model': found.model, 'method': list(given.method), 'calibrated_on': len(inputs),
     'compared_on_others': bool(len(others)), **compared, **numbers, 'layers': [line._asdict() for line in lines],
     'floats': in_integers.floats}, indent=1))

  which = 'others' if len(others) else 'of the same, as there are no others'
  print(f'{found.model["name"]}: {", ".join(given.method) or "rounded to nearest"}; calibrated on {len(inputs)} '
        f'photographs, compared on {compared["images"]} {which}\n')
  print(report.table(lines))
  print(f'\n{"":11}  same first choice  logits, dB')
  for name in ('simulated', 'in integers'):
    same = f'{compared[name]["same"]} of {compared["images"]}'
    print(f'{name:11}  {same:>17}  {compared[name]["sqnr_db"]:10.1f}')
  print(f'\noperations in integers: {len(quantized.network.program.nodes) - len(in_integers.floats)} of '
        f'{len(quantized.network.program.nodes)}')
  for name, why in in_integers.floats.items():
    print(f'  in float: {name} ({why})')
  print(f'parameters in memory: {numbers["integer_bytes"]:,} bytes, {numbers["float_bytes"]:,} in float')
  print(f'written: {folder}/ {starting.FILE} ({sizes.total:,} bytes), report.json')
  return 0


def rule(text: str) -> tuple[str, int | None]:
  """A rule for layers, from 'pattern=bits' or 'pattern=float'.

  Example:
    >>> rule('stem/.*=8')
    ('stem/.*', 8)
  """
  pattern, equals, bits = text.rpartition('=')
  if not equals or not (bits.isdigit() or bits == 'float'):
    raise specs.SpecError(f"--weight_rules: {text!r} is not of the form 'pattern=bits' or 'pattern=float'.")
  return pattern, None if bits == 'float' else int(bits)


if __name__ == '__main__':
  flags.DEFINE_string('model', None, 'Name of the network, where the weights are a file.')
  flags.DEFINE_string('weights', None, 'Folder with an artifact, or a file of weights.')
  flags.DEFINE_string('images', None, 'Folder of photographs to calibrate with.')
  flags.DEFINE_string('workdir', None, 'Folder to write into.')
  flags.DEFINE_list('method', ['equalize', 'correct'], f'Of {", ".join(METHODS)}.')
  flags.DEFINE_integer('count', 32, 'Photographs to calibrate with, at most; the first by name.')
  flags.DEFINE_integer('compare', 32, 'Photographs after them to compare on, at most.')
  flags.DEFINE_integer('weight_bits', 8, '2..8 a weight.')
  flags.DEFINE_list('weight_rules', [], "'pattern=bits' or 'pattern=float' for layers by name; the first that matches.")
  flags.DEFINE_integer('activation_bits', 8, '2..8 an activation.')
  flags.DEFINE_bool('per_channel', True, 'A step for each output channel, or one a kernel.')
  flags.DEFINE_integer('steps', 1000, 'Of AdaRound, a layer.')
  flags.DEFINE_bool('sensitivity', False, 'Also what the outputs suffer from each layer alone.')
  flags.mark_flags_as_required(['weights', 'images', 'workdir'])
  commands.launch(main)
