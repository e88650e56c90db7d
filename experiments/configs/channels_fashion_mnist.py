"""ResNet-8 or MobileNetV2-0.35 at 28x28 on Fashion-MNIST (54,000 images to train on), whole or with channels removed.

The networks: He et al. 2016, arXiv:1512.03385, section 4.2, with n = 1; Sandler et al. 2018, arXiv:1801.04381, with
width 0.35 and stride 1 in stem and first stages. The images come from TFDS ('fashion_mnist'), or from idx files in
data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/channels_fashion_mnist.py:mobilenet_v2 --workdir=runs/v2
"""
from experiments import configuration

NETWORKS = {'resnet8': {}, 'mobilenet_v2': {'width': 0.35, 'stem': 'mnist'}}


def get_config(arg: str = 'resnet8'):
  """The config of a network; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name=arg, **NETWORKS[arg])
  config.data.name = 'fashion_mnist'
  config.epochs = 4
  config.learning_rate.update(peak=0.1, warmup_epochs=0.2)
  config.weight_decay = 1e-4
  config.criteria_batches = 8
  return config
