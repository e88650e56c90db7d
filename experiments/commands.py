"""What every command shares: flags, devices, progress, and one readable line when something is wrong.

Exit codes: 0 done, 1 the work failed, 2 the command was wrong, 128 + signal when it was stopped and can be resumed.
"""
from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from rich import console, progress


def launch(main: Callable[[], int]) -> None:
  """Run a command's `main`; what users get wrong ends in one line and an exit code, without a traceback."""
  warnings.showwarning = _show_warning
  logging.set_verbosity(logging.ERROR)  # orbax logs a dozen lines a checkpoint
  app.run(lambda argv: sys.exit(_guarded(main)), flags_parser=_parse)


def configure_devices(config: ml_collections.ConfigDict) -> None:
  """As many virtual CPU devices as the config shares its batches over; the rest of JAX's set-up."""
  from lightjax.train import devices
  devices.configure(cpu_devices=config.devices or None)


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Callable[[dict[str, Any]], None]]:
  """A line with phase, steps, speed and time left; where there is no terminal, plain lines now and then."""
  screen = console.Console(stderr=True)
  columns = (
    progress.TextColumn('{task.fields[unit]} {task.fields[phase]}'), progress.BarColumn(),
    progress.MofNCompleteColumn(), progress.TextColumn('{task.fields[speed]}'), progress.TimeRemainingColumn())
  with progress.Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
    task = bar.add_task('', total=1, unit=name, phase='', speed='')
    last_phase, last_share = '', 0.0

    def show(state: dict[str, Any]) -> None:
      speed = f'{state["steps_per_second"]:.1f} steps/s' if state.get('steps_per_second') else ''
      bar.update(task, completed=state['step'], total=state['steps'], phase=state['phase'], speed=speed)
      share = state['step'] / max(state['steps'], 1)
      nonlocal last_phase, last_share
      if not screen.is_terminal and (state['phase'] != last_phase or share >= last_share + 0.1):
        last_phase, last_share = state['phase'], share
        print(f'{name}: {state["phase"]} {state["step"]}/{state["steps"]} {speed}', file=sys.stderr, flush=True)

    yield show


def _parse(argv: Sequence[str]) -> list[str]:
  """absl's parsing; a misspelt field of the config is one line as well."""
  try:
    rest = flags.FLAGS(list(argv))
    if len(rest) > 1:
      raise flags.Error(f'unexpected argument {rest[1]!r}; flags are written --name=value')
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    _say(str(error).strip('\'"'))
    sys.exit(2)
  except Exception as error:
    if type(error).__name__ != 'SpecError':
      raise
    _say(str(error))
    sys.exit(2)
  return rest


def _guarded(main: Callable[[], int]) -> int:
  from lightjax.artifact import ArtifactError
  from lightjax.core.specs import SpecError
  from lightjax.data import DataError
  from lightjax.train import health, loop
  try:
    return main()
  except (SpecError, DataError) as error:
    _say(str(error))
    return 2
  except loop.Interrupted as stop:
    _say(str(stop))
    return 128 + stop.signal
  except (loop.Diverged, health.CompilerError, ArtifactError, ArithmeticError) as error:
    _say(str(error))
    return 1
  except OSError as error:
    _say(f'{error.filename}: {error.strerror}' if error.filename else str(error))
    return 1


def _say(text: str) -> None:
  print(f'error: {" ".join(text.split())}', file=sys.stderr)


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
  print(f'warning: {message}', file=sys.stderr)
