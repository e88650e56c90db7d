"""Times of calls that take turns."""
import time

import pytest

from lightjax import measure


def test_calls_take_turns_and_medians_are_theirs():
  order = []

  def call(name, seconds):
    def run():
      order.append(name)
      time.sleep(seconds)
    return run

  found = measure.side_by_side({'slow': call('slow', 0.02), 'quick': call('quick', 0.002)}, rounds=4, warmup=1)
  assert order[:2] == ['slow', 'quick'] and order[2:] == ['slow', 'quick', 'quick', 'slow'] * 2
  assert 20 <= found['slow'].quarter_ms <= found['slow'].median_ms <= found['slow'].three_quarters_ms
  assert 2 <= found['quick'].median_ms < found['slow'].median_ms and found['quick'].rounds == 4


def test_too_few_rounds():
  with pytest.raises(ValueError, match='quartiles need 4 rounds'):
    measure.side_by_side({'any': lambda: None}, rounds=2)
