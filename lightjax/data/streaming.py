"""Batches read ahead with grain, in the order of `batch_indices`: for sets that do not fit in memory."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from absl import flags

from lightjax.data.order import batch_indices, steps_per_epoch
from lightjax.data.sources import Source

READ_THREADS = 4
BATCHES_AHEAD = 8


def stream(
  source: Source, *, seed: int, batch_size: int, start_step: int, stop_step: int, workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
  """The batches of steps start_step..stop_step-1, exactly those that `batch_indices` names.

  The grain data set has one element per step, with random access: a run resumed at step s reads nothing before s.

  Args:
    source: the training examples.
    seed: of the order, 0..2**64-1.
    batch_size: examples per step.
    start_step: first step, counted from 0 over all epochs.
    stop_step: one past the last step.
    workers: 0 reads in threads of this process; n > 0 reads in n processes, worth their start of seconds where
      decoding is slow. The calling program then needs the usual `if __name__ == '__main__'`.
  Returns:
    An iterator over {'image': uint8 [b, h, w, c], 'label': int32 [b], 'index': int32 [b]}.
  Raises:
    ValueError: no full batch fits, or the steps are out of order.
  """
  import grain

  steps_per_epoch(len(source), batch_size)
  if not 0 <= start_step <= stop_step:
    raise ValueError(f'stream: steps {start_step}..{stop_step} are out of order; need 0 <= start_step <= stop_step.')
  read = _ReadStep(source, seed=seed, batch_size=batch_size)
  batches = grain.MapDataset.range(start_step, stop_step).map(read).to_iter_dataset(
    grain.ReadOptions(num_threads=READ_THREADS, prefetch_buffer_size=BATCHES_AHEAD))
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags, which nobody parsed outside an absl program
    batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
  return iter(batches)


class _ReadStep:
  def __init__(self, source: Source, *, seed: int, batch_size: int) -> None:
    self.source, self.seed, self.batch_size = source, seed, batch_size

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    index = batch_indices(step, seed=self.seed, size=len(self.source), batch_size=self.batch_size)
    image, label = self.source.take(index)
    return {'image': image, 'label': label, 'index': index}
