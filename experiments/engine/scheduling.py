"""Runs work units in worker processes: what is needed first, nothing twice; a failed unit never stops the others."""

from __future__ import annotations

import collections
import contextlib
import glob
import importlib.util
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection as pipes
from types import ModuleType
from typing import Any, NamedTuple

import ml_collections

from experiments.engine import endings, worker
from experiments.engine.errors import TableError

_TICK_SECONDS = 0.25
# What a unit may take to write its checkpoint after SIGTERM.
GRACE_SECONDS = 60.0


class Unit(NamedTuple):
  """One piece of work: what must be done first (ids), and the group whose compiled functions it shares."""

  id: str
  config: ml_collections.ConfigDict
  name: str
  needs: tuple[str, ...]
  group: int


class Share(NamedTuple):
  """What one worker gets: cores, environment, and one line that says so."""

  cores: tuple[int, ...]
  environment: Mapping[str, str]
  text: str


class Event(NamedTuple):
  """What happened: kind is 'start', 'progress', 'retry', 'done', 'failed' or 'dropped' (a prerequisite failed)."""

  kind: str
  unit: Unit
  worker: int | None
  detail: Any = None


def collect(
  unit: ModuleType,
  config: ml_collections.ConfigDict,
  *,
  root: pathlib.Path,
  name: str,
  group: int,
  units: dict[str, Unit],
  results: dict[str, dict[str, Any]],
) -> str:
  """Adds a unit and, before it, everything that it needs; what is on disk or added already is left alone.

  Args:
    unit: the unit module (identify, prerequisites, result).
    config: complete config.
    root: folder of the units.
    name: for progress lines.
    group: units of one group go to one worker where that costs no balance.
    units: id to what must be run, in an order that respects prerequisites; changed in place.
    results: id to what was found on disk; changed in place.
  Returns:
    The id.
  """
  identity = unit.identify(config)
  if identity in units or identity in results:
    return identity
  result = unit.result(root, identity)
  if result is not None:
    results[identity] = result
    return identity
  needs = tuple(
    collect(unit, needed, root=root, name=f'{role} of {name}', group=group, units=units, results=results)
    for role, needed in unit.prerequisites(config).items()
  )
  units[identity] = Unit(identity, config, name, tuple(need for need in needs if need in units), group)
  return identity


def _accelerators() -> list[str]:
  """Indices of the NVIDIA devices that jax would use, without asking jax."""
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms and not any(word in platforms for word in ('cuda', 'gpu')):
    return []
  if not any(importlib.util.find_spec(f'jax_cuda{version}_plugin') for version in (12, 13)):
    return []
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return [name for name in visible.split(',') if name and name != '-1']
  return [str(index) for index in range(len(glob.glob('/dev/nvidia[0-9]*')))]


def _has_tpu() -> bool:
  platforms = os.environ.get('JAX_PLATFORMS', '')
  return importlib.util.find_spec('libtpu') is not None and (not platforms or 'tpu' in platforms)


