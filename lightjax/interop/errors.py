"""What goes wrong with weights, as one kind of error."""
from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator


class WeightsError(ValueError):
  """Weights that do not fit a network, or a file that holds none that can be read."""


# What readers of bytes that are already in memory raise where the bytes are damaged.
_DAMAGE = (
  ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, OSError, RuntimeError, MemoryError,
  struct.error, zlib.error, zipfile.BadZipFile,
)


@contextlib.contextmanager
def damage_named(what: str) -> Iterator[None]:
  """Turns the errors of a reader into a `WeightsError` that says what cannot be read.

  Args:
    what: the subject of the sentence.
  """
  try:
    yield
  except WeightsError:
    raise
  except _DAMAGE as error:
    raise WeightsError(f'{what} cannot be read: {str(error).rstrip(".")[:300]}.') from error
