"""What a config of an experiment can say: every field with its default, reading config files, overriding fields.

A config file is a fork of `default()`: a function `get_config(arg='')` that starts from it and sets what its
experiment is about. Fields that stay at their default do not enter the identity of a run, so that a new field leaves
old results valid.
"""
from __future__ import annotations

import ast
import functools
import importlib.util
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from lightjax.core import trees
from lightjax.core.specs import SpecError, canonical

FOLDER = pathlib.Path(__file__).parent / 'configs'

# What a run is not about: names, places, logging, and how the work is laid out. No part of a run's identity.
INCIDENTAL = ('name', 'devices', 'data.dir', 'data.path', 'data.workers', 'checkpoint', 'tensorboard')


def default() -> ml_collections.ConfigDict:
  """Every field with its default; the comments say what it means."""
  config = ml_collections.ConfigDict()
  config.name = ''  # for tables and messages
  config.seed = 0  # initialization, order of examples, augmentation
  config.devices = 1  # devices that share a batch; 0: all of the process (on CPU one virtual device a core)
  config.tensorboard = False  # event files beside metrics.jsonl
  config.smoke = False  # a run of seconds on synthetic images, see `smoke`

  config.model = ml_collections.ConfigDict({'name': ''}, allow_dotted_keys=False)  # and the network's own arguments
  config.precision = 'float32'  # or 'bfloat16': compute only; params and statistics stay float32

  config.data = ml_collections.ConfigDict({
    'name': 'fashion_mnist_mini',  # see lightjax.data.load
    'dir': '',  # a user's own files, or where TFDS keeps its sets
    'path': 'memory',  # 'memory': gathered on the device; 'stream': read by grain while training
    'workers': 0,  # processes of the streaming path
    'validation': 0.1,  # ratio of the training set held out, the same for all seeds
    'only': (),  # labels of the images to train on, () for all; validation and test keep all
    'per_class': 0,  # images of each class to train on, 0 for all
    'augment': (),  # names of lightjax.data.augment, in order; their arguments in a field of that name
  })

  config.batch_size = 128
  config.epochs = 1
  config.optimizer = ml_collections.ConfigDict({'name': 'sgd'})  # lightjax.train.optimizers; and its own arguments
  config.learning_rate = ml_collections.ConfigDict({'schedule': 'cosine', 'peak': 0.1, 'warmup_epochs': 0.0})
  config.weight_decay = 0.0
  config.no_decay = ('.*/bias', '.*/scale')  # patterns of paths
  config.clip_norm = 0.0  # of the gradient, 0 for none
  config.loss = 'cross_entropy'  # a name of lightjax.train.losses
  config.label_smoothing = 0.0
  config.average = 0.0  # decay of the params' moving average, 0 for none

  # Compression: the names of stages in order, each with a field of its name (see experiments/stages.py).
  config.compress = ml_collections.ConfigDict({'stages': ()})
  config.criteria_batches = 1  # first batches of the run, which criteria see that prune before training
  config.criteria_temperature = 1.0  # what logits are divided by in the loss that they see

  # Channels that go before the first step, ranked by the weights that the run starts from. What is left is trained as a
  # smaller network.
  config.remove = ml_collections.ConfigDict({
    'importance': '',  # a name of lightjax.prune.importance, '' removes nothing; gradients are of `criteria_batches`
    'ratio': 0.5,  # of the cost that may be left, 0..1
    'cost': 'macs',  # or 'channels', 'params', 'size_bytes'; 'latency', measured for each choice
    'ranking': 'global',  # all channels together; 'layer': the same ratio of each group
    'reduce': 'mean',  # over the layers of a group, a name of lightjax.prune.reductions
    'normalize': 'by_mean',  # over the channels of a group, a name of lightjax.prune.normalizers
    'multiple': 1,  # of so many channels is what a group keeps that loses some
    'minimum': 1,  # channels that every group keeps
    'only': (),  # patterns of the groups that may lose channels, by their names in experiments.inspect; () for all
    'exclude': (),  # patterns of parameters that stay whole
    'reestimate': 0,  # first batches that BatchNorm's statistics are estimated again by, after the removal
  })

  # How many channels each group keeps, found by a search in place of `remove.ranking`: candidates are trained shortly
  # and evaluated on the validation split, masked; `remove` says the rest. Every one is a row of search/rows.jsonl. The
  # cost 'latency' is then predicted, from operations that are measured once.
  config.search = ml_collections.ConfigDict({
    'strategy': '',  # a name of lightjax.search.strategies, with arguments: 'netadapt(step=0.05)', 'amc()'; '' for none
    'evaluations': 0,  # candidates at most; 0: until the strategy proposes nothing new
    'steps': 0,  # of training of each candidate
    'peak': 0.01,  # its learning rate, constant
    'reward': 'quality',  # of strategies that maximize one number, a name of lightjax.search.rewards
  })

  # Kernels that are split into factors before the first step (after the removal of channels): smaller layers, which are
  # what is trained and compressed.
  config.factorize = ml_collections.ConfigDict({
    'method': '',  # of convolutions: 'channel', 'spatial', 'tucker2'; dense and 1x1 layers by SVD; '' splits nothing
    'ranks': 'budget(0.5)',  # a rule of lightjax.factorize.ranks: 'energy(0.9)', 'sensitivity(0.5, cost="params")'
    'only': (), 'exclude': (),  # patterns of paths
    'skip': ('not_kernel', 'first_conv', 'last_dense'),  # what stays whole unless asked for
  })

  # A term of the loss that drives whole channels towards zero, for a run that another one removes channels from.
  config.regularize = ml_collections.ConfigDict({
    'name': '',  # a name of lightjax.prune.regularizers: 'group_lasso', 'batch_norm_l1'
    'strength': 1e-4,
    'only': (),  # as in `remove`
    'exclude': (),
  })

  # Another run that this one starts from, or is taught by: a config file and pairs (field, value) over it. It has this
  # run's seed, and is trained first where it does not exist yet.
  config.start = ml_collections.ConfigDict({
    'config': '', 'overrides': (),
    'weights': '',  # or a folder of experiments.import_weights or of a finished run; its content enters the identity
    'fresh': (),  # patterns of paths that keep their own initialization: ('classifier/.*',) for other classes
    # Masks made before training are always ranked by that run's last weights. Trained are those ('last'), or the
    # weights that its chain of runs began with ('0') or had after so many steps ('500'), or new random ones ('fresh').
    'rewind': 'last',
  })
  config.distill = ml_collections.ConfigDict({
    'config': '', 'overrides': (),  # the teacher
    'seeds': (),  # of the teacher, () for this run's; several are an ensemble, whose logits are averaged
    'weights': '',  # or a folder with an artifact as the teacher: imported weights, or a finished run
    'precompute': False,  # the teacher's logits are computed once, for all images, which then cannot be augmented
    'loss': 'temperature',  # a name of lightjax.distill.losses; its arguments in `hyper`
    'hyper': ml_collections.ConfigDict({'temperature': 4.0}),
    'weight': 0.9,  # of the teacher's term; the labels' term has 1 - weight
    'terms': (),  # names of more terms, each with a field of its name here (see experiments/teaching.py)
  })
  # Classes whose logits get one offset after training, the one that validation likes best: 'corrected/test/accuracy'.
  config.correct_bias = ()
  config.checkpoint = ml_collections.ConfigDict({'seconds': 60.0, 'keep': 2})
  return config


