"""ResNet-8 or MobileNetV2-0.35 at 28x28 on Fashion-MNIST, trained with rounding from the float network.

Weights and inputs of all layers have 8 bits, BatchNorm is folded into what is rounded, and its statistics stand still
for the last 30 %: Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342. The other two stages are
the 8 bits of the first and the last layer where the rest has fewer. The float network is that of
channels_fashion_mnist.py with the same seed. Expected: within 0.3 points of it.
COMMAND: python -m experiments.run --config=experiments/configs/quantized_fashion_mnist.py --workdir=runs/quantized
"""
from experiments import configuration

OUTER = (('stem/.*', True), ('classifier/.*', True))


def get_config(arg: str = 'resnet8'):
  """The config of a network; see experiments/configuration.py for every field, experiments/stages.py for the stages."""
  start = f'channels_fashion_mnist.py:{arg}'
  config = configuration.load(start).unlock()
  config.name = ''
  config.start.config = start
  config.epochs = 2
  config.learning_rate.update(peak=0.02, warmup_epochs=0.1)
  config.compress.stages = ('weights', 'activations')
  config.compress.weights = dict(
    transform='weights', bits=8, format='symmetric', scale='absmax', granularity='channel', stochastic=False, fold=True,
    freeze=0.7, rules=(('.*', True),), skip=('not_kernel',))
  config.compress.activations = dict(
    transform='activations', bits=8, format='affine', scale='min_max', decay=0.99, shared=False, rules=(('.*', True),),
    skip=('not_kernel',))
  config.compress.outer_weights = dict(transform='weights', bits=8, rules=OUTER, skip=('not_kernel',))
  config.compress.outer_activations = dict(transform='activations', bits=8, rules=OUTER, skip=('not_kernel',))
  return config
