"""AMC against uniform channel ratios at half the MACs of MobileNetV1-0.5 on Fashion-MNIST, 3 seeds.

Both keep the channels of the largest L1 norm in multiples of 8, estimate BatchNorm's statistics again by 4 batches and
train what is left for 2 epochs. The agent sees 200 candidates, judged on the validation split as they are cut, without
training. Needs Fashion-MNIST: from TFDS, or as idx files with --data_dir. Time budget: 2 hours on 2 cores.
"""
SEEDS, METRIC = (0, 1, 2), 'test/accuracy'
BASE = 'searched_fashion_mnist.py:amc'
COLUMNS = ('params', 'macs', 'speedup', 'search/candidates', 'search/seconds', 'seconds')


def cells():
  """The whole network, then both ways to halve it."""
  yield {'method': 'whole', 'MACs left': 1.0}, {}, {'base': 'searched_fashion_mnist.py:whole'}
  yield {'method': 'uniform', 'MACs left': 0.5}, {'search.strategy': '', 'remove.ranking': 'layer'}
  yield {'method': 'AMC', 'MACs left': 0.5}, {}