def load(name: str, *, relative_to: pathlib.Path | None = None) -> ml_collections.ConfigDict:
  """A config by its file.

  Args:
    name: a path, or a file of experiments/configs; 'file.py:arg' passes an argument to `get_config`.
    relative_to: folder that is looked into first.
  Returns:
    The locked config.
  Raises:
    SpecError: no such file (the nearest are named), or it has no `get_config`.
  """
  file, _, argument = name.partition(':')
  places = [pathlib.Path(file), FOLDER / file]
  if relative_to is not None:
    places.insert(0, relative_to / file)
  place = next((each for each in places if each.is_file()), None)
  if place is None:
    known = [each.name for each in FOLDER.glob('*.py')]
    raise SpecError(f'config {name!r}: no such file here or in {FOLDER}; nearest: {trees.nearest(file, known)}.')
  spec = importlib.util.spec_from_file_location(f'config_{place.stem}', place)
  if spec is None or spec.loader is None:
    raise SpecError(f'config {place}: it is no Python file.')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise SpecError(f'config {place}: it has no function get_config(arg).')
  config = module.get_config(argument) if argument else module.get_config()
  config.name = config.name or place.stem
  return config.lock()


def override(config: ml_collections.ConfigDict, changes: Iterable[tuple[str, Any]]) -> ml_collections.ConfigDict:
  """A copy with some fields changed.

  Args:
    config: stays as it is.
    changes: pairs ('compress.prune.sparsity', 0.9); the field must exist.
  Returns:
    The changed copy, locked.
  Raises:
    SpecError: no such field (the nearest are named), or a value of another type.
  """
  changed = ml_collections.ConfigDict(config.copy_and_resolve_references())
  changed.lock()
  for field, value in changes:
    try:
      changed.update_from_flattened_dict({field: value})
    except (KeyError, AttributeError) as error:
      near = trees.nearest(field, flatten(config))
      raise SpecError(f'config {config.name!r} has no field {field!r}; nearest: {near}.') from error
    except TypeError as error:
      raise SpecError(f'config field {field}={value!r}: {error}') from error
  return changed


