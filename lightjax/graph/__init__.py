"""What one trace of a network tells: its operations and their MACs, the parameters behind them, the source of a NaN."""
from lightjax.graph.channels import ChannelGraph, Constraint, Group, Member, channels
from lightjax.graph.factored import FactorError, Use, factored, uses
from lightjax.graph.links import Link, links
from lightjax.graph.nonfinite import first_nonfinite
from lightjax.graph.streams import Read, streams
from lightjax.graph.trace import Operation, Trace, layouts, trace

__all__ = [
  'ChannelGraph', 'Constraint', 'FactorError', 'Group', 'Link', 'Member', 'Operation', 'Read', 'Trace', 'Use',
  'channels', 'factored', 'first_nonfinite', 'layouts', 'links', 'streams', 'trace', 'uses',
]
