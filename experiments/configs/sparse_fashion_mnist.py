"""LeNet-300-100 or LeNet-5 (Caffe widths) on Fashion-MNIST (54,000 images to train on), dense or with weights pruned.

The networks: Han et al. 2015, arXiv:1506.02626, tables 2 and 3 (there on MNIST). The images come from TFDS
('fashion_mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/sparse_fashion_mnist.py:lenet5 --workdir=runs/lenet5
"""
from typing import Any

from experiments import configuration

NETWORKS: dict[str, dict[str, Any]] = {'lenet300': {'hidden': (300, 100)}, 'lenet5': {'widths': (20, 50, 500)}}


def get_config(arg: str = 'lenet300'):
  """The config of a network; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name=arg, **NETWORKS[arg])
  config.data.name = 'fashion_mnist'
  config.epochs = 6 if arg == 'lenet300' else 3
  config.learning_rate.peak = 0.1 if arg == 'lenet300' else 0.02  # at 0.05 some seeds of LeNet-5 diverge
  config.weight_decay = 1e-4
  # Every field of the stage, so that tables and command lines can set each; see experiments/stages.py.
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', pattern='unstructured', budget='uniform', sparsity=0.9,
    schedule='cubic', begin=0.1, end=0.6, every=100, first='', grow='', fraction=0.3, straight_through=False, rounds=1,
    skip=('not_kernel',))
  return config
