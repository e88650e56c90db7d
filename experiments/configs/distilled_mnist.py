"""The networks of Hinton et al. 2015 on MNIST: 784-1200-1200-10 with dropout and jitter, and 784-800-800-10.

Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 3. The student is distilled by soft targets alone, at T =
20, and with nothing else against overfitting. Deviations: 60 epochs of the teacher and 16 of the student, 3,000 of the
60,000 images to validate, momentum and a cosine schedule. The images come from TFDS ('mnist'), or from idx files in
data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/distilled_mnist.py:distilled --workdir=runs/hinton
"""
from experiments import configuration


def get_config(arg: str = 'student'):
  """The config of 'teacher', 'student' (alone) or 'distilled'; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.data.update(name='mnist', validation=0.05)
  config.learning_rate.update(peak=0.05, warmup_epochs=1.0)
  if arg == 'teacher':
    config.model.update(name='lenet300', hidden=(1200, 1200), dropout=(0.2, 0.5))
    config.epochs = 60
    config.data.augment = ('crop',)
    config.data.crop = dict(padding=2)
    config.compress.stages = ('max_norm',)
    config.compress.max_norm = dict(transform='max_norm', bound=3.0, skip=('not_kernel',))
    return config
  config.model.update(name='lenet300', hidden=(800, 800))
  config.epochs = 16
  if arg == 'distilled':
    config.distill.update(config='distilled_mnist.py:teacher', seeds=(0,), precompute=True, weight=1.0)
    config.distill.hyper.temperature = 20.0
  return config
