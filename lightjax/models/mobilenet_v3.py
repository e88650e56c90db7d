"""MobileNetV3 of Howard et al. 2019, arXiv:1905.02244, equal to torchvision's.

  network                         params      MACs at 224    published (table 3)
  large                           5,483,032    216.6 M       5.4 M, 219 M
  large, width 0.75               3,993,528    154.6 M       4.0 M, 155 M
  large, minimalistic             3,924,288    209.1 M       3.9 M, 209 M (reference code)
  small                           2,542,856     56.5 M       2.5 M, 56 M
  small, width 0.75               2,041,872     43.4 M       2.0 M, 44 M
  small, minimalistic             2,044,736     52.3 M       2.0 M, 65 M (reference code)

Squeeze-excite reduces to a quarter of the hidden channels, rounded to multiples of 8, with ReLU and a hard sigmoid.
Deviations from the paper: as torchvision, i.e. BatchNorm's epsilon 1e-3 and 0.99 of its statistics kept, dropout 0.2
(the paper's 0.8 is what is kept). Early versions of the paper gave the small network another head (2.9 M, 66 M).
"""
from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import jax.numpy as jnp

from lightjax.models.mobile import Activation, MobileNetwork, Row, Stem
from lightjax.nn.layers import make_divisible

__all__ = ['mobilenet_v3_large', 'mobilenet_v3_small']

# Which implementation's channels at widths other than 1, see `mobilenet_v3_large`.
Rounding = Literal['keras', 'torchvision']

SE = 0.25
HS: Activation = 'hard_swish'
RE: Activation = 'relu'

# Tables 1 and 2: expansion (hidden channels over input channels), window, channels, repeats, stride, SE, nonlinearity.
LARGE = (
  (Row(1, 3, 16, 1, 1, 0, RE),),
  (Row(64 / 16, 3, 24, 1, 2, 0, RE), Row(72 / 24, 3, 24, 1, 1, 0, RE)),
  (Row(72 / 24, 5, 40, 1, 2, SE, RE), Row(120 / 40, 5, 40, 2, 1, SE, RE)),
  (Row(240 / 40, 3, 80, 1, 2, 0, HS), Row(200 / 80, 3, 80, 1, 1, 0, HS), Row(184 / 80, 3, 80, 2, 1, 0, HS)),
  (Row(480 / 80, 3, 112, 1, 1, SE, HS), Row(672 / 112, 3, 112, 1, 1, SE, HS)),
  (Row(672 / 112, 5, 160, 1, 2, SE, HS), Row(960 / 160, 5, 160, 2, 1, SE, HS)),
)
SMALL = (
  (Row(1, 3, 16, 1, 2, SE, RE),),
  (Row(72 / 16, 3, 24, 1, 2, 0, RE), Row(88 / 24, 3, 24, 1, 1, 0, RE)),
  (Row(96 / 24, 5, 40, 1, 2, SE, HS), Row(240 / 40, 5, 40, 2, 1, SE, HS)),
  (Row(120 / 40, 5, 48, 1, 1, SE, HS), Row(144 / 48, 5, 48, 1, 1, SE, HS)),
  (Row(288 / 48, 5, 96, 1, 2, SE, HS), Row(576 / 96, 5, 96, 2, 1, SE, HS)),
)


