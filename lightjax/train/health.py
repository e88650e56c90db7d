"""A check that the compiler computes right values, made at the start of every run.

jaxlib 0.10.2 fuses a batched matrix product into a sum wrongly on CPU for large batches (jax issue 39103): results
differ in thousands of rows, silently. A wrong table is worse than none, so that a run refuses to start on such a build.
"""
from __future__ import annotations

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

__all__ = ['CompilerError', 'check_compiler', 'wrong_rows']


class CompilerError(RuntimeError):
  """The installed compiler computes wrong values."""


def wrong_rows(rows: int = 40_000) -> int:
  """How many rows of sum((w @ r)^2), w 3x3 and r a row, differ from NumPy's float64 values by more than rounding.

  Args:
    rows: batch size; the fault shows from about 33,000 on.
  Returns:
    0 on a sound build.
  """
  generator = np.random.default_rng(0)
  w = generator.standard_normal((3, 3)).astype(np.float32)
  x = generator.standard_normal((rows, 3)).astype(np.float32)
  seen = np.asarray(jax.jit(jax.vmap(lambda row: jnp.sum((w @ row) ** 2)))(x))
  exact = ((x.astype(np.float64) @ w.T.astype(np.float64)) ** 2).sum(-1)
  return int((np.abs(seen - exact) > 1e-3 * (1 + exact)).sum())


def check_compiler() -> None:
  """Refuse to run where the compiler is known to be wrong.

  Raises:
    CompilerError: names the build, what it computes wrongly, and two remedies.
  """
  wrong = wrong_rows()
  if wrong:
    raise CompilerError(
      f'jaxlib {jaxlib.__version__} computes {wrong} of 40000 rows of a batched product wrongly on '
      f"{jax.default_backend()} (jax issue 39103); install 'jaxlib!=0.10.2', or set "
      'XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=individual_dot.'
    )
