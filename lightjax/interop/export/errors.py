"""What goes wrong with an export, as one kind of error."""
from __future__ import annotations


class ExportError(ValueError):
  """A network that a format cannot hold, a file that computes something else, or a converter that is not installed."""
