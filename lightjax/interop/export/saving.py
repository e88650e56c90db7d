"""Writes a network in a format, reloads what was written and compares it; what computes something else is removed."""
from __future__ import annotations

import os
import pathlib
import secrets
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lightjax import measure
from lightjax.core import modes
from lightjax.core.typing import Variables
from lightjax.interop.export import marking, onnx_graph, processes
from lightjax.interop.export.errors import ExportError
from lightjax.quantize import integer, lowering, program
from lightjax.quantize.simulation import Quantized

__all__ = ['FORMATS', 'Report', 'save', 'save_integers']

# Format to the suffix of its files.
FORMATS = {'stablehlo': '.stablehlo', 'onnx': '.onnx', 'litert': '.tflite'}
PLATFORMS = ('cpu', 'cuda', 'tpu')
CLOSE = 1e-4
# Of integers, and of floats that were rounded on the way, where a last bit decides between two codes: the mean
# difference in steps of 1/255 of the outputs' range, and on how many inputs the first choice has to be the same.
MOST_STEPS, LEAST_SAME = 2.0, 0.95
ROUNDS = 20


class Report(NamedTuple):
  """What became of an export.

  Attributes:
    path: of the file.
    format: its format.
    size_bytes: of the file.
    latency_ms: median of a call with one example, on one thread (StableHLO: in this process, as many as JAX takes).
    jax_ms: of the same call in JAX.
    examples: that were compared.
    same: on how many the first choice is the expected one.
    difference: the largest, of any output, to the expected.
    steps: the mean difference, in 1/255 of the range of the expected outputs.
  """
  path: pathlib.Path
  format: str
  size_bytes: int
  latency_ms: float
  jax_ms: float
  examples: int
  same: int
  difference: float
  steps: float


def save(
  path: str | os.PathLike[str], apply: Callable[..., Any], variables: Variables, inputs: Any, *, format: str,
  rounds: bool = False,
) -> Report:
  """Write a network in float.

  Args:
    path: the file; its folder exists.
    apply: `apply(variables, images)`, pure, in evaluation mode: logits [b, classes], or any outputs of which the first
      is compared.
    variables: arrays.
    inputs: held images, [b, h, w, c].
    format: 'stablehlo' (any batch size, CPU, CUDA and TPU), 'onnx' or 'litert' (one image a call, CPU).
    rounds: whether `apply` rounds activations, so that a last bit may make a step.
  Returns:
    What was written and how near it is.
  Raises:
    ExportError: the format cannot hold the network, its packages are not installed, or the file computes something
      else; no file is left then.
  """
  inputs = np.asarray(inputs, np.float32)

  def write(place: pathlib.Path) -> None:
    if format == 'stablehlo':
      place.write_bytes(_any_batch(apply, variables, inputs.shape[1:]))
    elif format == 'onnx':
      _onnx(apply, variables, inputs.shape[1:], place)
    else:
      processes.to_litert(marking.text(_in_float(apply, variables, inputs.shape[1:])), place)

  return _written(pathlib.Path(path), format, write, lambda x: apply(variables, x), inputs, rounds)


def save_integers(
  path: str | os.PathLike[str], quantized: Quantized, inputs: Any, *, format: str,
) -> Report:
  """Write a quantized network: its codes, scales and zero points are those of the file.

  Args:
    path: the file; its folder exists.
    quantized: from `quantize.trained.assemble`, `quantize.simulation.quantize` or `quantize.storage.restored`.
    inputs: held images, [b, h, w, c]; the file is compared with `integer.convert(quantized)` on them.
    format: 'stablehlo' (the integer network itself, bit for bit), 'onnx' (QuantizeLinear and DequantizeLinear) or
      'litert' (int8 tensors).
  Returns:
    What was written and how near it is.
  Raises:
    ExportError: as `save`.
  """
  inputs = np.asarray(inputs, np.float32)
  # Sums of float32 products, which are exact, run on all platforms.
  in_integers = integer.convert(quantized, accumulation='float')

  def write(place: pathlib.Path) -> None:
    if format == 'stablehlo':
      place.write_bytes(_stablehlo(in_integers.apply, inputs.shape[1:]))
    elif format == 'onnx':
      place.write_bytes(onnx_graph.model(quantized))
    else:
      processes.to_litert(marking.text(quantized), place)

  return _written(pathlib.Path(path), format, write, in_integers.apply, inputs, True)


