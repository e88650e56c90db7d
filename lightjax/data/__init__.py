"""Labelled images from any source, the order in which training sees them, and their augmentation.

`load` gives the splits. Which examples step `s` sees is `batch_indices(s, ...)`, a pure function, so a resumed run
needs no data state. Sets that fit in memory are gathered on the device by these indices; `stream` gives the same
batches from sets that do not fit. TensorFlow is never needed to read; TensorFlow Datasets and grain are imported when
they are used.
"""
from lightjax.data import augment
from lightjax.data.augment import normalize
from lightjax.data.loading import Info, Sizes, Splits, load
from lightjax.data.order import batch_indices, epoch_order, evaluation_batches, steps_per_epoch
from lightjax.data.sources import DataError, Source
from lightjax.data.streaming import stream

__all__ = (
  'DataError', 'Info', 'Sizes', 'Source', 'Splits', 'augment', 'batch_indices', 'epoch_order', 'evaluation_batches',
  'load', 'normalize', 'steps_per_epoch', 'stream',
)
