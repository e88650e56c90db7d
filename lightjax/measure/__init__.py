"""One definition of every figure that a table prints."""
from lightjax.measure.counts import Counts, count
from lightjax.measure.sizes import LayerSize, layers

__all__ = ['Counts', 'LayerSize', 'count', 'layers']
