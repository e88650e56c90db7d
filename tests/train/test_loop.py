"""The training loop by itself, over a state that only counts: what it calls, when, and how it stops."""
import os
import signal

import jax.numpy as jnp
import pytest

from lightjax.core.transform import Own
from lightjax.train import loop
from lightjax.train.state import TrainState, empty_totals


def counting(step=0):
  return TrainState(
    step=jnp.int32(step), params={}, collections={}, own=Own(), opt_state=(), average=None, totals=empty_totals(),
    failed=(jnp.int32(-1), jnp.int32(-1)))


def fit(state, *, steps=6, epoch_steps=2, save_seconds=1000.0, stop=(), advance=None):
  """Every call that the loop makes, as (what, step), and the last state."""
  calls, first = [], int(state.step)

  def count(state, batch):
    assert batch == int(state.step)
    totals = {**state.totals, 'examples': state.totals['examples'] + 1}
    return state.replace(step=state.step + 1, totals=totals)

  def end_epoch(state, done):
    assert float(state.totals['examples']) == done - max(done - epoch_steps, first)  # those of the epoch
    calls.append(('epoch', done))

  def save(state):
    calls.append(('save', int(state.step)))

  try:
    last = loop.fit(
      state, advance or count, iter(range(first, 100)), loop.Plan(steps, epoch_steps, save_seconds),
      end_epoch=end_epoch, save=save, diagnose=lambda state, step, leaf: f'leaf {leaf}', stop=list(stop),
      report=lambda done, speed: None)
  except loop.Interrupted as error:
    return calls, error
  return calls, last


def test_epochs_end_and_the_last_state_is_saved():
  calls, last = fit(counting())
  assert calls == [('epoch', 2), ('epoch', 4), ('epoch', 6), ('save', 6)]
  assert int(last.step) == 6 and float(last.totals['examples']) == 0


def test_an_epoch_that_does_not_fill_up_ends_with_the_run():
  calls, _ = fit(counting(4), steps=5)
  assert calls == [('epoch', 5), ('save', 5)]


def test_a_run_that_is_done_takes_no_step():
  calls, last = fit(counting(6))
  assert calls == [] and int(last.step) == 6


def test_the_longest_time_between_checkpoints_is_kept():
  calls, _ = fit(counting(), save_seconds=0.0)
  assert [call for call in calls if call[0] == 'save'] == [('save', step) for step in range(1, 7)]


def test_a_signal_saves_after_the_step_and_says_how_to_go_on():
  calls, error = fit(counting(), stop=[signal.SIGTERM])
  assert calls == [('save', 1)]
  assert isinstance(error, loop.Interrupted) and error.signal == signal.SIGTERM
  assert str(error) == 'stopped by SIGTERM after step 1; the same command goes on from there.'


def test_a_signal_in_the_last_step_lets_the_run_end():
  calls, last = fit(counting(5), stop=[signal.SIGINT], epoch_steps=1)
  assert calls == [('epoch', 6), ('save', 6)] and int(last.step) == 6


def test_a_failed_step_is_found_before_its_state_is_judged_or_saved():
  def fail(state, batch):
    return state.replace(step=state.step + (batch < 3), failed=(jnp.int32(3 if batch > 2 else -1), jnp.int32(7)))

  with pytest.raises(loop.Diverged, match=r'^step 4: leaf 7$'):
    fit(counting(2), advance=fail)


def test_signals_are_noted_once_and_handlers_come_back():
  before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  with loop.catch_signals() as received:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # as a batch system and a parent that both ask do
    assert received == [signal.SIGTERM]
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
  assert {number: signal.getsignal(number) for number in before} == before