# Shapes and classes of sets that a smoke run imitates; any other set is taken for CIFAR-10.
_MOCK = {
  'fashion_mnist_mini': ((28, 28, 1), 10), 'fashion_mnist': ((28, 28, 1), 10), 'mnist': ((28, 28, 1), 10),
  'cifar10': ((32, 32, 3), 10), 'cifar100': ((32, 32, 3), 100), 'imagenet2012': ((64, 64, 3), 1000),
}


def smoke(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The same experiment as a run of seconds: one epoch of a few batches of synthetic images of the set's shape."""
  shape, classes = _MOCK.get(config.data.name, _MOCK['cifar10'])
  small = ml_collections.ConfigDict(config.copy_and_resolve_references()).unlock()
  small.smoke = True
  small.epochs, small.batch_size, small.devices = 1, 16, 1
  small.data.update({'name': 'synthetic', 'dir': '', 'validation': 0.25})
  small.data.per_class = 0
  small.data.update({'shape': shape, 'classes': classes, 'examples': 160})
  if small.search.strategy:  # a few candidates, one of which must do
    small.search.update({'steps': min(small.search.steps, 1), 'evaluations': 3})
    small.remove.ratio = max(small.remove.ratio, 0.95)
  for name in small.compress.stages:
    if 'every' in small.compress.get(name, {}):
      small.compress[name].every = 1
  return small.lock()


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Dotted field to value, nested fields resolved."""
  flat: dict[str, Any] = {}
  for key in config:
    value = config[key]
    flat |= flatten(value, f'{prefix}{key}.') if isinstance(value, Mapping | ml_collections.ConfigDict) else {
      f'{prefix}{key}': value}
  return flat


def nested(config: ml_collections.ConfigDict, field: str) -> dict[str, Any]:
  """The fields under a dotted field, as plain data; {} where there is no such field."""
  for part in field.split('.'):
    config = config.get(part, {})
  return dict(config)


def essential(config: ml_collections.ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
  """The fields that differ from their default, without what a run is not about; dotted field to canonical value."""
  defaults = _canonical_defaults()
  differing = {}
  for field, value in sorted(flatten(config).items()):
    if not any(field == each or field.startswith(f'{each}.') for each in INCIDENTAL):
      written = canonical(value)
      if field not in defaults or defaults[field] != written:
        differing[field] = written
  return differing


@functools.cache
def _canonical_defaults() -> dict[str, Any]:
  """Made once: a table of a thousand rows asks for the identity of each."""
  return {field: canonical(value) for field, value in flatten(default()).items()}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
  """How two essential configs differ, as text for a message."""
  fields = [field for field in sorted({*one, *other}) if one.get(field) != other.get(field)]
  return ', '.join(f'{field}: {one.get(field, "default")} against {other.get(field, "default")}' for field in fields)


def parse_value(text: str) -> Any:
  """A value as a command line gives it: a Python literal, else the text itself."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
