"""LeNet-300-100 on MNIST, dense and with 8 % of its weights, beside Han et al. 2015.

Han et al. 2015, arXiv:1506.02626, table 1: 1.64 % error dense, 1.59 % with a twelfth of the weights. Deviations: pruned by
one global ranking on a cubic schedule while it trains, where the paper prunes layer by layer and retrains; 20 epochs;
54,000 images to train on, 6,000 to validate. Needs MNIST: from TFDS, or as idx files with --data_dir. Two minutes on 2 cores.
"""
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'lenet300_mnist.py', (0, 1, 2), 'test/accuracy'


def _figure(layer: str):
  (figure,) = published(
    'deep_compression', value='top1_err', paper='Han 2015 Learning both Weights and Connections', table=1,
    network='LeNet-300-100', layer=layer)
  return figure


PUBLISHED = [_figure('Ref').labelled(weights='all'), _figure('Pruned').labelled(weights='8 %')]


def cells():
  """Dense and pruned."""
  yield {'network': 'LeNet-300-100', 'weights': 'all'}, {}
  yield {'network': 'LeNet-300-100', 'weights': '8 %'}, {'compress.stages': ('prune',)}
