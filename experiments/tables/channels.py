"""Channels removed from ResNet-8 and MobileNetV2-0.35 on Fashion-MNIST, half and 30 % of the MACs left, with latency.

One dense network each, 4 epochs; L1 norm, Taylor and random channels, ranked globally, then 1 epoch of what is left at
a fifth of the rate; groups keep multiples of 8 channels. `latency_ms` is a forward pass of 32 images on this machine,
`whole/latency_ms` that of the dense network measured in turns with it; these rows are of a machine that did other work
as well. At half the MACs MobileNetV2 is 1.3 to 1.4 times as fast (1.4 to 1.5 when nothing else ran), at 30 % 1.55 to
1.75 times. ResNet-8 keeps 8, 16 or 24 channels: its choices are coarse, so that L1 at half ends at 31 % of the MACs,
and XLA's convolutions of 8 channels take nearly as long as those of 16. Of MobileNetV2's rows Taylor's lose least, 0.75
points at half. Needs Fashion-MNIST: from TFDS, or as idx files with --data_dir. About 35 minutes on 2 cores.
"""
SEEDS, METRIC = (0,), 'test/accuracy'
BASE = 'channels_fashion_mnist.py:resnet8'
COLUMNS = ('params', 'macs', 'bytes', 'latency_ms', 'whole/latency_ms', 'speedup', 'seconds')


def cells():
  """Each network dense, then without channels by each importance."""
  for network in ('resnet8', 'mobilenet_v2'):
    base = f'channels_fashion_mnist.py:{network}'
    yield {'network': network, 'importance': '-', 'MACs left': 1.0}, {}, {'base': base}
    for importance in ('l1', 'taylor', 'random'):
      for ratio in (0.5, 0.3):
        labels = {'network': network, 'importance': importance, 'MACs left': ratio}
        yield labels, {
          'start.config': base, 'epochs': 1, 'learning_rate.peak': 0.02, 'remove.importance': importance,
          'remove.ratio': ratio, 'remove.multiple': 8}, {'base': base}
