"""Checkpoints that survive a kill at any moment and notice every damaged byte.

A checkpoint is a folder `step_00000123` with orbax's files and `manifest.json`: the size and SHA-256 of each file, and
the shape and dtype of each array. It is written under another name and renamed when it is complete, so that a
half-written one is never taken for a checkpoint. orbax restores a flipped byte without notice; the manifest does not.
Bool arrays (masks) are stored as bits.
"""
from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lightjax.core.typing import PyTree

__all__ = ['DamagedCheckpointError', 'OtherStructureError', 'latest', 'read', 'restore', 'save', 'steps']

_PREFIX, _PARTIAL = 'step_', 'partial_'


class DamagedCheckpointError(ValueError):
  """A checkpoint's files are not those that were written."""


class OtherStructureError(ValueError):
  """A sound checkpoint of another structure, shapes or dtypes: other code or another config wrote it."""


def save(
  folder: pathlib.Path, step: int, tree: PyTree, *, keep: int = 2, about: Mapping[str, Any] | None = None
) -> None:
  """Write a checkpoint and, once it is complete, remove all but the newest `keep`.

  Args:
    folder: where the checkpoints of one run live.
    step: steps completed.
    tree: pytree of arrays (of a PRNG key its `jax.random.key_data`).
    keep: how many to keep, at least 1.
    about: plain data stored in the manifest.
  Raises:
    OSError: no space, no permission; earlier checkpoints are untouched and nothing half-written stays.
  """
  folder.mkdir(parents=True, exist_ok=True)
  partial, final = folder / f'{_PARTIAL}{step:08d}', folder / f'{_PREFIX}{step:08d}'
  _remove_partial(folder)
  # orbax refuses arrays without entries; their shape in the manifest says all that there is to say.
  arrays = {f'{i:05d}': _packed(np.asarray(leaf)) for i, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save((partial / 'arrays').absolute(), arrays)  # orbax takes no relative path
      checkpointer.wait_until_finished()
    files = {str(path.relative_to(partial)): _digest(path) for path in sorted(partial.rglob('*')) if path.is_file()}
    _write(partial / 'manifest.json', _text({
      'step': step, 'arrays': _describe(tree), 'files': files, 'about': dict(about or {})}))
    _sync(partial)
    if final.exists():  # damaged, or the run would have gone on from it
      shutil.rmtree(final)
    os.replace(partial, final)
    _sync(folder)
  except Exception as error:
    shutil.rmtree(partial, ignore_errors=True)
    if isinstance(error, ValueError) and 'No space left' in str(error):  # as tensorstore reports it
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
    raise
  # Later ones were passed over as damaged; counted among the kept they would push out sound ones.
  kept = [each for each in steps(folder) if each <= step][-keep:]
  for each in set(steps(folder)).difference(kept):
    shutil.rmtree(folder / f'{_PREFIX}{each:08d}')


def steps(folder: pathlib.Path) -> list[int]:
  """Steps of the complete checkpoints, ascending."""
  numbers = (path.name.removeprefix(_PREFIX) for path in folder.glob(f'{_PREFIX}*') if path.is_dir())
  return sorted(int(number) for number in numbers if number.isdecimal())


def read(folder: pathlib.Path, step: int) -> dict[str, Any]:
  """A checkpoint's manifest, after every file has been compared with it.

  Raises:
    DamagedCheckpointError: names the file that is missing, new or altered.
  """
  place = folder / f'{_PREFIX}{step:08d}'
  try:
    text = (place / 'manifest.json').read_text()
    manifest = json.loads(text)
    manifest.pop('sha256')
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise DamagedCheckpointError(f'{place}: its manifest cannot be read ({_first_line(error)})') from error
  if text != _text(manifest):
    raise DamagedCheckpointError(f'{place}: its manifest was altered')
  present = {str(path.relative_to(place)) for path in place.rglob('*') if path.is_file()} - {'manifest.json'}
  for name in sorted(present | set(manifest['files'])):
    if name not in present or manifest['files'].get(name) != _digest(place / name):
      raise DamagedCheckpointError(f'{place}: {name} is {"altered" if name in present else "missing"}')
  return manifest


def restore(folder: pathlib.Path, step: int, like: PyTree) -> PyTree:
  """A checkpoint's tree, verified.

  Args:
    folder: where the checkpoints of the run live.
    step: which one.
    like: a tree of the same structure, shapes and dtypes (arrays or `jax.ShapeDtypeStruct`s).
  Returns:
    The tree, as NumPy arrays.
  Raises:
    DamagedCheckpointError: the files do not match the manifest.
    OtherStructureError: the manifest does not match `like`; the message names the first difference.
  """
  manifest = read(folder, step)
  wanted = _describe(like)
  if manifest['arrays'] != wanted:
    there = manifest['arrays']
    name = next(name for name in {**wanted, **there} if wanted.get(name) != there.get(name))
    raise OtherStructureError(
      f'{folder}: step {step} was written for another structure: {name} is {there.get(name, "missing")} there and '
      f'{wanted.get(name, "missing")} here; go on with the code that wrote it, or remove the folder.')
  leaves, structure = jax.tree.flatten(like)
  target = {f'{i:05d}': _packed(np.zeros(leaf.shape, leaf.dtype)) for i, leaf in enumerate(leaves)}
  empty = {name: array for name, array in target.items() if not array.size}
  with ocp.StandardCheckpointer() as checkpointer:
    place = (folder / f'{_PREFIX}{step:08d}' / 'arrays').absolute()
    stored = empty | checkpointer.restore(place, {name: target[name] for name in target.keys() - empty.keys()})
  return jax.tree.unflatten(
    structure, [_unpacked(stored[name], leaf) for name, leaf in zip(sorted(stored), leaves, strict=True)])


def latest(folder: pathlib.Path, like: PyTree) -> tuple[int, PyTree] | None:
  """The newest sound checkpoint; damaged ones are passed over with a warning.

  Args:
    folder: where the checkpoints of the run live; may not exist.
    like: as for `restore`.
  Returns:
    (step, tree), or None where there is no sound checkpoint.
  Raises:
    OtherStructureError: it is sound, but of another structure than `like`.
  """
  if folder.exists():
    _remove_partial(folder)
  for step in reversed(steps(folder)):
    try:
      return step, restore(folder, step, like)
    except DamagedCheckpointError as error:
      warnings.warn(f'passing over a damaged checkpoint: {error}', stacklevel=2)
  return None


def _packed(array: np.ndarray) -> np.ndarray:
  """A bool array as bits, eight to a byte; any other as it is."""
  return np.packbits(array) if array.dtype == bool else array


def _unpacked(stored: np.ndarray, like: Any) -> np.ndarray:
  if like.dtype != bool:
    return stored
  return np.unpackbits(np.asarray(stored), count=like.size).astype(bool).reshape(like.shape)


def _describe(tree: PyTree) -> dict[str, str]:
  """Key path to 'dtype[shape]', in the tree's order; bool arrays are 'bits'."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path): f'{"bits" if leaf.dtype == bool else np.dtype(leaf.dtype)}{list(leaf.shape)}'
    for path, leaf in leaves}


def _digest(path: pathlib.Path) -> list[Any]:
  with open(path, 'rb') as file:
    return [path.stat().st_size, hashlib.file_digest(file, 'sha256').hexdigest()]


def _text(manifest: Mapping[str, Any]) -> str:
  """A manifest with its own checksum, byte for byte as it is stored."""
  return json.dumps({**manifest, 'sha256': hashlib.sha256(json.dumps(manifest).encode()).hexdigest()})


def _write(path: pathlib.Path, text: str) -> None:
  with open(path, 'w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: pathlib.Path) -> None:
  """Flush a folder's files and its entries, so that a rename never comes before what it names."""
  for path in [folder, *folder.rglob('*')] if folder.name.startswith(_PARTIAL) else [folder]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)


def _remove_partial(folder: pathlib.Path) -> None:
  for path in folder.glob(f'{_PARTIAL}*'):
    shutil.rmtree(path)


def _first_line(error: BaseException) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0]
