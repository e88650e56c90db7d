"""Deep Compression of LeNet-300-100 and LeNet-5 on MNIST: error and size, beside Han et al. 2016.

Han, Mao, Dally 2016, arXiv:1510.00149, table 1. Each row is a run that starts from the one above: dense, pruned to the
share of each layer that the paper keeps, then shared with the paper's bits, trained codebooks, and stored with entropy
coding. `bytes` is the file, everything in it; `compression` is the bytes of all parameters in float32 over it.
Deviations: pruned on a cubic schedule in one run, where the paper repeats pruning and training; codebooks found with a
small penalty on the entropy of their indices; range coding in place of Huffman's. The layers are in the table
`han2016_layers`, of the same runs. Needs MNIST: from TFDS, or as idx files with --data_dir.
"""
from typing import Any

from experiments.engine.published import published

BASE, SEEDS, METRIC = 'deep_compression.py:lenet300', (0, 1, 2), 'test/accuracy'
COLUMNS = ('params', 'nonzeros', 'bytes', 'compression', 'seconds')
PAPER = 'Han 2016 Deep Compression'
NETWORKS = {'lenet300': 'LeNet-300-100', 'lenet5': 'LeNet-5'}


def _figure(network: str, layer: str):
  (figure,) = published('deep_compression', value='top1_err', paper=PAPER, table=1, network=network, layer=layer)
  return figure.labelled(network=network, weights={'Ref': 'dense', 'Compressed': 'pruned, shared'}[layer])


PUBLISHED = [_figure(network, layer) for network in NETWORKS.values() for layer in ('Ref', 'Compressed')]


def cells():
  """Dense, pruned, shared, for each network."""
  for name, network in NETWORKS.items():
    rate = next(figure for figure in published(
      'deep_compression', value='compress_x', paper=PAPER, table=1, network=network, layer='Compressed')).value
    for step, weights in (('', 'dense'), ('_pruned', 'pruned'), ('_shared', 'pruned, shared')):
      options: dict[str, Any] = {'base': f'deep_compression.py:{name}{step}'}
      if step == '_shared':
        options['beside'] = {'compression': rate}
      yield {'network': network, 'weights': weights}, {}, options
