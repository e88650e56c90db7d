"""Binary weights and activations on MNIST: the perceptrons of BinaryConnect and BNN beside their papers.

BinaryConnect (Courbariaux, Bengio, David 2015, arXiv:1511.00363, table 2): three hidden layers of 1024 ReLUs, L2-SVM;
no binarization, deterministic and stochastic binary weights. BNN (Courbariaux et al. 2016, arXiv:1602.02830, table 1):
binary activations too, with layers of 4096 in the paper's Theano run and of 2048 in Torch7's. Ours has layers of 1024:
a deviation, which no published figure stands beside; the wider ones are complete, and not run here. 60 epochs, 54,000
images to train on. The file holds one bit a weight, but for stochastic BinaryConnect, which is tested with its real
weights. A run takes 16 minutes of one core; the twelve take about two hours on 2 cores with --jobs=2. Needs MNIST: from
TFDS, or as idx files with --data_dir.
"""
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'binary_mlp_mnist.py', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'params', 'macs', 'bytes', 'seconds')

BNN = 'binary_mlp_mnist.py:bnn'


def _figure(paper, **selection):
  (figure,) = published('binary', paper=paper, dataset='MNIST', **selection)
  return figure


PUBLISHED = [
  *(_figure('BinaryConnect (Courbariaux 2015)', method=method).labelled(method=label) for method, label in (
    ('No regularizer', 'no binarization'), ('BinaryConnect (det.)', 'BinaryConnect, deterministic'),
    ('BinaryConnect (stoch.)', 'BinaryConnect, stochastic'))),
  *(_figure('BNN (Courbariaux/Hubara 2016)', network=f'MLP 3x{width}').labelled(method='BNN', width=width)
    for width in (2048, 4096)),
]


def cells():
  """No binarization, both BinaryConnects, BNN by width."""
  yield {'method': 'no binarization', 'width': 1024}, {'compress.stages': ()}
  yield {'method': 'BinaryConnect, deterministic', 'width': 1024}, {}
  yield {'method': 'BinaryConnect, stochastic', 'width': 1024}, {
    'compress.binary_weights.binarizer': 'stochastic_binary_connect'}
  yield {'method': 'BNN', 'width': 1024}, {}, {'base': BNN}
  for width in (2048, 4096):
    yield {'method': 'BNN', 'width': width}, {'model.width': width}, {'base': BNN, 'run': False}