def _in_float(apply: Callable[..., Any], variables: Variables, shape: tuple[int, ...]) -> Quantized:
  """The program of a network, its BatchNorm folded, without codes."""
  return Quantized(lowering.lower(apply, variables, jax.ShapeDtypeStruct((1, *shape), jnp.float32)), {}, {})


def _any_batch(apply: Callable[..., Any], variables: Variables, shape: tuple[int, ...]) -> bytes:
  """StableHLO of a network, or of its program for one image, mapped, where a batch size without a value stops it."""
  try:
    return _stablehlo(lambda x: apply(variables, x), shape)
  except ExportError:
    network = _in_float(apply, variables, shape).network
    return _stablehlo(lambda x: program.run(network, x), shape)


def _onnx(apply: Callable[..., Any], variables: Variables, shape: tuple[int, ...], place: pathlib.Path) -> None:
  """By our own writer, whose graph is the smaller and takes no second process; by jax2onnx what that does not know."""
  try:
    place.write_bytes(onnx_graph.model(_in_float(apply, variables, shape)))
  except ExportError:
    if problem := processes.missing('jax2onnx'):
      raise ExportError(problem) from None
    processes.to_onnx(apply, variables, (1, *shape), place)


def _stablehlo(function: Callable[..., Any], shape: tuple[int, ...]) -> bytes:
  """A function of batches of any size, for all platforms; `jax.export.deserialize(...).call` runs it."""
  (batch,) = export.symbolic_shape('batch')
  given = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
  try:
    with modes.convolution_mode('lax'):
      return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(given).serialize())
  except (ValueError, TypeError, NotImplementedError) as error:
    raise ExportError(f'stablehlo: {" ".join(str(error).split())[:800]}') from error


def _written(
  path: pathlib.Path, format: str, write: Callable[[pathlib.Path], None], function: Callable[..., Any],
  inputs: np.ndarray, rounds: bool,
) -> Report:
  """Write under another name, compare, rename."""
  if format not in FORMATS:
    raise ExportError(f'format={format!r} is none of {", ".join(FORMATS)}.')
  if problem := processes.missing(format):
    raise ExportError(problem)
  temporary = path.with_name(f'.{secrets.token_hex(8)}{FORMATS[format]}')
  try:
    write(temporary)
    report = _compared(path, format, temporary, function, inputs, rounds)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return report


def _compared(
  path: pathlib.Path, format: str, written: pathlib.Path, function: Callable[..., Any], inputs: np.ndarray,
  rounds: bool,
) -> Report:
  """The report of a written file.

  Raises:
    ExportError: its outputs are others than the function's.
  """
  compiled = jax.jit(lambda x: jax.tree.leaves(function(x))[0])
  expected = _one_by_one(compiled, inputs)
  one = inputs[:1]
  calls = {'jax': lambda: compiled(one)}
  if format == 'stablehlo':
    loaded = jax.jit(export.deserialize(bytearray(written.read_bytes())).call)
    outputs = _one_by_one(lambda x: jax.tree.leaves(loaded(x))[0], inputs)
    calls['file'] = lambda: loaded(one)
  else:
    outputs, times = processes.run(format, written, inputs)
  seen = measure.side_by_side(calls, rounds=ROUNDS)
  latency = seen['file'].median_ms if format == 'stablehlo' else statistics.median(times)
  if outputs.shape != expected.shape:
    raise ExportError(f'{format}: the file gives {outputs.shape} where the network gives {expected.shape}.')
  difference = np.abs(outputs - expected)
  step = float(expected.max() - expected.min()) / 255
  same = int((outputs.reshape(len(inputs), -1).argmax(-1) == expected.reshape(len(inputs), -1).argmax(-1)).sum())
  report = Report(path, format, written.stat().st_size, latency, seen['jax'].median_ms, len(inputs), same,
                  float(difference.max()), float(difference.mean()) / step if step else 0.0)
  if rounds:
    is_near = report.steps <= MOST_STEPS and same >= LEAST_SAME * len(inputs)
  else:
    is_near = report.difference <= CLOSE * max(1.0, float(np.abs(expected).max()))
  if not is_near:  # NaN is not near, either
    raise ExportError(
      f'{format}: the file computes something else: outputs differ by up to {report.difference:.3g} and by '
      f'{report.steps:.3g} steps in the mean, the first choice is the same on {same} of {len(inputs)}; it was removed.')
  return report


def _one_by_one(function: Callable[[Any], Any], inputs: np.ndarray) -> np.ndarray:
  """Outputs for all inputs; one shape, so that one function is compiled."""
  return np.concatenate([np.asarray(function(inputs[i:i + 1])) for i in range(len(inputs))])
