"""Pruning a trained network at once, from a few batches and without training: Wanda and SparseGPT.

Both are functions of (variables, batches) and need no loop. Layers are taken in the order of the forward pass, each
with the inputs that it gets from the layers before it *as they are pruned already*.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from lightjax.core import rules, trees
from lightjax.core.typing import Array, Path, Variables
from lightjax.graph import layouts, trace
from lightjax.prune import calibration

__all__ = ['sparse_gpt', 'wanda']

Layer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (kernel as [k outputs], moment [k k]) -> pruned kernel


def wanda(
  apply: Callable[..., Any], variables: Variables, batches: Iterable[Any], *, paths: Sequence[str],
  sparsity: float | None = None, n_of_m: tuple[int, int] | None = None,
) -> Variables:
  """Of each output the weights with the lowest |w| ||x|| go; the others stay as they are.

  Args:
    apply: `apply(variables, x)`, pure, in evaluation mode.
    variables: trained.
    batches: inputs for calibration, arrays; all of them are used for each layer.
    paths: patterns of the kernels to prune; a pattern that takes none is an error.
    sparsity: ratio 0..1 of zeros among the weights of each output; this or `n_of_m`.
    n_of_m: (n, m): n of each m neighbours along the inputs stay.
  Returns:
    Variables of the same structure, pruned.
  Raises:
    ValueError: neither or both of sparsity and n_of_m, m does not divide the inputs, a pattern without a parameter.
  Source: Sun et al. 2024, arXiv:2306.11695, eq. 1 and algorithm 1.
  """
  keep = _keeper(sparsity, n_of_m)

  def prune(kernel: np.ndarray, moment: np.ndarray) -> np.ndarray:
    return np.where(keep(np.abs(kernel) * np.sqrt(np.diag(moment))[:, None]), kernel, 0.0)

  return _by_layer(apply, variables, list(batches), paths, n_of_m, prune)


def sparse_gpt(
  apply: Callable[..., Any], variables: Variables, batches: Iterable[Any], *, paths: Sequence[str],
  sparsity: float | None = None, n_of_m: tuple[int, int] | None = None, block: int = 128,
) -> Variables:
  """Optimal brain surgeon by layer: a mask, and an update of the weights that stay, so that the outputs change least.

  Inputs are gone through in order. Of each block of them the weights with the lowest w^2 / [H^-1]^2 go (of each
  output by itself under `n_of_m`, over all outputs otherwise), and the error of each input's weights is made up for
  by the inputs that are still to come, with the inverse of what is left of the second moment H.

  Args:
    apply: as for `wanda`.
    variables: trained.
    batches: inputs for calibration, arrays.
    paths: patterns of the kernels to prune; a pattern that takes none is an error.
    sparsity: ratio 0..1 of zeros in each block; this or `n_of_m`.
    n_of_m: (n, m): n of each m neighbours along the inputs stay.
    block: inputs for which the mask is chosen together.
  Returns:
    Variables of the same structure, pruned and updated.
  Raises:
    ValueError: as for `wanda`.
  Source: Frantar and Alistarh 2023, arXiv:2301.00774, algorithm 1; the damping is 1 % of H's mean diagonal.
  """
  _keeper(sparsity, n_of_m)
  width = block if n_of_m is None else n_of_m[1]

  def prune(kernel: np.ndarray, moment: np.ndarray) -> np.ndarray:
    # Rows of the upper Cholesky factor of H^-1 hold, from the diagonal on, the inverse of what is left of H.
    factor = np.linalg.cholesky(np.linalg.inv(moment + np.diag(calibration.damping(np.diag(moment))))).T
    left = kernel.astype(np.float64)
    stays = np.ones(kernel.shape, bool)
    for i in range(len(left)):
      if i % width == 0:
        part = slice(i, min(i + width, len(left)))
        scores = np.square(left[part] / np.diag(factor)[part, None])
        if n_of_m is None:
          pruned = np.argsort(scores, axis=None, kind='stable')[:round((sparsity or 0.0) * scores.size)]
          stays[part].reshape(-1)[pruned] = False
        else:
          stays[part] = _keeper(None, n_of_m)(scores)
      error = np.where(stays[i], 0.0, left[i]) / factor[i, i]
      left[i + 1:] -= factor[i, i + 1:, None] * error
    return np.where(stays, left, 0.0)

  return _by_layer(apply, variables, list(batches), paths, n_of_m, prune)


def _keeper(sparsity: float | None, n_of_m: tuple[int, int] | None) -> Callable[[np.ndarray], np.ndarray]:
  """Scores [k outputs] -> which stay, of each output by itself."""
  if (sparsity is None) == (n_of_m is None):
    raise ValueError('give one of sparsity and n_of_m.')
  if sparsity is not None and not 0.0 <= sparsity <= 1.0:
    raise ValueError(f'sparsity={sparsity} is a ratio 0..1.')

  def keep(scores: np.ndarray) -> np.ndarray:
    n, m = n_of_m or (len(scores) - round((sparsity or 0.0) * len(scores)), len(scores))
    grouped = scores.reshape(-1, m, scores.shape[1])
    rank = np.argsort(np.argsort(grouped, 1, kind='stable'), 1, kind='stable')
    return (rank >= m - n).reshape(scores.shape)

  return keep


def _by_layer(
  apply: Callable[..., Any], variables: Variables, batches: list[Any], paths: Sequence[str],
  n_of_m: tuple[int, int] | None, prune: Layer,
) -> Variables:
  """Prune one layer after the other, on the inputs that the layers before it leave."""
  if not batches:
    raise ValueError('there is no batch to calibrate with.')
  known = layouts(trace(apply, variables, batches[0]))
  taken = rules.assign(tuple(paths), tuple(trees.flatten(variables)), known, ('not_kernel',))
  chosen = {line.path for line in taken if line.rule is not None}
  for path in sorted(chosen, key=lambda path: known[path].order):
    watch = jax.jit(lambda variables, x, path=path: calibration.moments(apply, variables, (x,), (path,))[path].matrix)
    weights = [len(batch) for batch in batches]
    matrix = sum(
      np.asarray(watch(variables, batch), np.float64) * weight for batch, weight in zip(batches, weights, strict=True)
    ) / sum(weights)
    kernel = trees.flatten(variables)[path]
    variables = trees.replace(variables, {path: _pruned(kernel, matrix, known[path].output_axes, path, n_of_m, prune)})
  return variables


def _pruned(
  kernel: Array, matrix: Any, outputs: tuple[int, ...], path: Path, n_of_m: tuple[int, int] | None, prune: Layer
) -> Array:
  """A kernel of any layout, pruned as matrices [k outputs], one for each group of channels."""
  first = np.moveaxis(np.asarray(kernel, np.float64), outputs, range(len(outputs)))
  channels = math.prod(first.shape[:len(outputs)])
  if n_of_m is not None and matrix.shape[-1] % n_of_m[1]:
    raise ValueError(
      f'n_of_m={n_of_m}: {path!r} has {matrix.shape[-1]} inputs, which {n_of_m[1]} does not divide; leave it out of '
      'paths.')
  parts = np.split(first.reshape(channels, -1).T, len(matrix), 1)
  pruned = np.concatenate([prune(part, each) for part, each in zip(parts, matrix, strict=True)], 1)
  back = np.moveaxis(pruned.T.reshape(first.shape), range(len(outputs)), outputs)
  return jax.numpy.asarray(back, kernel.dtype)
