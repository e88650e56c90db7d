"""What every command shares: flags, devices, progress, and one readable line when something is wrong.

Exit codes: 0 done, 1 the work failed, 2 the command was wrong, 128 + signal when it was stopped and can be resumed.
Launchers start again what ended with 129, 130 or 143, and nothing else (launch/README.md).
"""
from __future__ import annotations

import contextlib
import functools
import pathlib
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from rich import console, progress


def launch(main: Callable[..., int], *, most_arguments: int = 0) -> None:
  """Run a command's `main`; what users get wrong ends in one line and an exit code, without a traceback.

  Args:
    main: gets what stands on the command line beside the flags, and returns the exit code.
    most_arguments: of these.
  """
  warnings.showwarning = _show_warning
  logging.set_verbosity(logging.ERROR)  # orbax logs a dozen lines a checkpoint
  app.run(
    lambda argv: sys.exit(_guarded(functools.partial(main, *argv[1:]))),
    flags_parser=functools.partial(_parse, most_arguments=most_arguments))


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


def _parse(argv: Sequence[str], *, most_arguments: int) -> list[str]:
  """absl's parsing; what is wrong with the command is one line."""
  try:
    rest = flags.FLAGS(list(argv))
    if len(rest) > 1 + most_arguments:
      raise flags.Error(f'unexpected argument {rest[1 + most_arguments]!r}; flags are written --name=value')
    problem = _missing_config(_given(argv))  # which absl would report at the first use only
  except SyntaxError as error:
    problem = f'{error.filename}, line {error.lineno}: {error.msg}'
  except (flags.Error, LookupError, AttributeError, TypeError, ValueError, OSError) as error:
    problem = _explain(error, _given(argv)) or str(error)
  if problem:
    _say(problem)
    sys.exit(2)
  return rest


def _given(argv: Sequence[str]) -> dict[str, str]:
  """The flags of a command line, name to value, in both ways to write them."""
  pairs = [
    (*argument.lstrip('-').partition('='), following)
    for argument, following in zip(argv[1:], [*argv[2:], ''], strict=False) if argument.startswith('-')]
  return {name: value if equals else following for name, equals, value, following in pairs}


def _missing_config(given: Mapping[str, str]) -> str:
  """A line for a --config that is no file, with the nearest of those that there are; empty for any other."""
  from experiments import configuration
  from lightjax.core import trees
  place = pathlib.Path(given.get('config', '').partition(':')[0])
  if 'config' not in given or place.is_file():
    return ''
  near = trees.nearest(place.name, [path.name for path in configuration.FOLDER.glob('*.py')])
  return f'--config={given["config"]}: no such file; nearest of {configuration.FOLDER}: {near}'


def _explain(error: Exception, given: Mapping[str, str]) -> str:
  """What the libraries' messages say less plainly: a missing flag, file or field; empty if it is something else."""
  from experiments import configuration
  from lightjax.core import trees
  if isinstance(error, flags.UnrecognizedFlagError) and not error.flagname.startswith('config.'):
    return ''
  for name in ('config', 'workdir'):
    if name in flags.FLAGS and flags.FLAGS[name].default is None and name not in given:
      return f'--{name} is missing. {flags.FLAGS[name].help}'
  if missing := _missing_config(given):
    return missing
  if not isinstance(error, AttributeError | KeyError):
    return ''
  fields = configuration.flatten(configuration.load(given['config']))
  wrong = (name.removeprefix('config.') for name in given if name.startswith('config.'))
  return next((
    f'the config has no field {field!r}; nearest: {trees.nearest(field, fields)}'
    for field in wrong if field not in fields), '')


def _guarded(main: Callable[[], int]) -> int:
  from lightjax.artifact import ArtifactError
  from lightjax.core.specs import SpecError
  from lightjax.data import DataError
  from lightjax.interop import WeightsError
  from lightjax.train import checkpoints, health, loop
  try:
    return main()
  except (SpecError, DataError, WeightsError) as error:
    _say(str(error))
    return 2
  except loop.Interrupted as stop:
    print(stop, file=sys.stderr)
    return 128 + stop.signal
  except KeyboardInterrupt:  # before or after the steps, or a second one while the state was being saved
    print('stopped by SIGINT; the same command goes on from the last checkpoint.', file=sys.stderr)
    return 128 + signal.SIGINT
  except (health.CompilerError, checkpoints.OtherStructureError, ArtifactError, ArithmeticError) as error:
    _say(str(error))
    return 1
  except OSError as error:
    _say(f'{error.filename}: {error.strerror}' if error.filename else str(error))
    return 1


def _say(text: str) -> None:
  print(f'error: {" ".join(text.split())}', file=sys.stderr)


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
  print(f'warning: {message}', file=sys.stderr)
