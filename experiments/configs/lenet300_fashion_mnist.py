"""LeNet-300-100 on Fashion-MNIST (54,000 images to train on); dense, unless the stage `prune` is chosen.

Source of the network: Han et al. 2015, arXiv:1506.02626, table 2 (there on MNIST). The images come from TFDS
('fashion_mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/lenet300_fashion_mnist.py --workdir=runs/lenet300
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='lenet300', hidden=(300, 100))
  config.data.name = 'fashion_mnist'
  config.epochs = 12
  config.learning_rate.peak = 0.1
  config.weight_decay = 1e-4
  # Every field of the stage, so that tables and command lines can set each; see experiments/stages.py.
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', pattern='unstructured', budget='uniform', sparsity=0.9,
    schedule='cubic', begin=0.1, end=0.6, every=100, first='', grow='', fraction=0.3, straight_through=False, rounds=1,
    skip=('not_kernel',))
  return config
