"""The networks, one file per family; the names of `__all__` are the registry.

A network is one of the functions below; it takes keyword arguments that can be printed and returns a linen module with
`__call__(x, train=False)`, x of NHWC, that returns float32 logits.

  >>> create('resnet20', classes=100).classes
  100
"""
from __future__ import annotations

import inspect
from typing import Any

from flax import linen as nn

from lightjax.core import trees
from lightjax.models.lenet import lenet5, lenet300
from lightjax.models.mobilenet_v2 import mobilenet_v2
from lightjax.models.resnet_cifar import resnet8, resnet20, resnet32, resnet44, resnet56, resnet110

__all__ = [
  'lenet5',
  'lenet300',
  'mobilenet_v2',
  'resnet8',
  'resnet20',
  'resnet32',
  'resnet44',
  'resnet56',
  'resnet110',
]


def names() -> tuple[str, ...]:
  """The networks that `create` knows."""
  return tuple(__all__)


def create(name: str, **overrides: Any) -> nn.Module:
  """A network by name, as a config gives it.

  Args:
    name: one of `names()`.
    **overrides: arguments of that constructor.
  Returns:
    The module, without variables.
  Raises:
    ValueError: unknown name or argument; the message gives the nearest.
  """
  if name not in __all__:
    raise ValueError(f'models.create({name!r}): no such network; nearest: {trees.nearest(name, __all__)}.')
  constructor = globals()[name]
  known = inspect.signature(constructor).parameters
  for override in overrides:
    if override not in known:
      raise ValueError(f'models.create({name!r}): no argument {override!r}; nearest: {trees.nearest(override, known)}.')
  return constructor(**overrides)
