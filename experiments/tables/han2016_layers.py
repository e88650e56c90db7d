"""Deep Compression of LeNet-300-100 and LeNet-5 on MNIST, layer by layer, beside Han et al. 2016.

Han, Mao, Dally 2016, arXiv:1510.00149, tables 2 and 3; the runs are those of the table `han2016`. Density is the share
of the weights that is kept; bits are those of a kept weight's index into its codebook and of its position, plain (of
fixed width) and entropy-coded; the rate is all bytes of a layer over those of float32. The paper's rates count bits
of weights and positions; ours count codebooks too, and for `all` biases and the file's header. The paper's positions
are gaps of 5 bits; ours are gaps or a bitmap, whichever is smaller.
"""
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'deep_compression.py:lenet300_shared', (0, 1, 2), 'coded/rate'
# Our columns and those of the paper's tables, in its percents and bits.
THEIRS = {
  'density': ('weights_kept_pct', 0.01),
  'plain/value_bits': ('weight_bits_PQ', 1), 'coded/value_bits': ('weight_bits_PQH', 1),
  'plain/position_bits': ('index_bits_PQ', 1), 'coded/position_bits': ('index_bits_PQH', 1),
  'plain/rate': ('compress_pct_PQ', 0.01)}
COLUMNS = (*THEIRS, 'coded/bytes')
HIGHER_IS_BETTER = False
PAPER = 'Han 2016 Deep Compression'
# The network, its table in the paper, and each of its layers: the paper's name and ours.
NETWORKS = {
  'lenet300': ('LeNet-300-100', 2, {'ip1': 'fc1', 'ip2': 'fc2', 'ip3': 'fc3', 'Total': ''}),
  'lenet5': ('LeNet-5', 3, {'conv1': 'conv1', 'conv2': 'conv2', 'ip1': 'fc1', 'ip2': 'fc2', 'Total': ''})}


def cells():
  """A row for each layer, and one for all of the network."""
  for name, (network, table, layers) in NETWORKS.items():
    for theirs, ours in layers.items():
      def figure(column: str, network=network, table=table, layer=theirs):
        (found,) = published(
          'deep_compression', value=column, paper=PAPER, table=table, network=network, layer=layer)
        return found

      rate = figure('compress_pct_PQH')
      options = {
        'base': f'deep_compression.py:{name}_shared', 'published': rate._replace(value=rate.value / 100),
        'beside': {column: scale * figure(name_of).value for column, (name_of, scale) in THEIRS.items()}}
      if ours:
        options['layer'] = f'{ours}/kernel'
      yield {'network': network, 'layer': ours or 'all'}, {}, options
