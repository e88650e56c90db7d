"""LeNet-300-100 on MNIST, dense and with 8 % of its weights, beside Han et al. 2015.

Han et al. 2015, arXiv:1506.02626, table 1: 1.64 % error dense, 1.59 % with a twelfth of the weights, pruned from the
trained network and trained again. Ours: 20 epochs dense; pruned in one go with training, and from the trained network
for 20 epochs more. Deviations: one global ranking on a cubic schedule, where the paper sets a threshold for each layer
and repeats; 54,000 images to train on, 6,000 to validate. Needs MNIST: from TFDS, or as idx files with --data_dir. Two
minutes on 2 cores.
"""
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'lenet300_mnist.py', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'params', 'nonzeros', 'macs', 'bytes', 'seconds')


def _figure(layer: str):
  (figure,) = published(
    'deep_compression', value='top1_err', paper='Han 2015 Learning both Weights and Connections', table=1,
    network='LeNet-300-100', layer=layer)
  return figure


PUBLISHED = [_figure('Ref').labelled(weights='all'), _figure('Pruned').labelled(weights='8 %', start='trained')]


def cells():
  """Dense, pruned while it trains, pruned from the trained network."""
  yield {'weights': 'all', 'start': 'fresh'}, {}
  yield {'weights': '8 %', 'start': 'fresh'}, {'compress.stages': ('prune',)}
  yield {'weights': '8 %', 'start': 'trained'}, {
    'compress.stages': ('prune',), 'compress.prune.begin': 0.0, 'start.config': 'lenet300_mnist.py'}
