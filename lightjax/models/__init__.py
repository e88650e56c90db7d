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
from lightjax.models.alexnet import alexnet, alexnet_caffe
from lightjax.models.binary_connect import binary_mlp, vgg_small
from lightjax.models.binary_resnet import bi_real_resnet18, react_resnet18, xnor_resnet18
from lightjax.models.conv_cifar import conv2, conv4, conv6
from lightjax.models.convnext import (
  convnext_atto,
  convnext_base,
  convnext_femto,
  convnext_nano,
  convnext_pico,
  convnext_small,
  convnext_tiny,
)
from lightjax.models.densenet import (
  densenet40,
  densenet100,
  densenet121,
  densenet161,
  densenet169,
  densenet201,
  densenet_bc_40,
  densenet_bc_100,
  densenet_bc_190,
  densenet_bc_250,
)
from lightjax.models.efficientnet import (
  efficientnet_b0,
  efficientnet_b1,
  efficientnet_b2,
  efficientnet_b3,
  efficientnet_b4,
  efficientnet_b5,
  efficientnet_b6,
  efficientnet_b7,
  efficientnet_lite0,
  efficientnet_lite1,
  efficientnet_lite2,
  efficientnet_lite3,
  efficientnet_lite4,
)
from lightjax.models.fbnet import fbnetc_100
from lightjax.models.ghostnet import ghostnet_050, ghostnet_100, ghostnet_130
from lightjax.models.googlenet import googlenet
from lightjax.models.inception_v3 import inception_v3
from lightjax.models.lenet import lenet5, lenet5_classic, lenet300
from lightjax.models.mnasnet import (
  mnasnet0_5,
  mnasnet0_75,
  mnasnet1_0,
  mnasnet1_3,
  mnasnet_small,
  semnasnet_050,
  semnasnet_075,
  semnasnet_100,
  semnasnet_140,
)
from lightjax.models.mobile_stages import mobile_stages
from lightjax.models.mobilenet_v1 import mobilenetv1_100
from lightjax.models.mobilenet_v2 import mobile_half, mobilenet_v2
from lightjax.models.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small
from lightjax.models.mobileone import mobileone_s0, mobileone_s1, mobileone_s2, mobileone_s3, mobileone_s4
from lightjax.models.preact_resnet import preact_resnet20, preact_resnet110, preact_resnet164, preact_resnet1001
from lightjax.models.regnet import (
  regnet_x_400mf,
  regnet_y_400mf,
  regnet_y_800mf,
  regnetx_004,
  regnety_002,
  regnety_004,
  regnety_006,
  regnety_008,
)
from lightjax.models.repvgg import repvgg_a0, repvgg_a1, repvgg_a2, repvgg_b0
from lightjax.models.resnet import (
  resnet18,
  resnet34,
  resnet50,
  resnet101,
  resnet152,
  resnext50_32x4d,
  resnext101_32x8d,
  wide_resnet50_2,
  wide_resnet101_2,
)
from lightjax.models.resnet_cifar import (
  resnet8,
  resnet8x4,
  resnet14,
  resnet20,
  resnet32,
  resnet32x4,
  resnet44,
  resnet56,
  resnet110,
  resnet1202,
)
from lightjax.models.shufflenet_v1 import shufflenet_v1, shufflenet_v1_cifar
from lightjax.models.shufflenet_v2 import shufflenet_v2_x0_5, shufflenet_v2_x1_0, shufflenet_v2_x1_5, shufflenet_v2_x2_0
from lightjax.models.squeezenet import squeezenet1_0, squeezenet1_1
from lightjax.models.vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from lightjax.models.vgg_cifar import vgg8_cifar, vgg11_cifar, vgg13_cifar, vgg16_cifar, vgg19_cifar
from lightjax.models.wide_resnet import (
  wrn_16_1,
  wrn_16_2,
  wrn_16_4,
  wrn_16_8,
  wrn_22_2,
  wrn_28_10,
  wrn_40_1,
  wrn_40_2,
  wrn_40_4,
)
from lightjax.models.xception import xception

__all__ = [
  'alexnet',
  'alexnet_caffe',
  'bi_real_resnet18',
  'binary_mlp',
  'conv2',
  'conv4',
  'conv6',
  'convnext_atto',
  'convnext_base',
  'convnext_femto',
  'convnext_nano',
  'convnext_pico',
  'convnext_small',
  'convnext_tiny',
  'densenet40',
  'densenet100',
  'densenet121',
  'densenet161',
  'densenet169',
  'densenet201',
  'densenet_bc_40',
  'densenet_bc_100',
  'densenet_bc_190',
  'densenet_bc_250',
  'efficientnet_b0',
  'efficientnet_b1',
  'efficientnet_b2',
  'efficientnet_b3',
  'efficientnet_b4',
  'efficientnet_b5',
  'efficientnet_b6',
  'efficientnet_b7',
  'efficientnet_lite0',
  'efficientnet_lite1',
  'efficientnet_lite2',
  'efficientnet_lite3',
  'efficientnet_lite4',
  'fbnetc_100',
  'ghostnet_050',
  'ghostnet_100',
  'ghostnet_130',
  'googlenet',
  'inception_v3',
  'lenet5',
  'lenet5_classic',
  'lenet300',
  'mnasnet0_5',
  'mnasnet0_75',
  'mnasnet1_0',
  'mnasnet1_3',
  'mnasnet_small',
  'mobile_half',
  'mobile_stages',
  'mobilenet_v2',
  'mobilenet_v3_large',
  'mobilenet_v3_small',
  'mobilenetv1_100',
  'mobileone_s0',
  'mobileone_s1',
  'mobileone_s2',
  'mobileone_s3',
  'mobileone_s4',
  'preact_resnet20',
  'preact_resnet110',
  'preact_resnet164',
  'preact_resnet1001',
  'react_resnet18',
  'regnet_x_400mf',
  'regnet_y_400mf',
  'regnet_y_800mf',
  'regnetx_004',
  'regnety_002',
  'regnety_004',
  'regnety_006',
  'regnety_008',
  'repvgg_a0',
  'repvgg_a1',
  'repvgg_a2',
  'repvgg_b0',
  'resnet8',
  'resnet8x4',
  'resnet14',
  'resnet18',
  'resnet20',
  'resnet32',
  'resnet32x4',
  'resnet34',
  'resnet44',
  'resnet50',
  'resnet56',
  'resnet101',
  'resnet110',
  'resnet152',
  'resnet1202',
  'resnext50_32x4d',
  'resnext101_32x8d',
  'semnasnet_050',
  'semnasnet_075',
  'semnasnet_100',
  'semnasnet_140',
  'shufflenet_v1',
  'shufflenet_v1_cifar',
  'shufflenet_v2_x0_5',
  'shufflenet_v2_x1_0',
  'shufflenet_v2_x1_5',
  'shufflenet_v2_x2_0',
  'squeezenet1_0',
  'squeezenet1_1',
  'vgg8_cifar',
  'vgg11',
  'vgg11_bn',
  'vgg11_cifar',
  'vgg13',
  'vgg13_bn',
  'vgg13_cifar',
  'vgg16',
  'vgg16_bn',
  'vgg16_cifar',
  'vgg19',
  'vgg19_bn',
  'vgg19_cifar',
  'vgg_small',
  'wide_resnet50_2',
  'wide_resnet101_2',
  'wrn_16_1',
  'wrn_16_2',
  'wrn_16_4',
  'wrn_16_8',
  'wrn_22_2',
  'wrn_28_10',
  'wrn_40_1',
  'wrn_40_2',
  'wrn_40_4',
  'xception',
  'xnor_resnet18',
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
