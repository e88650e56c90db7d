"""Kernels as products of smaller ones: what a low rank makes of a layer.

A `Decomposition` works on a kernel [window..., inputs, outputs], a dense layer being one without a window. Its factors
are kernels of the same form, which stand for layers one after another: the product of the factors is the kernel of all
of them together.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ['Decomposition', 'channel', 'spatial', 'tucker2']

Shape = tuple[int, ...]

# Sweeps of Tucker-2's alternation: each lowers the error, and hardly after the first few.
SWEEPS = 10


class Decomposition(NamedTuple):
  """A way to split kernels.

  Attributes:
    name: of the function in this module.
    window: how many window axes a kernel must have, None for any number.
    energies: kernel -> for each rank of the method the squared singular values, descending, of what the rank bounds.
    split: (kernel, ranks) -> factors in float64; balanced: neighbours have equal norms.
    product: factors -> kernel; of NumPy or JAX, differentiable.
    shapes: (shape of the kernel, ranks) -> shapes of the factors.
  """
  name: str
  window: int | None
  energies: Callable[[np.ndarray], tuple[np.ndarray, ...]]
  split: Callable[[np.ndarray, Sequence[int]], tuple[np.ndarray, ...]]
  product: Callable[[Sequence[Any]], Any]
  shapes: Callable[[Shape, Sequence[int]], tuple[Shape, ...]]


def channel() -> Decomposition:
  """All of the window onto r channels, then 1x1 onto the outputs: W[h, w, i, o] = sum_r A[h, w, i, r] B[r, o].

  A dense layer becomes two, W = A B: the truncated singular value decomposition.

  Returns:
    The decomposition; its rank is r.
  Source: Zhang et al. 2015, arXiv:1505.06798, section 3.1, without the response's statistics; for dense layers
    Denton et al. 2014, arXiv:1404.0736.
  """

  def matrix(kernel: np.ndarray) -> np.ndarray:
    return kernel.reshape(-1, kernel.shape[-1])

  def energies(kernel: np.ndarray) -> tuple[np.ndarray, ...]:
    return (_energies(matrix(kernel)),)

  def split(kernel: np.ndarray, ranks: Sequence[int]) -> tuple[np.ndarray, ...]:
    first, second = _halves(matrix(kernel), *ranks)
    return first.reshape(*kernel.shape[:-1], -1), second.reshape((1,) * (kernel.ndim - 2) + second.shape)

  def product(factors: Sequence[Any]) -> Any:
    first, second = factors
    return first @ second.reshape(second.shape[-2:])

  def shapes(shape: Shape, ranks: Sequence[int]) -> tuple[Shape, ...]:
    (rank,) = ranks
    return (*shape[:-1], rank), (*(1,) * (len(shape) - 2), rank, shape[-1])

  return Decomposition('channel', None, energies, split, product, shapes)


def spatial() -> Decomposition:
  """Columns (h x 1) onto r channels, then rows (1 x w) onto the outputs: W[h, w, i, o] = sum_r A[h, i, r] B[w, r, o].

  Returns:
    The decomposition of convolutions over two axes; its rank is r.
  Source: Tai et al. 2016, arXiv:1511.06067, section 3.1, the closed form; Jaderberg et al. 2014, arXiv:1405.3866,
    scheme 2.
  """

  def matrix(kernel: np.ndarray) -> np.ndarray:
    h, w, i, o = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(h * i, w * o)

  def energies(kernel: np.ndarray) -> tuple[np.ndarray, ...]:
    return (_energies(matrix(kernel)),)

  def split(kernel: np.ndarray, ranks: Sequence[int]) -> tuple[np.ndarray, ...]:
    h, w, i, o = kernel.shape
    first, second = _halves(matrix(kernel), *ranks)
    return first.reshape(h, 1, i, -1), second.reshape(1, -1, w, o).transpose(0, 2, 1, 3)

  def product(factors: Sequence[Any]) -> Any:
    first, second = factors
    (h, _, i, rank), (_, w, _, o) = first.shape, second.shape
    rows = first.reshape(h * i, rank) @ second.transpose(0, 2, 1, 3).reshape(rank, w * o)
    return rows.reshape(h, i, w, o).transpose(0, 2, 1, 3)

  def shapes(shape: Shape, ranks: Sequence[int]) -> tuple[Shape, ...]:
    (rank,), (h, w, i, o) = ranks, shape
    return (h, 1, i, rank), (1, w, rank, o)

  return Decomposition('spatial', 2, energies, split, product, shapes)


def tucker2() -> Decomposition:
  """1x1 onto p channels, the window from p to q, 1x1 onto the outputs: W = sum_pq A[i, p] C[h, w, p, q] B[q, o].

  The factors start from the leading singular vectors along each side (HOSVD), and are then found in turns (HOOI).

  Returns:
    The decomposition of convolutions; its ranks are p and q.
  Source: Kim et al. 2016, arXiv:1511.06530, section 3.1; De Lathauwer et al. 2000 for the alternation.
  Deviations from the paper: ranks are given, not found by variational Bayesian matrix factorization.
  """

  def sides(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.moveaxis(kernel, -2, 0).reshape(kernel.shape[-2], -1), kernel.reshape(-1, kernel.shape[-1]).T

  def energies(kernel: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(_energies(side) for side in sides(kernel))

  def split(kernel: np.ndarray, ranks: Sequence[int]) -> tuple[np.ndarray, ...]:
    p, q = ranks
    given = np.asarray(kernel, np.float64)
    inputs, outputs = (_leading(side, rank) for side, rank in zip(sides(given), ranks, strict=True))
    for _ in range(SWEEPS):
      inputs = _leading(sides(given @ outputs)[0], p)
      outputs = _leading(sides(_along_inputs(given, inputs))[1], q)
    core = _along_inputs(given @ outputs, inputs)
    # Of the products with norms (sqrt p, |C|, sqrt q) the one in which all are equal.
    norms = [np.linalg.norm(each) or 1.0 for each in (inputs, core, outputs)]
    mean = math.prod(norms) ** (1 / 3)
    inputs, core, outputs = (each * (mean / norm) for each, norm in zip((inputs, core, outputs), norms, strict=True))
    ones = (1,) * (kernel.ndim - 2)
    return inputs.reshape(*ones, -1, p), core, outputs.T.reshape(*ones, q, -1)

  def product(factors: Sequence[Any]) -> Any:
    first, core, last = factors
    narrow = core @ last.reshape(last.shape[-2:])
    return _along_inputs(narrow, first.reshape(first.shape[-2:]).T)

  def shapes(shape: Shape, ranks: Sequence[int]) -> tuple[Shape, ...]:
    (p, q), (*window, i, o) = ranks, shape
    ones = (1,) * len(window)
    return (*ones, i, p), (*window, p, q), (*ones, q, o)

  return Decomposition('tucker2', None, energies, split, product, shapes)


def _energies(matrix: np.ndarray) -> np.ndarray:
  return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False) ** 2


def _halves(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
  """The nearest product of rank `rank`, the singular values shared by both halves."""
  left, values, right = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
  root = np.sqrt(values[:rank])
  return left[:, :rank] * root, root[:, None] * right[:rank]


def _leading(matrix: np.ndarray, rank: int) -> np.ndarray:
  """The leading left singular vectors, [rows, rank]."""
  return np.linalg.svd(matrix, full_matrices=False)[0][:, :rank]


def _along_inputs(kernel: Any, matrix: Any) -> Any:
  """kernel [..., i, o] with its inputs multiplied by [i, p]: [..., p, o]."""
  xp = np if isinstance(kernel, np.ndarray) and isinstance(matrix, np.ndarray) else jnp
  return xp.einsum('...io,ip->...po', kernel, matrix)
