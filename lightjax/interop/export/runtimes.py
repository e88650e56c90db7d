"""Runs an exported file in onnxruntime or LiteRT: a program of its own, which knows neither JAX nor lightjax.

    python runtimes.py onnx FOLDER       reads model, inputs.npy and settings.json, writes outputs.npy and times.json
"""
from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def onnx(path: str, threads: int) -> tuple[Run, tuple[int, ...]]:
  """A file in onnxruntime, on CPU.

  Args:
    path: the file.
    threads: that an operation may use.
  Returns:
    (inputs of the file's batch -> first output, shape of the input).
  """
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
  options.log_severity_level = 3
  session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
  (given,), outputs = session.get_inputs(), [each.name for each in session.get_outputs()]
  return lambda x: session.run(outputs[:1], {given.name: x})[0], tuple(given.shape)


def litert(path: str, threads: int) -> tuple[Run, tuple[int, ...]]:
  """A file in LiteRT, on CPU; see `onnx`."""
  from ai_edge_litert import interpreter

  loaded = interpreter.Interpreter(model_path=path, num_threads=threads)
  loaded.allocate_tensors()
  (given,), (output, *_) = loaded.get_input_details(), loaded.get_output_details()

  def run(x: np.ndarray) -> np.ndarray:
    if given['dtype'] == np.int8:  # codes go in
      scale, zero_point = given['quantization']
      x = np.clip(np.round(x / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    loaded.set_tensor(given['index'], x)
    loaded.invoke()
    return loaded.get_tensor(output['index'])

  return run, tuple(int(size) for size in given['shape'])


RUNTIMES: dict[str, Callable[[str, int], tuple[Run, tuple[int, ...]]]] = {'onnx': onnx, 'litert': litert}


def main(runtime: str, folder: pathlib.Path) -> None:
  """Run the program."""
  settings: dict[str, Any] = json.loads((folder / 'settings.json').read_text())
  run, shape = RUNTIMES[runtime](settings['model'], settings['threads'])
  inputs = np.load(folder / 'inputs.npy')
  batch = int(shape[0])
  outputs = [run(inputs[start:start + batch]) for start in range(0, len(inputs), batch)]
  times = []
  for _ in range(settings['rounds']):
    begun = time.perf_counter()
    run(inputs[:batch])
    times.append(1e3 * (time.perf_counter() - begun))
  np.save(folder / 'outputs.npy', np.concatenate(outputs))
  (folder / 'times.json').write_text(json.dumps(times))


if __name__ == '__main__':
  main(sys.argv[1], pathlib.Path(sys.argv[2]))
