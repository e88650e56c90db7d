"""One definition of every figure that a table prints."""
from lightjax.measure.counts import Counts, count
from lightjax.measure.latency import Latency, side_by_side
from lightjax.measure.sizes import LayerSize, layers

__all__ = ['Counts', 'Latency', 'LayerSize', 'count', 'layers', 'side_by_side']
