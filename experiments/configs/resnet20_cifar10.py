"""ResNet-20 on CIFAR-10, the paper's recipe: 64,000 steps of 128 images, rate 0.1 divided by 10 at 1/2 and 3/4.

Source: He et al. 2016, arXiv:1512.03385, section 4.2 (91.25 % with identity shortcuts).
Not run here: hours on 2 CPU cores. CIFAR-10 comes from TFDS.
COMMAND: python -m experiments.run --config=experiments/configs/resnet20_cifar10.py --workdir=runs/resnet20
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='resnet20', shortcut='identity')
  config.devices = 0
  config.data.update(name='cifar10', augment=('crop', 'flip'))
  config.data.crop = dict(padding=4)
  config.epochs = 182
  config.learning_rate = dict(schedule='steps', peak=0.1, warmup_epochs=0.0, at=(0.5, 0.75), factor=0.1)
  config.weight_decay = 1e-4
  config.no_decay = ()  # the paper decays every parameter
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', budget='uniform', sparsity=0.9, begin=0.1, end=0.75, every=100)
  config.compress.weights = dict(transform='weights', bits=8)
  config.compress.activations = dict(transform='activations', bits=8)
  return config
