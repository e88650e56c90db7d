"""Converters and runtimes in processes of their own: what they load, and how they die, stays theirs."""
from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lightjax.interop.export.errors import ExportError

FOLDER = pathlib.Path(__file__).parent
NEEDED = {
  'onnx': ('onnx', 'onnxruntime'),
  'jax2onnx': ('jax2onnx',),
  'litert': ('litert_converter', 'ai_edge_litert')}


def missing(format: str) -> str:
  """What has to be installed for a format.

  Args:
    format: 'stablehlo', 'onnx' or 'litert'; 'jax2onnx' for operations that only it can write as ONNX.
  Returns:
    One sentence with the command; '' if nothing is missing.
  """
  absent = [name for name in NEEDED.get(format, ()) if importlib.util.find_spec(name) is None]
  if not absent:
    return ''
  return f"{format} needs {', '.join(absent)}: pip install 'lightjax[export]'"


def to_onnx(apply: Callable[..., Any], variables: Any, shape: tuple[int, ...], path: pathlib.Path) -> None:
  """Write a function of images as ONNX, by jax2onnx.

  Args:
    apply: `apply(variables, images)`.
    variables: arrays, which become constants of the file.
    shape: of the images, [b, h, w, c].
    path: of the file.
  Raises:
    ExportError: jax2onnx does not know an operation.
  """
  import cloudpickle

  job = cloudpickle.dumps((apply, jax.tree.map(np.asarray, variables), shape))
  with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / 'job').write_bytes(job)
    _run('onnx_converter.py', folder, str(path))


def to_litert(text: str, path: pathlib.Path) -> None:
  """Write a StableHLO module as a LiteRT file.

  Args:
    text: the module.
    path: of the file.
  Raises:
    ExportError: LiteRT's converter does not take it.
  """
  with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / 'module.mlir').write_text(text)
    _run('litert_converter.py', folder, str(path))


def run(
  format: str, path: pathlib.Path, inputs: np.ndarray, *, threads: int = 1, rounds: int = 20,
) -> tuple[np.ndarray, list[float]]:
  """A file's outputs, and times of a call.

  Args:
    format: 'onnx' or 'litert'.
    path: of the file.
    inputs: whole batches of the file.
    threads: that an operation may use.
    rounds: calls that are timed.
  Returns:
    (the first output, milliseconds of each call after the first).
  Raises:
    ExportError: the runtime does not run it.
  """
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    np.save(place / 'inputs.npy', inputs)
    (place / 'settings.json').write_text(json.dumps({'model': str(path), 'threads': threads, 'rounds': rounds}))
    _run('runtimes.py', format, folder)
    return np.load(place / 'outputs.npy'), json.loads((place / 'times.json').read_text())


def _run(script: str, *arguments: str) -> None:
  """One program of this folder, to its end."""
  # What the parent imports from, the child does; its own folder must not shadow packages such as onnx.
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(each for each in sys.path if each),
                 'JAX_PLATFORMS': 'cpu', 'PYTHONSAFEPATH': '1', 'TF_CPP_MIN_LOG_LEVEL': '3'}
  done = subprocess.run(
    [sys.executable, str(FOLDER / script), *arguments], env=environment, capture_output=True, text=True)
  if done.returncode:
    raise ExportError(f'{script.removesuffix(".py")}: {_reason(done.returncode, done.stderr.splitlines())}')


def _reason(code: int, lines: Sequence[str]) -> str:
  """The line that says what went wrong."""
  if code < 0:
    return f'it was ended by {signal.Signals(-code).name}; its last words: {" ".join(lines[-3:])[:500]}'
  said = [line for line in lines if line.strip()]
  return next((line for line in reversed(said) if 'Error' in line or 'error' in line), said[-1] if said else '')[:800]
