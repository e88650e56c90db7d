"""What the networks of inverted residuals share: a stem, stages by a table, one last 1x1 convolution, a classifier.

MobileNetV2 and V3, MnasNet, EfficientNet and its Lite, FBNet are tables for `MobileNetwork`; each has its own file.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.inverted_residual import InvertedResidual
from lightjax.nn.blocks.squeeze_excite import SqueezeExcite
from lightjax.nn.layers import ConvNorm, make_divisible

Stem = Literal['imagenet', 'cifar', 'mnist']
Activation = Literal['relu', 'relu6', 'hard_swish', 'swish']
ACTIVATIONS = {'relu': nn.relu, 'relu6': nn.relu6, 'hard_swish': nn.hard_swish, 'swish': nn.swish}
GATES = {'sigmoid': nn.sigmoid, 'hard_sigmoid': nn.hard_sigmoid}

# Strides of the stem, and of the first stage that has one, for small images (the papers have none): 32x32 ends at 4x4,
# 28x28 at 2x2.
STEMS = {'imagenet': (2, 2), 'cifar': (1, 1), 'mnist': (1, 2)}

# timm's names of what is no block.
TIMM = {'stem/conv': 'conv_stem', 'stem/norm': 'bn1', 'head/conv': 'conv_head', 'head/norm': 'bn2',
        'classifier': 'classifier'}


class Row(NamedTuple):
  """One row of a stage's table: blocks of one kind.

  Attributes:
    expansion: hidden channels of a block, per input channel.
    window: of the depthwise convolutions, pixels.
    features: output channels, before the width multiplier.
    blocks: how many, before the depth multiplier.
    strides: of the first block; the others have 1.
    squeeze: channels that squeeze-excite reduces to, as a fraction of `MobileNetwork.squeeze_from`; 0 for none.
    activation: of these blocks; '' for the network's.
  """
  expansion: float
  window: int
  features: int
  blocks: int
  strides: int
  squeeze: float = 0
  activation: Activation | Literal[''] = ''


class Block(NamedTuple):
  """One block as it is built, after all rounding; the fields are those of `Row` and `InvertedResidual`."""
  channels: int
  hidden: int
  features: int
  window: int
  strides: int
  squeeze: float
  activation: str


class Blocks(nn.Module):
  """Different blocks one after the other, `block0` ...; each is called with `name`."""

  makers: tuple[Callable[..., Any], ...]

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The blocks on one batch."""
    for index, make in enumerate(self.makers):
      x = make(name=f'block{index}')(x, train)
    return x


