"""The networks of Hinton et al. 2015 on MNIST: 784-1200-1200-10 with dropout and jitter, and 784-800-800-10.

Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 3. The student is distilled by soft targets alone, at T =
20, and with nothing else against overfitting. Deviations: 80 epochs of the teacher, by AdamW at 0.001 and without
dropout of the input (validation after 8 epochs chose both: 98.0 % right, with momentum at 0.05 and dropout of the input
97.7 %), 20 epochs of the student by momentum, at 0.05 alone and at 0.02 distilled (it diverges at 0.05), cosine
schedules, 3,000 of the 60,000 images to validate. The images come from TFDS ('mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/distilled_mnist.py:distilled --workdir=runs/hinton
"""
from experiments import configuration


def get_config(arg: str = 'student'):
  """The config of 'teacher', 'student' (alone) or 'distilled'; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.data.update(name='mnist', validation=0.05)
  config.learning_rate.update(peak=0.05, warmup_epochs=1.0)
  if arg == 'teacher':
    config.model.update(name='lenet300', hidden=(1200, 1200), dropout=(0.0, 0.5))
    config.optimizer.name, config.learning_rate.peak = 'adamw', 1e-3
    config.epochs = 80
    config.data.augment = ('crop',)
    config.data.crop = dict(padding=2)
    config.compress.stages = ('max_norm',)
    config.compress.max_norm = dict(transform='max_norm', bound=3.0, skip=('not_kernel',))
    return config
  config.model.update(name='lenet300', hidden=(800, 800))
  config.epochs = 20
  if arg == 'distilled':
    config.learning_rate.peak = 0.02
    config.distill.update(config='distilled_mnist.py:teacher', seeds=(0,), precompute=True, weight=1.0)
    config.distill.hyper.temperature = 20.0
  return config
