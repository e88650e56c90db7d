"""A worker process: takes units over a pipe, one after another, until the pipe closes. Started by `scheduling`.

It pins itself to its cores before anything heavy is imported; its environment (threads, devices) is set by its parent.
What a unit prints goes to `<root>/<id>/log.txt`, tracebacks and faults of the interpreter too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from experiments.engine import endings

# A progress message costs the parent a wake-up; more than a few a second nobody can read.
_PROGRESS_SECONDS = 0.2


def log_path(root: pathlib.Path, identity: str) -> pathlib.Path:
  """Where the output of a unit goes.

  Args:
    root: folder of all units.
    identity: the unit's id.
  Returns:
    `<root>/<id>/log.txt`.
  """
  return root / identity / 'log.txt'


@contextlib.contextmanager
def _output_to(path: pathlib.Path) -> Iterator[None]:
  """Sends file descriptors 1 and 2 to a file: prints of C++ libraries and of child processes as well."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('ab', buffering=0) as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  try:
    yield
  finally:
    sys.stdout.flush()
    sys.stderr.flush()


@contextlib.contextmanager
def _alone(path: pathlib.Path, report: Callable[[dict[str, Any]], None]) -> Iterator[None]:
  """One process a unit: two tables that share a teacher do not train it twice at the same time."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w') as file:
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        report({'step': 0, 'steps': 0, 'phase': 'waiting: another process trains it'})
        time.sleep(1.0)
    yield


def _plain(value: Any) -> Any:
  """Numbers of NumPy or JAX as Python's own, so that the parent can read them without either."""
  return value if isinstance(value, (str, int, float, bool, type(None))) else float(value)


def serve(connection: Connection) -> None:
  """Takes units until the pipe closes.

  Messages to the worker: `(module, root, id, config)`. From it, for each: `('progress', dict)` now and then, at last
  `('done', None)` or `('failed', one line)`.

  Args:
    connection: the worker's end of the pipe.
  """
  last = 0.0

  def progress(figures: dict[str, Any]) -> None:
    nonlocal last
    if time.monotonic() - last < _PROGRESS_SECONDS:
      return
    last = time.monotonic()
    try:
      connection.send(('progress', {key: _plain(value) for key, value in figures.items()}))
    except ConnectionError:  # the parent was killed: save and end, as it would have asked
      os.kill(os.getpid(), signal.SIGTERM)

  while True:
    try:
      module, root, identity, config = connection.recv()
    except EOFError:
      return
    try:
      _perform(module, pathlib.Path(root), identity, config, progress)
      answer: tuple[str, str | None] = ('done', None)
    except Exception as error:
      answer = ('failed', endings.of_exception(error))
    try:
      connection.send(answer)
    except ConnectionError:
      return


def _perform(
  module: str, root: pathlib.Path, identity: str, config: Any, progress: Callable[[dict[str, Any]], None]
) -> None:
  with _output_to(log_path(root, identity)):
    try:
      with _alone(root / '.locks' / identity, progress):
        unit = importlib.import_module(module)
        if unit.result(root, identity) is None:
          unit.run(config, root, progress)
    except Exception:
      traceback.print_exc()
      raise


def _stop(signum: int, frame: Any) -> None:
  signal.signal(
    signum, signal.SIG_IGN
  )  # a second one (from the batch system and from the parent) must not disturb the saving
  raise SystemExit(128 + signum)


def main(arguments: list[str]) -> None:
  """Entry point: `worker.py DESCRIPTOR CORE,CORE,...`.

  Args:
    arguments: the inherited end of the pipe, and the cores to stay on ('' for all).
  """
  descriptor, cores = arguments
  if cores:
    os.sched_setaffinity(0, {int(core) for core in cores.split(',')})
  # A unit that saves on SIGTERM installs its own handler; for others this unwinds `finally` blocks and ends.
  signal.signal(signal.SIGTERM, _stop)
  faulthandler.enable()
  serve(Connection(int(descriptor)))


if __name__ == '__main__':
  main(sys.argv[1:])
