"""LeNet-5 (Caffe widths) on Fashion-MNIST (54,000 images to train on); dense, unless the stage `prune` is chosen.

Source of the network: Han et al. 2015, arXiv:1506.02626, table 3 (there on MNIST). The images come from TFDS
('fashion_mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/lenet5_fashion_mnist.py --workdir=runs/lenet5
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='lenet5', widths=(20, 50, 500))
  config.devices = 0  # one virtual device a core: 1.4 times as fast as one device with both cores
  config.data.name = 'fashion_mnist'
  config.epochs = 6
  config.learning_rate.peak = 0.05
  config.weight_decay = 1e-4
  # Every field of the stage, so that tables and command lines can set each; see experiments/stages.py.
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', pattern='unstructured', budget='uniform', sparsity=0.9,
    schedule='cubic', begin=0.1, end=0.6, every=100, first='', grow='', fraction=0.3, straight_through=False, rounds=1,
    skip=('not_kernel',))
  return config
