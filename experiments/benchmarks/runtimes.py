"""Networks as files in JAX, onnxruntime and LiteRT: whole, half of the multiply-adds removed, int8, both, side by side.

Each form is exported and checked, then all files of a network take turns in one process, batch 1, once with each number
of threads; the process is held on as many cores, which is how JAX (the StableHLO file) gets its number of threads.
Channels go by the L1 norm, statistics are estimated again; int8 is calibrated after training. What is printed of int8
is on how many of the held images the first choice is that of our integers.

With --sparsity=0.9 also the network with that part of its weights set to zero: what a runtime makes of it.

Example:
  python -m experiments.benchmarks.runtimes --networks=resnet8:32,mobilenet_v2:224 --threads=1,2
  python -m experiments.benchmarks.runtimes --checkpoints=weights/v2 --images=photographs
"""
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import commands, quantize
from experiments import export as exporting
from experiments.benchmarks import steps
from lightjax import graph, measure, models
from lightjax.core import specs, trees
from lightjax.core.typing import Variables
from lightjax.interop import export
from lightjax.interop.export import runtimes
from lightjax.prune import channel_scores, costs, importance, selection, statistics, surgery
from lightjax.quantize import lowering
from lightjax.train import devices

MULTIPLE = 8  # of channels that are left


class Form(NamedTuple):
  """A network in one of its forms, in float.

  Attributes:
    apply: (variables, images) -> logits.
    variables: arrays.
  """
  apply: Callable[..., Any]
  variables: Variables


def fresh(name: str, size: int) -> tuple[Form, np.ndarray]:
  """A network with new weights, and noise."""
  model = models.create(name)
  images = np.random.default_rng(0).standard_normal((16, size, size, 3), np.float32)
  variables = jax.jit(lambda key: model.init(key, images[:1], train=False))(jax.random.key(0, impl='rbg'))
  return Form(lambda variables, x, **call: model.apply(variables, x, **{'train': False, **call}), variables), images


def halved(whole: Form, images: Any) -> Form:
  """What is left of a network at half of its multiply-adds."""
  coupling = graph.channels(whole.apply, whole.variables, images[:1])
  kept = selection.choose(
    coupling, channel_scores.scores(coupling, whole.variables, importance.l1),
    costs.macs(coupling, whole.apply, whole.variables, images[:1]), ratio=0.5, multiple=MULTIPLE)
  smaller = surgery.remove(whole.apply, coupling, whole.variables, kept)
  if 'batch_stats' not in smaller.variables:
    return Form(smaller.apply, smaller.variables)
  seen = statistics.reestimate(lambda variables, x: smaller.apply(
    variables, x, train=True, mutable=['batch_stats'])[1]['batch_stats'], smaller.variables, [images])
  return Form(smaller.apply, seen)


def sparse(whole: Form, ratio: float) -> Form:
  """A network with the smallest weights of each kernel set to zero."""

  def cut(path: Any, leaf: Any) -> Any:
    if not trees.join(path).endswith('kernel'):
      return leaf
    weights = np.array(leaf)
    weights[np.abs(weights) < np.quantile(np.abs(weights), ratio)] = 0
    return weights

  return Form(whole.apply, jax.tree_util.tree_map_with_path(cut, whole.variables))


def written(
  folder: pathlib.Path, whole: Form, images: Any, held: np.ndarray, sparsity: float,
) -> Iterator[dict[str, Any]]:
  """Export every form in every format.

  Yields:
    A row a file: form, format, path, bytes, how near it is, on how many images it chooses as the whole network.
  """
  half = halved(whole, images)
  forms = {'whole': (whole, False), 'half': (half, False), 'int8': (whole, True), 'half, int8': (half, True)}
  if sparsity:
    forms[f'{sparsity:.0%} zeros'] = (sparse(whole, sparsity), False)
  np.save(folder / 'held.npy', held)
  choices = np.asarray(jax.jit(whole.apply)(whole.variables, held)).argmax(-1)
  for form, (network, is_int8) in forms.items():
    quantized = None
    if is_int8:
      lowered = lowering.lower(network.apply, network.variables, held)
      quantized = quantize.post_training(lowered, images, method=('equalize', 'correct'))[1]
    for format, suffix in export.FORMATS.items():
      path = folder / f'{form.replace(", ", "_").replace(" ", "_").replace("%", "")}{suffix}'
      if quantized is None:
        report = export.save(path, network.apply, network.variables, held, format=format)
      else:
        report = export.save_integers(path, quantized, held, format=format)
      yield {'form': form, 'format': format, 'path': str(path), 'bytes': report.size_bytes, 'images': len(held),
             'as ours': report.same, 'steps': round(report.steps, 4),
             'as whole': _same(format, path, held, choices)}


