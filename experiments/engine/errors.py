"""The one exception that a user of a table should ever see, printed as a line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TableError(Exception):
  """What the user wrote cannot be done; the message is one sentence that names the value and the remedy."""


def nearest(word: str, known: Iterable[str], *, count: int = 3) -> str:
  """The known words that look most like `word`, for the end of an error message.

  Args:
    word: what was written.
    known: what could have been meant.
    count: how many are named.
  Returns:
    'nearest: a, b', or 'known: ...' with the first few in order when nothing is alike.

  Example:
    >>> nearest('sparcity', ['sparsity', 'seed'])
    'nearest: sparsity'
  """
  known = list(known)
  alike = difflib.get_close_matches(word, known, count, cutoff=0.5)
  if alike:
    return f'nearest: {", ".join(alike)}'
  return f'known: {", ".join(sorted(known)[:12])}{", ..." if len(known) > 12 else ""}'
