"""Deep Compression of LeNet-300-100 or LeNet-5 (Caffe widths) on MNIST, in three runs: dense, pruned, shared.

Source: Han, Mao, Dally 2016, arXiv:1510.00149, tables 1 to 3. `lenet300` and `lenet5` are dense, `lenet300_pruned`
starts from that run and keeps the weights of each layer that the paper keeps, `lenet300_shared` starts from the pruned
one and trains codebooks. A run trains what it starts from first. The images come from TFDS ('mnist'), or from idx
files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/deep_compression.py:lenet300_shared --workdir=runs/deep
"""
from typing import Any

from experiments import configuration

NETWORKS: dict[str, dict[str, Any]] = {'lenet300': {'hidden': (300, 100)}, 'lenet5': {'widths': (20, 50, 500)}}
# Zeros of each layer, by tables 2 and 3 of the paper.
SPARSITY = {
  'lenet300': (('fc1/.*', 0.92), ('fc2/.*', 0.91), ('fc3/.*', 0.74)),
  'lenet5': (('conv1/.*', 0.34), ('conv2/.*', 0.88), ('fc1/.*', 0.92), ('fc2/.*', 0.81))}
BITS = {'lenet300': (('.*', 6),), 'lenet5': (('conv.*', 8), ('.*', 5))}
ENTROPY = 0.005  # of the indices, as a penalty in k-means: codebooks use fewer of their entries
RATE = {'lenet300': 0.1, 'lenet5': 0.02}
EPOCHS = {'lenet300': (40, 60, 20), 'lenet5': (15, 20, 8)}  # dense, pruned, shared


def get_config(arg: str = 'lenet300_shared'):
  """The config of a network and a step; see experiments/configuration.py for every field."""
  network, _, step = arg.partition('_')
  config = configuration.default()
  config.model.update(name=network, **NETWORKS[network])
  config.data.name = 'mnist'
  config.data.validation = 0.0  # the paper trains on all 60,000 images; nothing is chosen by an epoch's accuracy
  config.weight_decay = 1e-4
  config.learning_rate.warmup_epochs = 0.25
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', budget=f'by_path({SPARSITY[network]})', sparsity=1.0, begin=0.0, end=0.5,
    every=100, skip=('not_kernel',))
  config.compress.share = dict(
    transform='share', start='linear', bits=BITS[network], together=False, entropy=ENTROPY, every=0,
    skip=('not_kernel',))
  dense, pruned, shared = EPOCHS[network]
  if step == 'pruned':
    config.epochs, config.learning_rate.peak = pruned, RATE[network]
    config.compress.stages = ('prune',)
    config.start.config = f'deep_compression.py:{network}'
  elif step == 'shared':
    config.epochs, config.learning_rate.peak = shared, 1e-3
    config.optimizer.name = 'adamw'
    config.compress.stages = ('share',)
    config.start.config = f'deep_compression.py:{network}_pruned'
  else:
    config.epochs, config.learning_rate.peak = dense, RATE[network]
  return config
