"""NetAdapt against a uniform width multiplier, both of one MobileNetV1-0.5 on Fashion-MNIST, by measured latency.

The multiplier keeps the same ratio of every layer's channels, in multiples of 8, and trains what is left from scratch
for as long as the whole network was trained (4 epochs and 2 more), as MobileNet's smaller versions are. NetAdapt starts
from the trained network, lowers its predicted latency round by round (20 steps a proposal), and trains what it found
for 2 epochs. `speedup` is the whole network's latency over the row's for 32 images, measured in turns on this machine;
`search/seconds` is what training and evaluating the candidates took. Compare rows at equal accuracy. Needs
Fashion-MNIST: from TFDS, or as idx files with --data_dir. Time budget: 2 hours on 2 cores.
"""
SEEDS, METRIC = (0,), 'test/accuracy'
BASE = 'searched_fashion_mnist.py:netadapt'
COLUMNS = (
  'params', 'macs', 'latency_ms', 'whole/latency_ms', 'speedup', 'search/candidates', 'search/seconds', 'seconds')


def cells():
  """The whole network, then three widths, then three latencies."""
  yield {'method': 'whole', 'left': 1.0}, {}, {'base': 'searched_fashion_mnist.py:whole'}
  for ratio in (0.75, 0.5, 0.35):
    yield {'method': 'width multiplier', 'left': ratio}, {
      'search.strategy': '', 'remove.cost': 'channels', 'remove.ranking': 'layer', 'remove.ratio': ratio,
      'start.rewind': 'fresh', 'epochs': 6, 'learning_rate.peak': 0.1, 'learning_rate.warmup_epochs': 0.2}
  for ratio in (0.8, 0.6, 0.45):
    yield {'method': 'NetAdapt', 'left': ratio}, {'remove.ratio': ratio}
