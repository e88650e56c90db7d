"""Why a unit ended without a result, in one line: an exception, a signal, an exit code, memory that ran out."""

from __future__ import annotations

import pathlib
import signal

_REMEDY = 'fewer --jobs, or a smaller batch_size'


def of_exception(error: BaseException) -> str:
  """What an exception says, in one line; memory that ran out, on the host or on an accelerator, is called that.

  Args:
    error: what the unit raised.
  Returns:
    '<type>: <first line>', behind 'out of memory (<remedy>): ' where it is about memory.

  Example:
    >>> of_exception(ValueError('sparsity 1.5 is above 1'))
    'ValueError: sparsity 1.5 is above 1'
    >>> of_exception(RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.'))[:13]
    'out of memory'
  """
  first = (str(error).strip().splitlines() or [''])[0]
  line = f'{type(error).__name__}: {first[:300]}'
  # XLA has one class of error for everything; only its text has the status code.
  if isinstance(error, MemoryError) or first.startswith('RESOURCE_EXHAUSTED'):
    return f'out of memory ({_REMEDY}): {line}'
  return line


def of_process(code: int, *, kills: int) -> str:
  """How a worker process ended.

  Args:
    code: as `subprocess` has it, negative for a signal.
    kills: processes that the kernel killed for lack of memory while the worker lived, see `out_of_memory_kills`.
  Returns:
    One line.

  Example:
    >>> of_process(3, kills=0), of_process(-11, kills=0)
    ('worker ended with exit code 3', 'worker killed by SIGSEGV')
  """
  if code >= 0:
    return f'worker ended with exit code {code}'
  name = signal.Signals(-code).name
  if name == 'SIGKILL' and kills:
    return f'out of memory ({_REMEDY}): worker killed by {name}'
  return f'worker killed by {name}'


def out_of_memory_kills(path: pathlib.Path = pathlib.Path('/proc/vmstat')) -> int:
  """Processes that the kernel has killed for lack of memory since it started; 0 where it does not tell.

  Args:
    path: the kernel's counters.
  Returns:
    Their number, of the whole machine: one that was killed in a container is among them.
  """
  try:
    lines = path.read_text().splitlines()
  except OSError:
    return 0
  return next((int(line.split()[1]) for line in lines if line.startswith('oom_kill ')), 0)