class MobileNetwork(nn.Module):
  """`stem`, `stage1` ..., `head` (the last 1x1 convolution), `hidden` (a dense layer, if any), `classifier`.

  Attributes:
    stages: rows of each stage.
    width: multiplies all channels, rounded to multiples of `divisor`.
    depth: multiplies the blocks of each row, rounded up.
    classes: number of logits.
    stem: 'imagenet' (the table's strides), 'cifar' or 'mnist', see `STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    drop_path: rate of stochastic depth that the last block would have in training; it grows from 0 with each block.
    stem_features: channels of `stem`.
    head_features: channels of `head`.
    hidden_features: of a dense layer between average and classifier, with the network's activation; 0 for none.
    fixed: of 'stem' and 'head', those whose channels `width` does not touch.
    fixed_ends: whether `depth` leaves the first and the last stage alone.
    activation: of stem, head and blocks: 'relu', 'relu6', 'hard_swish' or 'swish'.
    squeeze_activation: within squeeze-excite.
    squeeze_from: 'input' or 'hidden', the channels of a block that squeeze-excite takes its fraction of.
    squeeze_divisor: what the squeezed channels are rounded to a multiple of.
    gate: of squeeze-excite: 'sigmoid' or 'hard_sigmoid'.
    always_expand: whether blocks of expansion 1 have a 1x1 expansion as well.
    divisor: of all channels.
    padding: 'torch' or 'SAME', see `ConvNorm`.
    epsilon: of BatchNorm.
    momentum: of BatchNorm, the fraction that is kept.
    dtype: of the computation; the last layers are float32.
  """

  stages: tuple[tuple[Row, ...], ...]
  width: float = 1.0
  depth: float = 1.0
  classes: int = 1000
  stem: Stem = 'imagenet'
  dropout: float = 0.2
  drop_path: float = 0.0
  stem_features: int = 32
  head_features: int = 1280
  hidden_features: int = 0
  fixed: tuple[str, ...] = ()
  fixed_ends: bool = False
  activation: Activation = 'relu6'
  squeeze_activation: Activation = 'relu'
  squeeze_from: Literal['input', 'hidden'] = 'input'
  squeeze_divisor: int = 1
  gate: Literal['sigmoid', 'hard_sigmoid'] = 'sigmoid'
  always_expand: bool = False
  divisor: int = 8
  padding: str = 'torch'
  epsilon: float = 1e-5
  momentum: float = 0.9
  dtype: Any = jnp.float32

  # What the errors call the network.
  family: ClassVar[str] = 'mobile'

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    self._check()
    conv_norm = functools.partial(
        ConvNorm, padding=self.padding, epsilon=self.epsilon, momentum=self.momentum, dtype=self.dtype)
    activation = ACTIVATIONS[self.activation]
    x = conv_norm(self.stem_channels(), strides=STEMS[self.stem][0], activation=activation, name='stem')(x, train)
    stages = self.blocks()
    total, done = sum(map(len, stages)), 0
    for index, blocks in enumerate(stages, 1):
      makers = tuple(
          self._maker(block, conv_norm, self.drop_path * (done + place) / total) for place, block in enumerate(blocks))
      x = Blocks(makers, name=f'stage{index}')(x, train)
      done += len(blocks)
    x = conv_norm(self.head_channels(), window=1, activation=activation, name='head')(x, train)
    if self.hidden_features:
      x = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
      x = activation(nn.Dense(self.hidden_channels(), dtype=jnp.float32, name='hidden')(x))
    return classify(x, self.classes, dropout=self.dropout, train=train)

  def stem_channels(self) -> int:
    """Channels of `stem`."""
    return self.stem_features if 'stem' in self.fixed else self._scaled(self.stem_features)

  def head_channels(self) -> int:
    """Channels of `head`."""
    return self.head_features if 'head' in self.fixed else self._scaled(self.head_features)

  def hidden_channels(self) -> int:
    """Width of `hidden`; a width under 1 leaves it as it is."""
    return make_divisible(self.hidden_features * max(1.0, self.width), self.divisor)

  def blocks(self) -> tuple[tuple[Block, ...], ...]:
    """The blocks of each stage, as they are built."""
    channels, unscaled = self.stem_channels(), self.stem_features
    reduced = STEMS[self.stem][1]
    stages = []
    for index, rows in enumerate(self.stages):
      depth = 1.0 if self.fixed_ends and index in (0, len(self.stages) - 1) else self.depth
      stage = []
      for row in rows:
        first = row.strides
        if first > 1 and reduced:
          first, reduced = min(first, reduced), 0
        features = self._scaled(row.features)
        for number in range(math.ceil(row.blocks * depth)):
          hidden = self._hidden(channels, unscaled, row)
          activation = row.activation or self.activation
          strides = first if number == 0 else 1
          stage.append(Block(channels, hidden, features, row.window, strides, row.squeeze, activation))
          channels, unscaled = features, row.features
      stages.append(tuple(stage))
    return tuple(stages)

  def torch_name(self, module: str) -> str:
    """The reference's name of a module: timm's, where a family has no other."""
    return self.timm_name(module)

  def timm_name(self, module: str) -> str:
    """timm's name of a module."""
    if not module.startswith('stage'):
      return TIMM[module]
    stage, block, part, leaf = self.located(module)
    if part == 'squeeze_excite':
      inner = f'se.conv_{leaf}'
    else:
      expands = self.expands(self.blocks()[stage][block])
      parts = ('expand', 'depthwise', 'project') if expands else ('depthwise', 'project')
      convs = ('conv_pw', 'conv_dw', 'conv_pwl') if expands else ('conv_dw', 'conv_pw')
      inner = convs[parts.index(part)] if leaf == 'conv' else f'bn{1 + parts.index(part)}'
    return f'blocks.{stage}.{block}.{inner}'

  def expands(self, block: Block) -> bool:
    """Whether a block has a 1x1 expansion."""
    return self.always_expand or block.hidden != block.channels

  @staticmethod
  def located(module: str) -> tuple[int, int, str, str]:
    """Stage and block, counted from 0, the part of the block and the leaf that a path of a module names."""
    stage, block, part, leaf = module.split('/')
    return int(stage.removeprefix('stage')) - 1, int(block.removeprefix('block')), part, leaf

  def _scaled(self, channels: float) -> int:
    return make_divisible(channels * self.width, self.divisor)

  def _hidden(self, channels: int, unscaled: int, row: Row) -> int:
    del unscaled  # the channels at width 1; some family may want them
    return make_divisible(channels * row.expansion, self.divisor)

  def _maker(self, block: Block, conv_norm: Callable[..., Any], drop_path: float) -> Callable[..., Any]:
    squeeze_excite = None
    if block.squeeze:
      squeeze_excite = functools.partial(
          SqueezeExcite, ratio=block.squeeze, base=block.channels if self.squeeze_from == 'input' else block.hidden,
          divisor=self.squeeze_divisor, activation=ACTIVATIONS[self.squeeze_activation], gate=GATES[self.gate])
    return functools.partial(
        InvertedResidual, block.features, strides=block.strides, window=block.window, hidden=block.hidden,
        always_expand=self.always_expand, activation=ACTIVATIONS[block.activation], squeeze_excite=squeeze_excite,
        drop_path=drop_path, conv_norm=conv_norm, dtype=self.dtype)

  def _check(self) -> None:
    activations = {self.activation, self.squeeze_activation, *(row.activation for rows in self.stages for row in rows)}
    choices: list[tuple[str, Collection[str], Collection[str]]] = [
        ('stem', {self.stem}, STEMS), ('activation', activations - {''}, ACTIVATIONS), ('gate', {self.gate}, GATES),
        ('fixed', set(self.fixed), ('stem', 'head')), ('squeeze_from', {self.squeeze_from}, ('input', 'hidden')),
    ]
    for name, given, known in choices:
      for wrong in sorted(set(given) - set(known)):
        raise ValueError(f'{self.family}: {name} {wrong!r} is none of {tuple(known)}.')
