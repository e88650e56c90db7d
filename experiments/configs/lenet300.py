"""LeNet-300-100 on the bundled part of Fashion-MNIST (7,200 images to train on); dense, unless stages are chosen.

Source of the network: Han et al. 2015, arXiv:1506.02626, table 2 (there on MNIST).
COMMAND: python -m experiments.run --config=experiments/configs/lenet300.py --workdir=runs/lenet300
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='lenet300', hidden=(300, 100))
  config.epochs = 30
  config.learning_rate.peak = 0.05
  config.weight_decay = 5e-4
  # What an experiment chooses its stages from: --config.compress.stages="('prune', 'weights', 'activations')".
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', budget='global_', sparsity=0.9, begin=0.1, end=0.6, every=40,
    skip=('not_kernel',))
  config.compress.weights = dict(transform='weights', bits=8, skip=('not_kernel',))
  config.compress.activations = dict(transform='activations', bits=8, skip=('not_kernel',))
  return config
