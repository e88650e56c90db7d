"""MobileNetV1-0.5 at 28x28 on Fashion-MNIST (54,000 images to train on), whole or with what a search left of it.

The network: Howard et al. 2017, arXiv:1704.04861, with stride 1 in the stem. 'netadapt' adapts it to 60 % of its
latency (Yang et al. 2018, arXiv:1804.03230), 'amc' to half of its MACs (He et al. 2018, arXiv:1802.03494); both start
from the trained one and train what they found for 2 epochs. The images come from TFDS ('fashion_mnist'), or from idx
files in data.dir.
COMMAND: python -m experiments.run --config=experiments/configs/searched_fashion_mnist.py:netadapt --workdir=runs/found
"""
from experiments import configuration

WHOLE = 'searched_fashion_mnist.py:whole'


def get_config(arg: str = 'netadapt'):
  """The config: 'whole', 'netadapt' or 'amc'; see experiments/configuration.py for every field."""
  config = configuration.default()
  config.model.update(name='mobilenetv1_100', width=0.5, stem='mnist')
  config.data.name = 'fashion_mnist'
  config.epochs = 4
  config.learning_rate.update(peak=0.1, warmup_epochs=0.2)
  config.weight_decay = 1e-4
  if arg == 'whole':
    return config
  config.start.config = WHOLE
  config.epochs = 2
  config.learning_rate.update(peak=0.02, warmup_epochs=0.0)
  config.remove.update(importance='l1', multiple=8)
  if arg == 'netadapt':
    config.remove.update(cost='latency', ratio=0.6)
    config.search.update(strategy='netadapt(step=0.05, decay=0.98)', steps=20, peak=0.02)
  elif arg == 'amc':
    config.remove.update(cost='macs', ratio=0.5, reestimate=4)
    config.search.update(strategy='amc(warmup=50)', evaluations=200)
  else:
    raise ValueError(f"{arg!r} is none of 'whole', 'netadapt', 'amc'.")
  return config
