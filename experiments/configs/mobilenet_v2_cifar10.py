"""MobileNetV2 on CIFAR-10 with the small-image stem, AdamW, averaged parameters, bfloat16 where it is fast.

Source of the network: Sandler et al. 2018, arXiv:1801.04381, table 2; the recipe is ours, without a published figure.
Not run here: hours on 2 CPU cores. CIFAR-10 comes from TFDS.
COMMAND: python -m experiments.run --config=experiments/configs/mobilenet_v2_cifar10.py --workdir=runs/mobilenet_v2
"""
from experiments import configuration


def get_config(arg: str = ''):
  """The config; `get_config('bfloat16')` computes in bfloat16. See experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='mobilenet_v2', stem='cifar', width=1.0)
  config.precision = arg or 'float32'
  config.data.update(name='cifar10', augment=('crop', 'flip', 'erase'))
  config.data.crop = dict(padding=4)
  config.epochs = 100
  config.optimizer = dict(name='adamw', b1=0.9, b2=0.999)
  config.learning_rate.update(peak=1e-3, warmup_epochs=5.0)
  config.weight_decay = 0.05
  config.label_smoothing = 0.1
  config.average = 0.999
  config.clip_norm = 1.0
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', budget='global_', sparsity=0.8, begin=0.1, end=0.75, every=100)
  config.compress.weights = dict(transform='weights', bits=8)
  config.compress.activations = dict(transform='activations', bits=8)
  return config
