"""LeNet-5 (Caffe widths) on the bundled part of Fashion-MNIST; dense, unless stages are chosen.

Source of the network: Han et al. 2015, arXiv:1506.02626, table 3 (there on MNIST).
COMMAND: python -m experiments.run --config=experiments/configs/lenet5.py --workdir=runs/lenet5
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='lenet5', widths=(20, 50, 500))
  config.devices = 0  # one virtual device a core: 1.4 times as fast as one device with both cores
  config.epochs = 15
  config.learning_rate.peak = 0.05
  config.weight_decay = 5e-4
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', budget='global_', sparsity=0.9, begin=0.1, end=0.6, every=40,
    skip=('not_kernel',))
  config.compress.weights = dict(transform='weights', bits=8, skip=('not_kernel',))
  config.compress.activations = dict(transform='activations', bits=8, skip=('not_kernel',))
  return config
