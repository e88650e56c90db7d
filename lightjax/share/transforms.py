"""Weights that share the values of a codebook, as a view."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lightjax.core import rngs, trees
from lightjax.core.transform import Context, Own, Transform, transform
from lightjax.core.typing import Array, Leaves, Path, Variables
from lightjax.share import clustering
from lightjax.share.starts import Start

__all__ = ['share']

BITS = range(1, 9)


def share(
  start: Start,
  *,
  bits: int | Sequence[tuple[str, int]],
  together: bool = False,
  entropy: float = 0.0,
  every: int = 0,
) -> Transform:
  """Weights on 2^bits values a layer, found by k-means when the transform is initialized, then trained.

  The view of a weight is its entry of the codebook. The gradient of an entry is the sum over the weights that have it,
  which is why a run that trains codebooks wants a small learning rate, or Adam. A weight that is zero at the start
  stays zero and has no entry: zeros are stored as positions. The weights themselves get the gradient of their view;
  they are looked at again where `every` says so.

  Args:
    start: where k-means starts, see `starts`.
    bits: 1..8, or pairs (regular expression of the whole path, bits), the first match wins.
    together: one codebook for all parameters that the transform takes, in place of one each.
    entropy: penalty of a bit of the entries' entropy, as a ratio of the variance of the weights, both in k-means and
      when weights choose again; such codebooks use fewer of their entries. 0.01 to 0.1 are useful; 0 for none.
    every: steps after which each weight chooses its entry again, by its own value; 0: never, as in the paper.
  Returns:
    A transform whose trainables are the codebooks and whose state says which entry each weight has. It names no
    integers: the file finds the few distinct values and stores indices.
  Raises:
    ValueError: bits, entropy or every out of range. At init: a pattern takes nothing, or no pattern takes a parameter;
      parameters with one codebook and different bits; no key in the context.
  Source: Han et al. 2016, arXiv:1510.00149, section 3: k-means (eq. 2), starts (3.2), gradient (eq. 3); Choi,
  El-Khamy, Lee 2017, arXiv:1612.01543 (the penalty).
  Deviations from the paper: `every` and `together` are not in it; the penalty is not weighted by the Hessian.
  """
  pairs = ((('.*', bits),) if isinstance(bits, int) else tuple((pattern, number) for pattern, number in bits))
  name = f'share({getattr(start, "__name__", "start")})'
  for pattern, number in pairs:
    if number not in BITS:
      raise ValueError(f'{name}: {number} bits for {pattern!r}; use {BITS.start} to {BITS.stop - 1}.')
  if not entropy >= 0:
    raise ValueError(f'{name}: entropy={entropy} is a penalty, 0 or more.')
  if every < 0:
    raise ValueError(f'{name}: every={every} steps; use 0 for never.')

  def entries(paths: Sequence[Path]) -> dict[Path, int]:
    """The size of each parameter's codebook."""
    taken = {path: next((pair for pair in pairs if re.fullmatch(pair[0], path)), None) for path in paths}
    found = {}
    for path, pair in taken.items():
      if pair is None:
        raise ValueError(f"{name}: no pattern of bits takes {path!r}; end with ('.*', 5), or leave it out by a rule.")
      found[path] = 2 ** pair[1]
    for pair in pairs:
      if pair not in taken.values():
        raise ValueError(
          f'{name}: the pattern {pair[0]!r} of bits takes no parameter; nearest: {trees.nearest(pair[0], paths)}.')
    if together and len(set(found.values())) > 1:
      raise ValueError(f'{name}: parameters that have one codebook have different bits; set together=False.')
    return found

  def init(variables: Variables, context: Context) -> Own:
    leaves = context.select(variables)
    sizes = entries(tuple(leaves))
    groups = [tuple(leaves)] if together else [(path,) for path in leaves]
    books: dict[Path, Array] = {}
    codes: dict[Path, dict[Path, Array]] = {}
    for group in groups:
      key = rngs.fold(context.need('key', name), group[0])
      generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
      books[group[0]], codes[group[0]] = _begin(
        start, {path: leaves[path] for path in group}, sizes[group[0]], entropy, generator)
    return Own(books, {'codes': codes})

  def view(variables: Variables, own: Own, key: Array | None = None) -> Variables:
    leaves = trees.flatten(variables)
    shared = {}
    for group, members in own.state['codes'].items():
      book = jnp.append(jnp.zeros((), own.trainable[group].dtype), own.trainable[group])
      for path, codes in members.items():
        leaf = jnp.asarray(leaves[path])
        value = book[codes].astype(leaf.dtype)
        # The bracket is zero, whose gradient is that of the leaf; added last, it does not round the value.
        shared[path] = jnp.where(leaf == 0, 0, value + (leaf - lax.stop_gradient(leaf)))
    return trees.replace(variables, shared)

  def update(variables: Variables, own: Own, context: Context) -> Own:
    if not every:
      return own
    leaves, old = trees.flatten(variables), own.state['codes']

    def choose() -> dict[Path, dict[Path, Array]]:
      return {
        group: _choose({path: leaves[path] for path in members}, members, own.trainable[group], entropy)
        for group, members in old.items()}

    return own._replace(state={'codes': lax.cond(jnp.asarray(context.step) % every == 0, choose, lambda: old)})

  def project(variables: Variables, own: Own) -> Variables:
    leaves = trees.flatten(variables)
    return trees.replace(variables, {path: jnp.where(mask, leaves[path], 0) for path, mask in support(own).items()})

  def support(own: Own) -> Leaves:
    return {path: codes > 0 for members in own.state['codes'].values() for path, codes in members.items()}

  return transform(name, init=init, view=view, update=update, project=project, support=support)


