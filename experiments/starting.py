"""Weights that a run starts from: an artifact of `experiments.import_weights` or of a finished run, by its folder."""
from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import reshaping
from experiments.reshaping import Surgery
from lightjax import artifact
from lightjax.core import specs, trees
from lightjax.core.typing import Variables

FILE = 'artifact.ljx'

# The most arrays that an error lists.
MOST_LISTED = 4


class Imported(NamedTuple):
  """Weights to start from.

  Attributes:
    model: name and arguments of the network, as in `config.model`.
    variables: NumPy arrays.
    digest: SHA-256 of the file; it enters the identity of a run that starts from it.
    surgery: what was changed of the network.
  """
  model: dict[str, Any]
  variables: Variables
  digest: str
  surgery: Surgery = reshaping.NOTHING


def read(folder: pathlib.Path) -> Imported:
  """What `import_weights` wrote, or the network that a finished run stored.

  Args:
    folder: holds an artifact.ljx.
  Returns:
    Network, variables, digest.
  Raises:
    ArtifactError: the file is damaged.
    OSError: there is none.
  """
  stored = artifact.load(folder / FILE)
  surgery = Surgery.from_json(stored.network.get('surgery', []))
  return Imported(dict(stored.network['model']), stored.variables, digest(folder), surgery)


def digest(folder: pathlib.Path) -> str:
  """SHA-256 of the folder's artifact, hexadecimal; wherever the folder is, equal weights are the same start.

  Raises:
    SpecError: there is none.
  """
  try:
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
  except OSError as error:
    raise specs.SpecError(
      f"start.weights='{folder}': no {FILE} there ({error.strerror}); python -m experiments.import_weights writes one, "
      'and so does a finished run.') from error


def begin(start: Variables, initial: Variables, patterns: Sequence[str]) -> Variables:
  """The variables to start from: those of `start`, fresh ones where a pattern says so.

  Args:
    start: of another network with the same parameters but for the fresh ones.
    initial: of the run's network, freshly initialized.
    patterns: regular expressions, each for all of a path within its collection, such as 'classifier/kernel'; statistics
      of fresh norms are fresh as well.
  Returns:
    A tree of the structure of `initial`.
  Raises:
    SpecError: a pattern that matches nothing; or arrays that are not fresh and are missing, of another shape, or have
      no place.
  """
  paths = sorted({path for _, path in _by_path(initial)})
  for pattern in patterns:
    if not any(re.fullmatch(pattern, path) for path in paths):
      raise specs.SpecError(
        f'start.fresh: {pattern!r} matches no parameter; nearest: {trees.nearest(pattern, paths)}.')
  fresh = {path for path in paths if any(re.fullmatch(pattern, path) for pattern in patterns)}
  ours, theirs = (
    {key: leaf for key, leaf in _by_path(tree).items() if key[1] not in fresh} for tree in (initial, start))
  keys = sorted({*ours, *theirs}, key=lambda key: (key[0] != 'params', key))
  wrong = [f'{key[1]} {_shape(theirs, key)} (here {_shape(ours, key)})' for key in keys
           if _shape(theirs, key) != _shape(ours, key)]
  if wrong:
    more = f' and {len(wrong) - MOST_LISTED} more' if len(wrong) > MOST_LISTED else ''
    raise specs.SpecError(
      f'start: the weights have other arrays than the network: {", ".join(wrong[:MOST_LISTED])}{more}; start from the '
      "same network, or name what is initialized here: start.fresh=('classifier/.*',) for other classes.")
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf if _key(path)[1] in fresh else theirs[_key(path)], initial)


def _by_path(variables: Variables) -> dict[tuple[str, str], Any]:
  return {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}


def _shape(leaves: Mapping[tuple[str, str], Any], key: tuple[str, str]) -> tuple[int, ...] | str:
  return tuple(np.shape(leaves[key])) if key in leaves else 'none'


def _key(path: tuple[Any, ...]) -> tuple[str, str]:
  """Collection and path within it."""
  collection, _, rest = jax.tree_util.keystr(path, simple=True, separator='/').partition('/')
  return collection, rest
