"""VGG-small on CIFAR-10 with binary weights (BinaryConnect), or binary activations too (BNN, `:bnn`).

Sources: Courbariaux, Bengio, David 2015, arXiv:1511.00363, section 3.2 (test error 9.90 % with deterministic binary
weights, 8.27 % with stochastic ones); Courbariaux et al. 2016, arXiv:1602.02830, table 1 (10.15 %). Deviations:
normalized pixels in place of ZCA whitening. Not run here: days on 2 CPU cores. CIFAR-10 comes from TFDS.
COMMAND: python -m experiments.run --config=experiments/configs/vgg_small_cifar10.py --workdir=runs/vgg_small
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config, 'bnn' for binary activations; see experiments/configuration.py for every field."""
  if arg not in ('', 'bnn'):
    raise ValueError(f'vgg_small_cifar10.py:{arg}: the argument is bnn, or nothing.')
  config = configuration.default()
  config.model.update(name='vgg_small', activation='hard_tanh' if arg else 'relu')
  config.data.name = 'cifar10'
  config.batch_size = 50
  config.epochs = 500
  config.loss = 'squared_hinge'
  config.optimizer.name = 'glorot_adam'
  config.learning_rate = dict(schedule='exponential', peak=3e-3, warmup_epochs=0.0, final=2e-6)
  config.compress.binary_weights = dict(
    transform='binary_weights', binarizer='bnn' if arg else 'binary_connect', clip=1.0, skip=('not_kernel',))
  config.compress.binary_activations = dict(
    transform='binary_activations', estimator='hard_tanh', rules=(('conv1/kernel', False), ('.*', True)),
    skip=('not_kernel',))
  config.compress.stages = ('binary_weights', 'binary_activations') if arg else ('binary_weights',)
  return config
