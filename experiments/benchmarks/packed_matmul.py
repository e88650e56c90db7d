"""Binary and ternary matrix products on packed bits against float32's, [n, n] x [n, n], side by side in one run.

The products take turns; figures are medians of wall time, and a ratio is float32's median over that of the packed
product. `with packing` packs the rows of the left matrix too, as a layer does with its input; kernels are packed once.
`ternary` is a product with two planes of bits.

Example:
  python -m experiments.benchmarks.packed_matmul --sizes=256,1024 --rounds=30
"""
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from lightjax import measure
from lightjax.binarize import packed
from lightjax.core.encoded import Integers
from lightjax.train import devices

_SIZES = flags.DEFINE_list('sizes', ['256', '512', '1024', '2048'], 'Rows, columns and terms of the product.')
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'Rounds in which each product is timed once.')
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')


def product(n: int, rounds: int) -> dict[str, Any]:
  """One size: milliseconds and ratios, and whether the products are the same."""
  generator = np.random.default_rng(0)
  left, right = (jnp.asarray(generator.choice([-1, 1], (n, n)), jnp.float32) for _ in range(2))
  three = jnp.asarray(generator.choice([-1, 0, 1], (n, n)), jnp.float32)
  kernel = packed.pack_kernel(Integers(right.astype(jnp.int8), jnp.ones((1, 1)), 1))
  planes = packed.pack_kernel(Integers(three.astype(jnp.int8), jnp.ones((1, 1)), 2))
  rows = jax.jit(packed.pack)(left)
  exact = jax.jit(jnp.matmul)
  on_bits = jax.jit(lambda rows, words: n - 2 * packed.count_differences(rows, words))
  on_planes = jax.jit(
    lambda rows, planes: planes.terms - 2 * packed.count_differences(rows, planes.words, planes.nonzero))
  with_packing = jax.jit(packed.dense)
  for factor, found in ((right, on_bits(rows, kernel.words)), (right, with_packing(left, kernel)),
                        (three, on_planes(rows, planes))):
    if not np.array_equal(np.asarray(exact(left, factor)), found):
      raise ArithmeticError(f'n = {n}: the packed product is not the float32 one')
  seen = measure.side_by_side({
    'float32': lambda: exact(left, right), 'packed': lambda: on_bits(rows, kernel.words),
    'with packing': lambda: with_packing(left, kernel), 'ternary': lambda: on_planes(rows, planes)},
    rounds=rounds, warmup=3)
  float_ms = seen['float32'].median_ms
  return {'n': n, 'float32 ms': float_ms} | {
    f'{name} {unit}': value for name in ('packed', 'with packing', 'ternary')
    for unit, value in (('ms', seen[name].median_ms), ('ratio', float_ms / seen[name].median_ms))}


def main() -> int:
  """Run the command."""
  devices.configure()
  rows = []
  for size in _SIZES.value:
    row = product(int(size), _ROUNDS.value)
    rows.append(row)
    print(
      f'n = {row["n"]:>5}  float32 {row["float32 ms"]:8.2f} ms  packed {row["packed ms"]:8.2f} ms, '
      f'{row["packed ratio"]:5.2f} x as fast; with packing {row["with packing ms"]:8.2f} ms, '
      f'{row["with packing ratio"]:5.2f} x; ternary {row["ternary ms"]:8.2f} ms, {row["ternary ratio"]:5.2f} x')
  if _OUTPUT.value:
    steps.write(_OUTPUT.value, rows)
  return 0


if __name__ == '__main__':
  commands.launch(main)