class MobileNetV3(MobileNetwork):
  """Stages of `LARGE` or `SMALL`; counts in the module's docstring.

  Attributes:
    rounding: 'keras' or 'torchvision', see `mobilenet_v3_large`.
  """

  rounding: Rounding = 'keras'

  family: ClassVar[str] = 'mobilenet_v3'
  timm_arguments: ClassVar[dict[str, Any]] = {'epsilon': 1e-5}

  def head_channels(self) -> int:
    """Channels of `head`: six times those of the last stage."""
    return make_divisible(6 * self.blocks()[-1][-1].features)

  def hidden_channels(self) -> int:
    """Width of `hidden`."""
    return self._scaled(self.hidden_features) if self.rounding == 'torchvision' else super().hidden_channels()

  def torch_name(self, module: str) -> str:
    """torchvision's name of a module."""
    if module in ('hidden', 'classifier'):
      return {'hidden': 'classifier.0', 'classifier': 'classifier.3'}[module]
    counts = [len(blocks) for blocks in self.blocks()]
    if not module.startswith('stage'):
      layer, leaf = module.split('/')
      return f'features.{0 if layer == "stem" else 1 + sum(counts)}.{("conv", "norm").index(leaf)}'
    stage, block, part, leaf = self.located(module)
    built = self.blocks()[stage][block]
    parts = [*['expand'] * self.expands(built), 'depthwise', *['squeeze_excite'] * bool(built.squeeze), 'project']
    leaf = {'conv': '0', 'norm': '1', 'reduce': 'fc1', 'expand': 'fc2'}[leaf]
    return f'features.{1 + sum(counts[:stage]) + block}.block.{parts.index(part)}.{leaf}'

  def timm_name(self, module: str) -> str:
    """timm's name of a module: the last 1x1 convolution is a stage there, and `hidden` one of 1x1, too."""
    last = f'blocks.{len(self.stages)}.0'
    places = {'head/conv': f'{last}.conv', 'head/norm': f'{last}.bn1', 'hidden': 'conv_head'}
    return places.get(module) or super().timm_name(module)

  def timm_shape(self, array: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """timm's shape of an array."""
    return (*shape, 1, 1) if array == 'hidden/kernel' else shape

  def _hidden(self, channels: int, unscaled: int, row: Row) -> int:
    if self.rounding == 'torchvision':
      return self._scaled(round(unscaled * row.expansion))
    return super()._hidden(channels, unscaled, row)


def mobilenet_v3_large(
    *, width: float = 1.0, minimalistic: bool = False, classes: int = 1000, stem: Stem = 'imagenet',
    dropout: float = 0.2, rounding: Rounding = 'keras', fixed_stem: bool = False, padding: str = 'torch',
    epsilon: float = 1e-3, dtype: Any = jnp.float32,
) -> MobileNetV3:
  """MobileNetV3-Large (table 1).

  Args:
    width: multiplies the channels, rounded to multiples of 8.
    minimalistic: the reference code's variant for hardware without the newer operations: 3x3 windows, ReLU, no
      squeeze-excite.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    rounding: how channels are rounded at a width other than 1. 'keras' (timm, too, and the counts above): hidden
      channels follow from the rounded input channels, and no width shrinks the dense layer; 'torchvision': each
      number of the table is scaled and rounded for itself, that of the dense layer, too.
    fixed_stem: whether `width` leaves the stem alone, as timm's mobilenetv3_small_050 does.
    padding: 'torch', or 'SAME' as in TensorFlow (timm's tf_mobilenetv3), see `ConvNorm`.
    epsilon: of BatchNorm; 1e-5 in timm's but for the tf_ ones.
    dtype: of the computation; the last layers are float32.
  """
  return _network(
      LARGE, 1280, width, minimalistic, classes, stem, dropout, rounding, fixed_stem, padding, epsilon, dtype)


def mobilenet_v3_small(
    *, width: float = 1.0, minimalistic: bool = False, classes: int = 1000, stem: Stem = 'imagenet',
    dropout: float = 0.2, rounding: Rounding = 'keras', fixed_stem: bool = False, padding: str = 'torch',
    epsilon: float = 1e-3, dtype: Any = jnp.float32,
) -> MobileNetV3:
  """MobileNetV3-Small (table 2); the arguments are those of `mobilenet_v3_large`."""
  return _network(
      SMALL, 1024, width, minimalistic, classes, stem, dropout, rounding, fixed_stem, padding, epsilon, dtype)


def _network(
    stages: tuple[tuple[Row, ...], ...], hidden: int, width: float, minimalistic: bool, classes: int, stem: Stem,
    dropout: float, rounding: Rounding, fixed_stem: bool, padding: str, epsilon: float, dtype: Any,
) -> MobileNetV3:
  if rounding not in get_args(Rounding):
    raise ValueError(f'mobilenet_v3: rounding {rounding!r} is none of {get_args(Rounding)}.')
  if minimalistic:
    stages = tuple(tuple(row._replace(window=3, squeeze=0, activation=RE) for row in rows) for rows in stages)
  return MobileNetV3(
      stages, width, classes=classes, stem=stem, dropout=dropout, stem_features=16, hidden_features=hidden,
      fixed=('stem',) if fixed_stem else (), activation=RE if minimalistic else HS, squeeze_from='hidden',
      squeeze_divisor=8, gate='hard_sigmoid', padding=padding, epsilon=epsilon, momentum=0.99, rounding=rounding,
      dtype=dtype)
