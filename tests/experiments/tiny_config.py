"""A run of a second on synthetic images: three epochs of seven steps, with every stage to choose from."""
from experiments import configuration


def get_config(arg: str = ''):
  """The config."""
  config = configuration.default()
  config.model.update(name='lenet300', hidden=(16, 8))
  config.data.update(name='synthetic', validation=0.25)
  config.data.update(shape=(8, 8, 1), classes=4, examples=152, test_examples=40)
  config.batch_size, config.epochs = 16, 3
  config.weight_decay = 1e-3
  config.checkpoint.seconds = 0.0  # after every step
  config.compress.prune = dict(
    transform='prune', criterion='magnitude', budget='global_', sparsity=0.8, begin=0.1, end=0.6, every=2,
    skip=('not_kernel',))
  config.compress.weights = dict(transform='weights', bits=8, skip=('not_kernel',))
  config.compress.activations = dict(transform='activations', bits=8, skip=('not_kernel',))
  return config
