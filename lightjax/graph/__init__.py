"""What one trace of a network tells: its operations and their MACs, the parameters behind them, the source of a NaN."""
from lightjax.graph.nonfinite import first_nonfinite
from lightjax.graph.trace import Operation, Trace, layouts, trace

__all__ = ['Operation', 'Trace', 'first_nonfinite', 'layouts', 'trace']