def _part(whole: list[Any], index: int, parts: int) -> list[Any]:
  """One of `parts` contiguous parts that differ by at most one; where there is not one each, one in turn."""
  if parts > len(whole):
    return whole[index % len(whole) :][:1] if whole else []
  return whole[index * len(whole) // parts : (index + 1) * len(whole) // parts]


def plan(jobs: int) -> list[Share]:
  """Divides this machine between workers: its cores, and its NVIDIA devices where there are any.

  Cores are those this process may use (taskset and SLURM are heeded), in contiguous shares. With more workers than
  devices, several share one, each with its part of the memory.

  Args:
    jobs: number of workers.
  Returns:
    One share a worker.
  Raises:
    TableError: fewer than one worker, or several on a TPU, whose chips belong to one process.
  """
  if jobs < 1:
    raise TableError(f'--jobs={jobs}: want at least 1.')
  if jobs > 1 and _has_tpu():
    raise TableError(
      f'--jobs={jobs}: a TPU belongs to one process; use --jobs=1, or JAX_PLATFORMS=cpu to leave the TPU alone.'
    )
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  devices = _accelerators()
  shares = []
  for index in range(jobs):
    own = _part(cores, index, jobs) if jobs > 1 else cores
    threads = str(max(1, len(own)))
    environment = {'OMP_NUM_THREADS': threads, 'OPENBLAS_NUM_THREADS': threads, 'MKL_NUM_THREADS': threads}
    text = f'cores {",".join(map(str, own)) or "all"}'
    if devices:
      mine = _part(devices, index, jobs)
      if jobs > len(devices):
        environment['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / -(-jobs // len(devices)):.3f}'
      environment['CUDA_VISIBLE_DEVICES'] = ','.join(mine)
      text += f', GPU {",".join(mine)}'
    shares.append(Share(tuple(own), environment, text))
  return shares


class _Worker:
  """The parent's side of one worker process."""

  def __init__(self, index: int, share: Share):
    ours, theirs = socket.socketpair()
    self.kills_before = endings.out_of_memory_kills()
    # The modules that this process can import (a table's own, a user's package) can be imported there too.
    environment = {
      **os.environ,
      **share.environment,
      'PYTHONPATH': os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    # Its own session: Ctrl-C reaches this process only, which then asks the workers to save.
    self.process = subprocess.Popen(
      [sys.executable, '-m', worker.__name__, str(theirs.fileno()), ','.join(map(str, share.cores))],
      env=environment,
      pass_fds=(theirs.fileno(),),
      stdin=subprocess.DEVNULL,
      start_new_session=True,
    )
    theirs.close()
    self.index = index
    self.pipe = pipes.Connection(ours.detach())
    self.unit: Unit | None = None
    self.group: int | None = None

  def give(self, unit: Unit, *, module: str, root: pathlib.Path) -> None:
    self.unit, self.group = unit, unit.group
    self.pipe.send((module, str(root), unit.id, unit.config))

  def is_dead(self) -> bool:
    return self.process.poll() is not None

  def bury(self, *, patience_seconds: float = 0.0) -> int:
    """Ends the process and what it started, if they have not ended by themselves in time; the exit code."""
    self.pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.process.wait(patience_seconds)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    return self.process.wait()


class _Queue:
  """Units that are ready, by group: constant time a pick, and compiled functions stay where they are."""

  def __init__(self) -> None:
    self.groups: collections.OrderedDict[int, collections.deque[Unit]] = collections.OrderedDict()

  def add(self, unit: Unit) -> None:
    self.groups.setdefault(unit.group, collections.deque()).append(unit)

  def take(self, last: int | None, busy: set[int]) -> Unit | None:
    """The worker's own group, else one that no other worker is at, else a part of the longest."""
    if not self.groups:
      return None
    if last is None or last not in self.groups:
      # At most one more than there are workers is looked at.
      free = next((group for group in self.groups if group not in busy), None)
      last = free if free is not None else max(self.groups, key=lambda group: len(self.groups[group]))
    queue = self.groups[last]
    unit = queue.popleft()
    if not queue:
      del self.groups[last]
    return unit


def execute(
  units: Mapping[str, Unit],
  *,
  unit: ModuleType,
  root: pathlib.Path,
  shares: Sequence[Share],
  listen: Callable[[Event | None], None],
  retries: int = 0,
) -> dict[str, str]:
  """Runs all units, prerequisites first.

  A unit counts as done when `unit.result` reads its result from disk, never because a process ended.

  Args:
    units: id to unit, from `collect`.
    unit: the unit module, imported again by name in every worker (run, result).
    root: folder of the units.
    shares: one a worker.
    listen: called with every event, and with None a few times a second.
    retries: how often a unit is started again whose process died. One that raised an exception would raise it again.
  Returns:
    id to one line, for every unit that failed or was dropped.
  Raises:
    KeyboardInterrupt: after the workers were asked to save and have ended.
  """
  waiting = {identity: set(item.needs) for identity, item in units.items()}
  dependents: dict[str, list[str]] = collections.defaultdict(list)
  queue = _Queue()
  for identity, needs in waiting.items():
    for need in sorted(needs):
      dependents[need].append(identity)
    if not needs:
      queue.add(units[identity])
  errors: dict[str, str] = {}
  crashes: collections.Counter[str] = collections.Counter()
  left = len(waiting)
  workers: dict[int, _Worker] = {}

  def settle(item: Unit, error: str | None, at: int | None) -> None:
    nonlocal left
    left -= 1
    if error is None:
      listen(Event('done', item, at))
      for identity in dependents[item.id]:
        waiting[identity].discard(item.id)
        if not waiting[identity] and identity not in errors:
          queue.add(units[identity])
      return
    errors[item.id] = error
    listen(Event('dropped' if at is None else 'failed', item, at, error))
    for identity in dependents[item.id]:
      if identity not in errors:
        settle(units[identity], error if at is None else f'{item.name} failed: {error}', None)

  def conclude(member: _Worker, error: str | None, *, crashed: bool = False) -> None:
    item, member.unit = member.unit, None
    if item is None:
      return
    if unit.result(root, item.id) is not None:
      error = None
    elif crashed and crashes[item.id] < retries:
      crashes[item.id] += 1
      listen(Event('retry', item, member.index, f'{error}; try {crashes[item.id] + 1} of {retries + 1}'))
      queue.add(item)
      return
    elif error is None:
      error = 'ended without a valid result.json'
    settle(item, error, member.index)

  def receive(member: _Worker) -> None:
    while member.pipe.poll():
      kind, detail = member.pipe.recv()
      if kind != 'progress':
        conclude(member, detail)
      elif member.unit is not None:
        listen(Event('progress', member.unit, member.index, detail))

  def feed() -> None:
    busy = {member.group for member in workers.values() if member.unit is not None and member.group is not None}
    for index, share in enumerate(shares):
      member = workers.get(index)
      if member is not None and member.unit is not None:
        continue
      item = queue.take(member.group if member else None, busy)
      if item is None:
        return
      if member is not None and member.is_dead():
        member.bury()
        member = None
      if member is None:
        member = workers[index] = _Worker(index, share)
      busy.add(item.group)
      listen(Event('start', item, index))
      with contextlib.suppress(ConnectionError):  # it is dead at birth: seen below, where its exit code is known
        member.give(item, module=unit.__name__, root=root)

  try:
    while left:
      feed()
      ready = pipes.wait([member.pipe for member in workers.values()], _TICK_SECONDS)
      for member in list(workers.values()):
        dead = member.is_dead()  # asked first: what it sent before its end is read in any case
        if dead or member.pipe in ready:
          try:
            receive(member)
          except (EOFError, ConnectionError):
            dead = True
        if dead:
          del workers[member.index]
          code = member.bury(patience_seconds=2.0)  # its pipe closes a moment before it ends
          kills = endings.out_of_memory_kills() - member.kills_before
          conclude(member, endings.of_process(code, kills=kills), crashed=True)
      listen(None)
  finally:
    _close(list(workers.values()))
  return errors


def _close(workers: Sequence[_Worker]) -> None:
  """Ends the workers: idle ones by closing their pipe, busy ones by SIGTERM, and by SIGKILL if they are late."""
  try:
    for member in workers:
      if member.unit is None:
        member.pipe.close()
      elif not member.is_dead():
        member.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for member in workers:
      while not member.is_dead() and time.monotonic() < deadline:
        if member.pipe.closed:
          time.sleep(0.02)
          continue
        # A worker that saves may report progress still, and an unread pipe would block it. Any other word is its last.
        try:
          if member.pipe.poll(0.05) and member.pipe.recv()[0] != 'progress':
            member.pipe.close()
        except (EOFError, ConnectionError):
          member.pipe.close()
  finally:
    for member in workers:
      member.bury()