def _begin(
  start: Start, leaves: Mapping[Path, Array], entries: int, entropy: float, generator: np.random.Generator
) -> tuple[Array, dict[Path, Array]]:
  """The codebook of some parameters, and which entry each weight has: 0 for a zero, i + 1 for entry i."""
  arrays = {path: np.asarray(leaf, np.float64) for path, leaf in leaves.items()}
  flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
  stored = np.flatnonzero(flat)
  codes = np.zeros(flat.size, np.int16)
  centroids = np.zeros(entries)
  if stored.size:
    stored = stored[np.argsort(flat[stored], kind='stable')]
    values = flat[stored]
    centroids, counts = clustering.cluster(values, start(values, entries, generator), entropy=entropy)
    codes[stored] = np.repeat(np.arange(1, entries + 1), counts)
  ends = np.cumsum([array.size for array in arrays.values()])
  parts = zip(arrays.items(), np.split(codes, ends[:-1]), strict=True)
  return jnp.asarray(centroids, jnp.float32), {
    path: jnp.asarray(part.reshape(array.shape)) for (path, array), part in parts}


def _choose(leaves: Leaves, members: Leaves, book: Array, entropy: float) -> dict[Path, Array]:
  """New codes, each weight that is not zero at the entry that costs it least; zeros keep what they have."""
  costs = jnp.zeros(book.shape)
  if entropy:
    values = jnp.concatenate([leaves[path].reshape(-1) for path in members])
    codes = jnp.where(values == 0, 0, jnp.concatenate([codes.reshape(-1) for codes in members.values()]))
    counts = jnp.zeros(book.size + 1).at[codes].add(1)[1:]
    total = jnp.maximum(counts.sum(), 1)
    mean = jnp.where(codes > 0, values, 0).sum() / total
    variance = jnp.where(codes > 0, jnp.square(values - mean), 0).sum() / total
    costs = jnp.where(counts > 0, -entropy * variance * jnp.log2(counts / total), jnp.inf)

  def chosen(leaf: Array, codes: Array) -> Array:
    def closer(i: int, found: tuple[Array, Array]) -> tuple[Array, Array]:
      least, best = found
      cost = jnp.square(leaf - book[i]) + costs[i]
      return jnp.minimum(cost, least), jnp.where(cost < least, i + 1, best).astype(codes.dtype)

    # One entry after another, not all costs at once: a layer of a million weights would need 256 million numbers.
    _, best = lax.fori_loop(0, book.size, closer, (jnp.full(leaf.shape, jnp.inf, book.dtype), codes))
    return jnp.where((codes > 0) & (leaf != 0), best, codes)

  return {path: chosen(leaves[path].astype(book.dtype), codes) for path, codes in members.items()}
