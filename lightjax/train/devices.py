"""Devices of this process: how many, the mesh over them, and the compilation cache."""
from __future__ import annotations

import ctypes
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import jaxlib
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lightjax.core.typing import PyTree

__all__ = ['configure', 'cores', 'mesh', 'replicate', 'shard', 'topology', 'versions']


_configured = False

# Options of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def cores() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def configure(*, cpu_devices: int | None = None, cache: pathlib.Path | str | None = None) -> None:
  """Set up JAX, before its first use in the process; the first call decides, later ones change nothing.

  Args:
    cpu_devices: virtual CPU devices; None: one for each core that the process may use. Each run takes as many of them
      as its config says.
    cache: folder of the persistent compilation cache; None: `$JAX_COMPILATION_CACHE_DIR` or ~/.cache/lightjax/compiled.
  """
  global _configured
  if _configured:
    return
  _configured = True
  _keep_freed_memory()
  jax.config.update('jax_num_cpu_devices', cpu_devices or cores())
  home = pathlib.Path.home() / '.cache' / 'lightjax' / 'compiled'
  folder = cache or os.environ.get('JAX_COMPILATION_CACHE_DIR') or home
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _keep_freed_memory() -> None:
  """Let the C library keep the memory that JAX frees, where it is glibc.

  Otherwise each step on CPU gets its buffers from the system and gives them back: a page fault for every 4 KiB, which
  can take as long as the arithmetic.
  """
  if platform.libc_ver()[0] != 'glibc':
    return
  c_library = ctypes.CDLL(None)
  for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_ARENA_MAX, 1)):
    c_library.mallopt(option, value)


def mesh(count: int) -> Mesh:
  """The first `count` devices on one axis, 'data'.

  Args:
    count: 1 or more.
  Raises:
    ValueError: the process has fewer.
  """
  devices = jax.devices()
  if not 1 <= count <= len(devices):
    raise ValueError(
      f'devices={count}, but this process has {len(devices)} ({devices[0].platform}); '
      'start it with more cores or accelerators, or set --config.devices.'
    )
  return Mesh(np.array(devices[:count]), ('data',))


def replicate(tree: PyTree, over: Mesh) -> PyTree:
  """The same arrays on every device of the mesh."""
  return jax.device_put(tree, NamedSharding(over, PartitionSpec()))


def shard(arrays: Sequence[Any], over: Mesh) -> list[Any]:
  """Arrays split over the devices along their first axis."""
  return [jax.device_put(array, NamedSharding(over, PartitionSpec('data'))) for array in arrays]


def topology(over: Mesh) -> dict[str, Any]:
  """What bit-identical resumption depends on: platform and number of devices."""
  device = over.devices.flat[0]
  return {'platform': device.platform, 'kind': device.device_kind, 'devices': over.size}


def versions() -> dict[str, Any]:
  """Versions and flags that a row of results carries."""
  from importlib import metadata
  names = ('lightjax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {name: metadata.version(name) for name in names} | {
    'jaxlib': jaxlib.__version__, 'python': platform.python_version(), 'xla_flags': os.environ.get('XLA_FLAGS', ''),
  }
