"""Binary weights and activations on CIFAR-10: VGG-small beside BinaryConnect and BNN.

Courbariaux, Bengio, David 2015, arXiv:1511.00363, table 2, and Courbariaux et al. 2016, arXiv:1602.02830, table 1
(Torch7). The runs are complete and not trained here: days each on 2 CPU cores.
"""
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'vgg_small_cifar10.py', (0, 1, 2), 'test/accuracy'

NAMES = {
  'No regularizer': 'no binarization', 'BinaryConnect (det.)': 'BinaryConnect, deterministic',
  'BinaryConnect (stoch.)': 'BinaryConnect, stochastic', 'BNN (Torch7)': 'BNN'}

PUBLISHED = [
  figure.labelled(method=NAMES[figure.columns['method']])
  for paper in ('BinaryConnect (Courbariaux 2015)', 'BNN (Courbariaux/Hubara 2016)')
  for figure in published('binary', paper=paper, dataset='CIFAR-10') if figure.columns['method'] in NAMES]


def cells():
  """No binarization, both BinaryConnects, BNN."""
  later = {'run': False}
  yield {'method': 'no binarization'}, {'compress.stages': ()}, later
  yield {'method': 'BinaryConnect, deterministic'}, {}, later
  yield {'method': 'BinaryConnect, stochastic'}, {
    'compress.binary_weights.binarizer': 'stochastic_binary_connect'}, later
  yield {'method': 'BNN'}, {}, {'base': 'vgg_small_cifar10.py:bnn', **later}
