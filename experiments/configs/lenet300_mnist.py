"""LeNet-300-100 on MNIST (54,000 images to train on); dense, unless stages are chosen.

Source: Han et al. 2015, arXiv:1506.02626, tables 1 and 2 (test error 1.64 % dense, 1.59 % with 8 % of the weights).
Expected: about 98.4 % in half a minute on 2 cores. The images come from TFDS ('mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/lenet300_mnist.py --workdir=runs/mnist
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='lenet300', hidden=(300, 100))
  config.data.name = 'mnist'
  config.epochs = 20
  config.learning_rate.peak = 0.1
  config.weight_decay = 1e-4
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', budget='global_', sparsity=0.92, begin=0.1, end=0.6, every=200,
    skip=('not_kernel',))
  config.compress.weights = dict(transform='weights', bits=8, skip=('not_kernel',))
  config.compress.activations = dict(transform='activations', bits=8, skip=('not_kernel',))
  return config
