"""The training loop: steps, epochs, checkpoints, and what happens when a run is interrupted or diverges."""
from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from lightjax.train import state as states
from lightjax.train.state import TrainState

__all__ = ['Diverged', 'Interrupted', 'Plan', 'catch_signals', 'fit']

_REPORT_SECONDS = 0.5


class Interrupted(Exception):
  """The run was asked to stop by a signal and has saved its state.

  Attributes:
    signal: the signal's number.
  """

  def __init__(self, number: int, step: int):
    name = signal.Signals(number).name
    super().__init__(f'stopped by {name} after step {step}; the same command goes on from there.')
    self.signal = number


class Diverged(ArithmeticError):
  """The loss or a gradient is not finite; the message names the step and the layer."""


class Plan(NamedTuple):
  """When things happen, in steps and seconds.

  Attributes:
    steps: the run's last step.
    epoch_steps: steps of an epoch.
    save_seconds: longest time between two checkpoints.
  """
  steps: int
  epoch_steps: int
  save_seconds: float


def fit(
  state: TrainState,
  advance: Callable[[TrainState, Any], TrainState],
  batches: Iterator[Any],
  plan: Plan,
  *,
  end_epoch: Callable[[TrainState, int], None],
  save: Callable[[TrainState], None],
  diagnose: Callable[[TrainState, int, int], str],
  report: Callable[[int, float], None],
  stop: list[int],
) -> TrainState:
  """Train from `state.step` to `plan.steps`.

  Args:
    state: where to begin.
    advance: (state, batch) -> state; the jitted step.
    batches: the batches from `state.step` on.
    plan: when things happen.
    end_epoch: (state, steps completed): evaluate and log; called before the epoch's sums are cleared.
    save: write a checkpoint.
    diagnose: (state before the failed step, step, gradient leaf) -> what went wrong where.
    report: (steps completed, steps per second), about twice a second.
    stop: signals received; see `catch_signals`.
  Returns:
    The state after the last step, saved.
  Raises:
    Interrupted: a signal came; the state is saved.
    Diverged: a step was not finite; nothing after the last checkpoint is saved.
  """
  done = int(state.step)
  began = reported = saved = time.monotonic()
  counted = done
  for step, batch in zip(range(done, plan.steps), batches, strict=False):
    state = advance(state, batch)
    done = step + 1
    now = time.monotonic()
    if step == counted:  # the first step compiles; its time is no speed
      jax.block_until_ready(state.step)
      began = reported = time.monotonic()
    elif now - reported > _REPORT_SECONDS:
      jax.block_until_ready(state.step)
      reported = time.monotonic()
      report(done, (done - counted - 1) / (reported - began))
    ends_epoch = done % plan.epoch_steps == 0 or done == plan.steps
    if ends_epoch or stop or now - saved > plan.save_seconds:
      _check(state, diagnose)
    if ends_epoch:
      end_epoch(state, done)
      state = state.replace(totals=states.empty_totals())
    if stop or now - saved > plan.save_seconds or done == plan.steps:
      save(state)
      saved = time.monotonic()
    if stop and done < plan.steps:
      raise Interrupted(stop[0], done)
  return state


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
  """Within it, SIGINT and SIGTERM are noted in the yielded list instead of ending the process.

  A SIGINT after another signal ends it at once. A further SIGTERM doesn't: batch systems send it to all processes,
  so that a worker gets it from there and from its parent, and must finish saving.
  """
  received: list[int] = []

  def note(number: int, frame: Any) -> None:
    if received and number == signal.SIGINT:
      raise KeyboardInterrupt
    if not received:
      received.append(number)

  before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _check(state: TrainState, diagnose: Callable[[TrainState, int, int], str]) -> None:
  step, leaf = (int(each) for each in state.failed)
  if step >= 0:
    raise Diverged(f'step {step + 1}: {diagnose(state, step, leaf)}')
