"""Turns a file of weights (torchvision, timm, lukemelas, Keras) into an artifact of the network.

The folder gets an artifact.ljx, as a finished run has one: the network by name and arguments, and its variables.
A config starts from it with `start.weights`.

COMMAND: python -m experiments.import_weights --model=mobilenet_v2 --weights=mobilenet_v2-b0353104.pth --workdir=DIR

Arguments of the network's constructor: --argument=padding=SAME --argument=epsilon=1e-3
"""
from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments import commands, configuration
from experiments.starting import FILE
from lightjax import artifact, interop
from lightjax.core import specs


def write(
  folder: pathlib.Path, weights: str | os.PathLike[str], model: str, *, layout: str = '', entry: str = '',
  arguments: Mapping[str, Any] | None = None,
) -> artifact.Sizes:
  """Convert a file of weights.

  Args:
    folder: to write into; made where it does not exist.
    weights: the file.
    model: name of a network of lightjax.models, or of timm's 'tf_...'; see `interop.reference`.
    layout: see `interop.from_torch`.
    entry: see `interop.read_weights`.
    arguments: of the network's constructor.
  Returns:
    The bytes of the artifact.
  Raises:
    WeightsError: the file cannot be read, or does not fit the network.
    ValueError: unknown network or argument.
    OSError: the file or the folder cannot be used.
  """
  tensors = interop.read_weights(weights, entry=entry)
  model, implied = interop.reference(model, tensors, layout=layout)
  arguments = implied | dict(arguments or {})
  _, variables = interop.from_torch(model, tensors, layout=layout, **arguments)
  folder.mkdir(parents=True, exist_ok=True)
  source = pathlib.Path(weights)
  return artifact.save(
    folder / FILE, network={'model': {'name': model, **arguments}, 'precision': 'float32'}, variables=variables,
    meta={'file': source.name, 'sha256': hashlib.sha256(source.read_bytes()).hexdigest()})


def arguments(pairs: Sequence[str]) -> dict[str, Any]:
  """Arguments from 'name=value'.

  Example:
    >>> arguments(['padding=SAME', 'epsilon=1e-3'])
    {'padding': 'SAME', 'epsilon': 0.001}
  """
  found = {}
  for pair in pairs:
    name, equals, value = pair.partition('=')
    if not equals:
      raise specs.SpecError(f'argument {pair!r} is not of the form name=value.')
    found[name] = configuration.parse_value(value)
  return found


def main() -> int:
  """Run the command."""
  given = flags.FLAGS
  folder, weights, model = pathlib.Path(given.workdir), str(given.weights), str(given.model)
  try:
    sizes = write(
      folder, weights, model, layout=given.layout, entry=given.entry, arguments=arguments(given.argument))
  except (ValueError, ModuleNotFoundError) as error:
    raise specs.SpecError(str(error)) from error
  print(f'written: {folder / FILE}, {sizes.total:,} bytes')
  return 0


if __name__ == '__main__':
  flags.DEFINE_string('model', None, "Name of a network of lightjax.models, or of timm's 'tf_...'.")
  flags.DEFINE_string('weights', None, 'File: .safetensors, .h5, .npz, .pth or .pt.')
  flags.DEFINE_string('layout', '', "How the file calls its tensors, see lightjax.interop.layouts; '': found.")
  flags.DEFINE_string('entry', '', 'The mapping to take, where the file holds several.')
  flags.DEFINE_multi_string('argument', [], "An argument of the network's constructor: name=value.")
  flags.DEFINE_string('workdir', None, 'Folder to write into.')
  flags.mark_flags_as_required(['model', 'weights', 'workdir'])
  commands.launch(main)
