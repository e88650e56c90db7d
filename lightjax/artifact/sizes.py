"""Where the bytes of an artifact go."""
from __future__ import annotations

from typing import NamedTuple

from lightjax.core.typing import Path

PARTS = ('positions', 'values', 'codebooks', 'scales', 'rest')


class ArraySize(NamedTuple):
  """Bytes of one array in the file.

  Attributes:
    path: a parameter's path; other collections and activation ranges start with their name ('batch_stats/norm/mean').
    positions: where the non-zeros of a sparse array stand.
    values: the values of a coded array: integer codes, or indices into its codebook.
    codebooks: the distinct values that the indices are of.
    scales: the float32 scales and zero points of codes.
    rest: an array that is stored as it is, dense.
  """
  path: Path
  positions: int = 0
  values: int = 0
  codebooks: int = 0
  scales: int = 0
  rest: int = 0

  @property
  def total(self) -> int:
    """Bytes of all parts."""
    return sum(getattr(self, part) for part in PARTS)


class Sizes(NamedTuple):
  """The bytes of an artifact; `str()` gives a table.

  Attributes:
    total: length of the file; the size figure of every table.
    header: what belongs to no array: the description of all arrays, network, meta, lengths and checksum.
    arrays: one entry an array, in the file's order; their totals and the header add up to `total`.
  """
  total: int
  header: int
  arrays: tuple[ArraySize, ...]

  def part(self, name: str) -> int:
    """Bytes of one of `PARTS` over all arrays."""
    return sum(getattr(array, name) for array in self.arrays)

  def layers(self) -> tuple[ArraySize, ...]:
    """The arrays of a module as one: 'fc1' for 'fc1/kernel' and 'fc1/bias', in the file's order."""
    found: dict[Path, list[ArraySize]] = {}
    for array in self.arrays:
      found.setdefault(array.path.rpartition('/')[0] or array.path, []).append(array)
    return tuple(
      ArraySize(layer, *(sum(getattr(array, part) for array in arrays) for part in PARTS))
      for layer, arrays in found.items())

  def __str__(self) -> str:
    parts = (*PARTS, 'total')
    rows: list[tuple[str, ...]] = [('bytes', *parts)]
    rows += [(array.path, *(str(getattr(array, part)) for part in parts)) for array in self.arrays]
    rows += [('header', *[''] * len(PARTS), str(self.header))]
    rows += [('file', *(str(self.part(part)) for part in PARTS), str(self.total))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(parts) + 1)]
    lines = []
    for path, *figures in rows:
      cells = [path.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))]
      lines.append('  '.join(cells))
    return '\n'.join(lines)
