"""ResNet-8 teaches a ResNet-8 of a quarter of its width on 12,000 images of Fashion-MNIST (1,200 of each class).

The networks: He et al. 2016, arXiv:1512.03385, section 4.2, with n = 1, at 28x28. The terms are those of
experiments/distillation_methods.py; their weights were not tuned on this set. The images come from TFDS
('fashion_mnist'), or from idx files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/distilled_fashion_mnist.py:student
  --config.distill.terms="('hints',)" --workdir=runs/hints
"""
from experiments import configuration, distillation_methods


def get_config(arg: str = 'student'):
  """The config of 'teacher' or 'student'; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='resnet8', width=1.0 if arg == 'teacher' else 0.25)
  config.data.update(name='fashion_mnist', per_class=1200)
  config.batch_size = 64
  config.epochs = 15 if arg == 'teacher' else 3
  config.learning_rate.update(peak=0.1, warmup_epochs=0.5)
  config.weight_decay = 1e-4
  if arg == 'teacher':
    config.data.augment = ('crop', 'flip')
    config.data.crop = dict(padding=2)
    return config
  config.distill.update(seeds=(0,), weight=0.0)
  config.distill.update(distillation_methods.terms())
  return config
