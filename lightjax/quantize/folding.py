"""BatchNorm folding as a change of variables: the same tree, so that the same `apply` computes the same."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lightjax.core import trees
from lightjax.core.typing import Path, Variables
from lightjax.graph.channels import variable_paths
from lightjax.graph.links import Link, links
from lightjax.graph.trace import layouts, trace
from lightjax.quantize.lowering import lower

__all__ = ['fold']


def fold(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> Variables:
  """The network with each BatchNorm's scale and statistics in the kernel before it.

    kernel' = kernel * s,  BatchNorm's bias' = bias + (b - mean) * s,  s = scale / sqrt(var + epsilon)

  The layer's own bias b becomes 0, BatchNorm mean 0, var 1 and the scale that makes it the identity, sqrt(1 + epsilon).
  A BatchNorm that follows no kernel directly stays as it is, as do one without scale or bias and one whose kernel is
  used more than once. `lowering.lower` folds those that it can on its own; this is for whoever needs the variables.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode, of a linen network.
    variables: with 'params' and 'batch_stats'.
    *inputs: arrays or `jax.ShapeDtypeStruct`.
  Returns:
    Variables of the same structure, for which `apply` gives the same outputs up to rounding.
  Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2.
  """
  pairs = _pairs(links(apply, variables, *inputs), set(variable_paths(variables)))
  if not pairs:
    return variables
  known = layouts(trace(apply, variables, *inputs))

  def probed(norm: dict[str, float] | None) -> dict[Path, tuple[Any, Any]]:
    """Factor and shift of each pair's outputs, of BatchNorms that hold these numbers or, without, what they hold."""
    ones = {f'params/{kernel}': 1.0 for kernel, _ in pairs}
    if norm is not None:
      ones |= {path: norm[path.rpartition('/')[2]] for _, paths in pairs for path in paths.values()}
      ones |= {f'params/{_module(kernel)}/bias': 0.0 for kernel, _ in pairs}
    changed = _exchanged(variables, lambda path, leaf: jnp.full_like(leaf, ones[path]), ones)
    layers = lower(apply, changed, *inputs).layers
    return {kernel: (layers[_module(kernel)].kernel.reshape(-1, layers[_module(kernel)].bias.size)[0],
                     layers[_module(kernel)].bias) for kernel, _ in pairs}

  actual, neutral = probed(None), probed({'scale': 1.0, 'var': 1.0, 'mean': 0.0, 'bias': 0.0})
  found: dict[Path, Any] = {}
  leaves = trees.flatten(variables)
  for kernel, paths in pairs:
    factor, shift = actual[kernel]
    shape = [size if axis in known[kernel].output_axes else 1 for axis, size in enumerate(leaves[kernel].shape)]
    found[f'params/{kernel}'] = leaves[kernel] * factor.reshape(shape)
    found[f'params/{_module(kernel)}/bias'] = jnp.zeros_like(shift)
    found |= {
      paths['scale']: 1 / neutral[kernel][0], paths['bias']: shift,
      paths['mean']: jnp.zeros_like(shift), paths['var']: jnp.ones_like(shift)}
  return _exchanged(variables, lambda path, leaf: jnp.asarray(found[path], leaf.dtype), found)


def _pairs(found: tuple[Link, ...], paths: set[Path]) -> list[tuple[Path, dict[str, Path]]]:
  """Kernels with the variables of the BatchNorm right after them, by name."""
  kernels, norms = Counter(link.first for link in found), Counter(link.norm for link in found)
  pairs = []
  for link in found:
    if link.norm is None or kernels[link.first] > 1 or norms[link.norm] > 1:
      continue
    named = {name: f'{collection}/{link.norm}/{name}' for collection, name in (
      ('params', 'scale'), ('params', 'bias'), ('batch_stats', 'mean'), ('batch_stats', 'var'))}
    own = f'params/{_module(link.first)}/bias'
    # What else the outputs are multiplied with would be folded in twice.
    if set(named.values()) <= paths and set(link.variables) - {own} == set(named.values()):
      pairs.append((link.first, named))
  return pairs


def _module(kernel: Path) -> str:
  return kernel.rpartition('/')[0]


def _exchanged(variables: Variables, change: Callable[[Path, Any], Any], paths: Any) -> Variables:
  """Some leaves changed, by path with collection."""
  leaves, structure = jax.tree_util.tree_flatten(variables)
  changed = [change(path, leaf) if path in paths else leaf
             for path, leaf in zip(variable_paths(variables), leaves, strict=True)]
  return jax.tree_util.tree_unflatten(structure, changed)
