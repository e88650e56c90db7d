"""Time of a call, measured so that two functions can be compared: in turns, after a warm-up, by medians.

What else runs on the machine changes from second to second; calls that take turns suffer from it alike.
"""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

__all__ = ['Latency', 'side_by_side']


class Latency(NamedTuple):
  """Wall time of a call, in milliseconds.

  Attributes:
    median_ms: half of the calls took less.
    quarter_ms: a quarter of the calls took less; with the next the spread of half of the calls.
    three_quarters_ms: three quarters took less.
    rounds: calls measured.
  """
  median_ms: float
  quarter_ms: float
  three_quarters_ms: float
  rounds: int


def side_by_side(
  calls: Mapping[str, Callable[[], Any]], *, rounds: int = 30, warmup: int = 3,
) -> dict[str, Latency]:
  """Times functions in turns: one call of each, in an order that rotates, again and again.

  Args:
    calls: name to a function without arguments, jitted inside; what it returns is waited for.
    rounds: measured calls of each, 4 or more.
    warmup: calls of each before that, which compile and fill caches.
  Returns:
    Name to latency.
  Raises:
    ValueError: fewer rounds or nothing to measure.
  Example:
    >>> seen = side_by_side({'short': lambda: sum(range(10)), 'long': lambda: sum(range(100_000))}, rounds=5)
    >>> seen['short'].median_ms < seen['long'].median_ms
    True
  """
  if rounds < 4 or not calls:
    raise ValueError(f'side_by_side: {len(calls)} functions, rounds={rounds}; quartiles need 4 rounds of at least one.')
  names = list(calls)
  for _ in range(warmup):
    for call in calls.values():
      jax.block_until_ready(call())
  times: dict[str, list[float]] = {name: [] for name in names}
  for index in range(rounds):
    for name in (*names[index % len(names):], *names[:index % len(names)]):
      begun = time.perf_counter()
      jax.block_until_ready(calls[name]())
      times[name].append(1e3 * (time.perf_counter() - begun))
  return {name: _summary(each) for name, each in times.items()}


def _summary(times: list[float]) -> Latency:
  quarter, median, three_quarters = statistics.quantiles(times, n=4, method='inclusive')
  return Latency(median, quarter, three_quarters, len(times))
