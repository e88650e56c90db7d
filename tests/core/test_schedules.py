import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.core import schedules


@given(
  initial=st.floats(0, 1), final=st.floats(0, 1), begin=st.integers(0, 1000), length=st.integers(1, 100_000),
  step=st.integers(0, 200_000),
)
def test_cubic_is_equation_1_of_zhu_and_gupta(initial, final, begin, length, step):
  end = begin + length
  schedule = schedules.cubic(initial, final, begin=begin, end=end)
  t = np.clip(step, begin, end)
  expected = final + (initial - final) * (1 - (t - begin) / length) ** 3
  np.testing.assert_allclose(schedule.value(step), expected, atol=1e-12)
  assert schedule.value(end) == schedule.value(end + 1) == final
  assert schedule.value(begin) == pytest.approx(initial, abs=1e-15)


@given(begin=st.integers(0, 50), length=st.integers(0, 200), every=st.integers(1, 250))
def test_steps_are_begin_end_and_every_so_many_between(begin, length, every):
  steps = schedules.Schedule(float, begin, begin + length).steps(every)
  expected = sorted({step for step in range(begin, begin + length) if (step - begin) % every == 0} | {begin + length})
  assert steps.tolist() == expected
  assert steps.dtype == np.int32


def test_schedules_that_act_once():
  assert schedules.constant(0.5).steps(10).tolist() == [0]
  assert schedules.one_shot(0.5, begin=30).steps(10).tolist() == [30]
  assert schedules.constant(0.5).value(9) == schedules.one_shot(0.5, begin=30).value(30) == 0.5


def test_optax_schedules_are_followed():
  schedule = schedules.from_optax(optax.linear_schedule(0.0, 1.0, 10), begin=0, end=10)
  assert [schedule.value(int(step)) for step in schedule.steps(5)] == [0.0, 0.5, 1.0]


def test_impossible_spans_are_refused():
  with pytest.raises(ValueError, match='end=5 must lie after begin=5'):
    schedules.cubic(0.0, 1.0, begin=5, end=5)
  with pytest.raises(ValueError, match='end=4 lies before begin=5'):
    schedules.from_optax(float, begin=5, end=4)
  with pytest.raises(ValueError, match='every=0'):
    schedules.constant(0.5).steps(0)
