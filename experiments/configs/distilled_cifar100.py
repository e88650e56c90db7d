"""CIFAR-100, teacher and student of the distillation literature, with the recipe of CRD's and DKD's tables.

Source: Tian et al. 2020, arXiv:1910.10699, appendix, and RepDistiller's code: 240 epochs, batches of 64, rate 0.05 with
steps of 0.1 at 150, 180 and 210, weight decay 5e-4, crop and flip; the networks are those of its table 1. Expected:
resnet20 69.1 % alone and 70.7 % with KD; about a day of a CPU core each. Deviation: validation is taken from train.
COMMAND: python -m experiments.run --config=experiments/configs/distilled_cifar100.py:resnet56 --workdir=runs/resnet56
"""
from experiments import configuration, distillation_methods


def get_config(arg: str = 'resnet20'):
  """The config of a network; see experiments/configuration.py for every field."""
  config = configuration.default()
  shortcut = {'shortcut': 'projection'} if arg.startswith('resnet') else {}
  config.model.update(name=arg, **shortcut)
  config.data.update(name='cifar100', augment=('crop', 'flip'))
  config.batch_size, config.epochs = 64, 240
  config.learning_rate = dict(schedule='steps', peak=0.05, warmup_epochs=0.0, at=(0.625, 0.75, 0.875), factor=0.1)
  config.weight_decay = 5e-4
  config.distill.update(weight=0.0)
  config.distill.update(distillation_methods.TERMS)
  return config