def _same(format: str, path: pathlib.Path, held: np.ndarray, choices: np.ndarray) -> int:
  """On how many images a file chooses as the whole network in JAX does."""
  call = opened(format, path, 1)
  return sum(int(np.asarray(call(held[i:i + 1])).argmax()) == int(choices[i]) for i in range(len(held)))


def opened(format: str, path: pathlib.Path, threads: int) -> Callable[[np.ndarray], Any]:
  """A file as a function of one image."""
  if format == 'stablehlo':
    loaded = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    return lambda x: loaded(x)
  return runtimes.RUNTIMES[format](str(path), threads)[0]


def timed(folder: pathlib.Path, threads: int, rounds: int) -> dict[str, float]:
  """Milliseconds of every file of a folder, in a process of its own on so many cores."""
  command = [sys.executable, '-m', 'experiments.benchmarks.runtimes', f'--files={folder}', f'--threads={threads}',
             f'--rounds={rounds}']
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(each for each in sys.path if each)}
  done = subprocess.run(command, capture_output=True, text=True, env=environment)
  if done.returncode:
    raise OSError(f'timing with {threads} threads failed: {done.stderr.strip()[-500:]}')
  return json.loads(done.stdout.splitlines()[-1])


def time_files(folder: pathlib.Path, threads: int, rounds: int) -> dict[str, float]:
  """The same, in this process; medians."""
  os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
  image = np.load(folder / 'held.npy')[:1]
  calls = {}
  for format, suffix in export.FORMATS.items():
    for path in sorted(folder.glob(f'*{suffix}')):
      call = opened(format, path, threads)
      calls[path.name] = lambda call=call: call(image)
  return {name: round(seen.median_ms, 4) for name, seen in measure.side_by_side(calls, rounds=rounds).items()}


def compared(name: str, whole: Form, images: Any, held: np.ndarray, given: Any) -> list[dict[str, Any]]:
  """The rows of a network."""
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    rows = [{'network': name, **row} for row in written(folder, whole, images, held, given.sparsity)]
    for threads in map(int, given.threads):
      times = timed(folder, threads, given.rounds)
      for row in rows:
        row[f'ms, {threads} threads'] = times[pathlib.Path(row['path']).name]
  for row in rows:
    del row['path']
  return rows


def main() -> int:
  """Run the command."""
  given = flags.FLAGS
  if given.files:
    print(json.dumps(time_files(pathlib.Path(given.files), int(given.threads[0]), given.rounds)))
    return 0
  for format in export.FORMATS:
    if problem := export.missing(format):
      raise specs.SpecError(problem)
  devices.configure()
  networks: list[tuple[str, Form, np.ndarray, np.ndarray]] = []
  for text in given.networks:
    name, colon, size = text.partition(':')
    if not colon or not size.isdigit():
      raise specs.SpecError(f"--networks: {text!r} is not of the form 'name:pixels'.")
    whole, images = fresh(name, int(size))
    networks.append((text, whole, images, images))
  for checkpoint in given.checkpoints:
    source = exporting.read(pathlib.Path(checkpoint), images=pathlib.Path(given.images) if given.images else None)
    if source.quantized is not None:
      raise specs.SpecError(f'--checkpoints={checkpoint}: it is in integers already; give the float network.')
    networks.append((source.name, Form(source.rounded, source.variables), source.calibration, source.held))
  rows = []
  for name, whole, images, held in networks:
    for row in compared(name, whole, jnp.asarray(images), held, given):
      rows.append(row)
      times = '  '.join(f'{row[f"ms, {threads} threads"]:8.2f}' for threads in given.threads)
      print(f'{row["network"]:20} {row["form"]:12} {row["format"]:9} {row["bytes"]:12,} bytes  as ours '
            f'{row["as ours"]}/{row["images"]}  as whole {row["as whole"]}/{row["images"]}  ms {times}', flush=True)
  if given.output:
    steps.write(given.output, rows)
  return 0


if __name__ == '__main__':
  flags.DEFINE_list('networks', [], 'name:pixels of networks with new weights.')
  flags.DEFINE_list('checkpoints', [], 'Folders with artifacts.')
  flags.DEFINE_string('images', None, 'Folder of photographs for the checkpoints; noise without it.')
  flags.DEFINE_list('threads', ['1', '2'], 'Numbers of threads.')
  flags.DEFINE_integer('rounds', 50, 'Rounds in which each file is timed once.')
  flags.DEFINE_float('sparsity', 0.0, 'Also the whole network with this part of its weights zero; 0 for not.')
  flags.DEFINE_string('output', None, 'JSON file to write the figures to.')
  flags.DEFINE_string('files', None, 'Folder of exported files to time and nothing else; what the command starts.')
  commands.launch(main)
