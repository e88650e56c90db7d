"""ReActNet's ResNet-18, a quarter as wide, on Fashion-MNIST in two stages: binary activations first, then weights too.

`two_stage_fashion_mnist.py:activations` is the first stage with real weights; the config without argument starts from
its weights (`start.config`) and makes them binary. Source: Martinez et al. 2020, arXiv:2003.11535, and Liu et al. 2020,
arXiv:2003.03488 (weight decay in the first stage alone); there on ImageNet, with a teacher, for 120 epochs a stage. The
images come from TFDS ('fashion_mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/two_stage_fashion_mnist.py --workdir=runs/two_stage
"""
from experiments import configuration

FIRST = 'activations'


def get_config(arg: str = ''):
  """The config of the last stage, or of the first; see experiments/configuration.py for every field."""
  if arg not in ('', FIRST):
    raise ValueError(f'two_stage_fashion_mnist.py:{arg}: the argument is {FIRST}, or nothing.')
  config = configuration.default()
  config.model.update(name='react_resnet18', width=0.25, stem='mnist')
  config.data.name = 'fashion_mnist'
  config.epochs = 10
  config.optimizer.name = 'adamw'
  config.learning_rate.update(peak=2e-3, warmup_epochs=0.2)
  rules = (('.*/shortcut_conv/kernel', False), ('.*', True))
  config.compress.binary_activations = dict(transform='binary_activations', estimator='polynomial', rules=rules)
  config.compress.binary_weights = dict(transform='binary_weights', binarizer='bi_real', clip=1.0, rules=rules)
  if arg == FIRST:
    config.weight_decay = 1e-5
    config.compress.stages = ('binary_activations',)
  else:
    config.start.config = f'two_stage_fashion_mnist.py:{FIRST}'
    config.compress.stages = ('binary_activations', 'binary_weights')
  return config
