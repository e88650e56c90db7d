"""Lists which network exports in which format, or the operation and the module that stop it: one network a family.

Weights are drawn. Each file is written, reloaded and compared as experiments.export does it, and thrown away. int8 is
calibrated on noise.

COMMAND: python -m experiments.export_zoo [--models='mobilenet.*'] [--output=experiments/results/export_zoo]
"""
from __future__ import annotations

import json
import pathlib
import re
import tempfile
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import commands
from experiments.engine.rows import write_text
from lightjax import models
from lightjax.core import specs
from lightjax.interop import export
from lightjax.quantize import lowering, simulation
from lightjax.train import devices

# One network a family, on small images of which its poolings leave something.
FAMILIES = {
  'alexnet': 96, 'binary_mlp': 28, 'vgg_small': 32, 'bi_real_resnet18': 64, 'conv2': 32, 'convnext_atto': 64,
  'densenet40': 32, 'efficientnet_b0': 64, 'efficientnet_lite0': 64, 'fbnetc_100': 64, 'ghostnet_050': 64,
  'googlenet': 64, 'inception_v3': 96, 'lenet5': 28, 'lenet300': 28, 'mnasnet0_5': 64, 'mobilenet_v2': 64,
  'mobilenet_v3_small': 64, 'mobilenetv1_100': 64, 'mobileone_s0': 64, 'preact_resnet20': 32, 'regnetx_004': 64,
  'regnety_002': 64, 'repvgg_a0': 64, 'resnet18': 64, 'resnet20': 32, 'resnext50_32x4d': 64, 'shufflenet_v1': 64,
  'shufflenet_v2_x0_5': 64, 'squeezenet1_1': 64, 'vgg8_cifar': 32, 'vgg11_bn': 64, 'wrn_16_1': 32, 'xception': 96}


def exported(name: str, size: int, kinds: list[str]) -> dict[str, Any]:
  """A network in all formats.

  Args:
    name: of the network.
    size: height and width of its images, pixels.
    kinds: formats, those in integers with ' int8'.
  Returns:
    Kind to 'yes', or what stops it.
  """
  model = models.create(name)
  images = np.random.default_rng(0).standard_normal((4, size, size, 1 if size == 28 else 3), np.float32)
  variables = jax.jit(lambda key: model.init(key, images[:1], train=False))(jax.random.key(0, impl='rbg'))

  def apply(variables: Any, x: Any) -> Any:
    return model.apply(variables, x, train=False)

  row: dict[str, Any] = {'network': name, 'size': size}
  quantized = None
  with tempfile.TemporaryDirectory() as folder:
    for kind in kinds:
      format, _, is_int8 = kind.partition(' ')
      path = pathlib.Path(folder) / f'network{export.FORMATS[format]}'
      try:
        if is_int8:
          if quantized is None:
            network = lowering.lower(apply, variables, images)
            quantized = simulation.quantize(network, simulation.calibrate(network, *np.split(images, len(images))))
          export.save_integers(path, quantized, images, format=format)
        else:
          export.save(path, apply, variables, images, format=format)
        row[kind] = 'yes'
      except export.ExportError as error:
        row[kind] = str(error)
  return row


def markdown(rows: list[dict[str, Any]], kinds: list[str]) -> str:
  """The rows as a table, what stops a network in notes below it."""
  notes: list[str] = []

  def cell(value: str) -> str:
    if value == 'yes':
      return 'yes'
    notes.append(value)
    return f'no ({len(notes)})'

  lines = ['# Networks in other formats', '', 'Written by `python -m experiments.export_zoo`; float unless int8.', '',
           f'| network | {" | ".join(kinds)} |', f'|---|{"---|" * len(kinds)}']
  lines += [f'| {row["network"]}, {row["size"]} | {" | ".join(cell(row[kind]) for kind in kinds)} |' for row in rows]
  return '\n'.join([*lines, '', *(f'{i}. {note}' for i, note in enumerate(notes, 1))]) + '\n'


def main() -> int:
  """Run the command."""
  given = flags.FLAGS
  kinds = [kind for kind in ('stablehlo', 'onnx', 'litert', 'onnx int8', 'litert int8') if re.fullmatch(
    given.kinds, kind)]
  for kind in kinds:
    if problem := export.missing(kind.partition(' ')[0]):
      raise specs.SpecError(problem)
  devices.configure()
  rows = []
  for name, size in FAMILIES.items():
    if re.fullmatch(given.models, name):
      rows.append(exported(name, size, kinds))
      print('  '.join(f'{key}: {value}' for key, value in rows[-1].items()), flush=True)
      jax.clear_caches()
  if given.output:
    folder = pathlib.Path(given.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / 'table.md', markdown(rows, kinds))
    write_text(folder / 'result.json', json.dumps({'rows': rows, 'versions': devices.versions()}, indent=1) + '\n')
  return 0


if __name__ == '__main__':
  flags.DEFINE_string('models', '.*', 'Regular expression: only families whose network it matches.')
  flags.DEFINE_string('kinds', '.*', "Regular expression: only formats that it matches, such as 'onnx.*'.")
  flags.DEFINE_string('output', None, 'Folder of the results; none are written without it.')
  commands.launch(main)
