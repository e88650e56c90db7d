"""The BinaryConnect perceptron on MNIST (54,000 images to train on): three layers of 1024, binary weights, L2-SVM.

Sources: Courbariaux, Bengio, David 2015, arXiv:1511.00363, section 3.1 (1.29 % test error with deterministic binary
weights, 1.18 % with stochastic ones, whose real weights are tested); Courbariaux et al. 2016, arXiv:1602.02830, table
1 (binary activations too: 0.96 % with layers of 4096), as `binary_mlp_mnist.py:bnn`. Deviations: 60 epochs in place
of 1000, by Adam with the papers' scaled rates in place of SGD; normalized pixels; no dropout in the BNN.
About 16 minutes of one core. The images come from TFDS ('mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/binary_mlp_mnist.py --workdir=runs/binary_connect
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config, 'bnn' for binary activations; see experiments/configuration.py for every field."""
  if arg not in ('', 'bnn'):
    raise ValueError(f'binary_mlp_mnist.py:{arg}: the argument is bnn, or nothing.')
  config = configuration.default()
  config.model.update(name='binary_mlp', width=1024, activation='hard_tanh' if arg else 'relu')
  config.data.name = 'mnist'
  config.batch_size = 200
  config.epochs = 60
  config.loss = 'squared_hinge'
  config.optimizer.name = 'glorot_adam'
  config.learning_rate = dict(schedule='exponential', peak=3e-3, warmup_epochs=0.0, final=3e-6)
  binarizer = 'bnn' if arg else 'binary_connect'
  # First and last layer too, as the papers have it; the pixels stay real.
  config.compress.binary_weights = dict(
    transform='binary_weights', binarizer=binarizer, clip=1.0, skip=('not_kernel',))
  config.compress.binary_activations = dict(
    transform='binary_activations', estimator='hard_tanh', rules=(('fc1/kernel', False), ('.*', True)),
    skip=('not_kernel',))
  config.compress.stages = ('binary_weights', 'binary_activations') if arg else ('binary_weights',)
  return config
