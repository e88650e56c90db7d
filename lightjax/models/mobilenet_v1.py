"""MobileNetV1 of Howard et al. 2017, arXiv:1704.04861, equal to timm's.

  width   params      MACs at 224    published (tables 6 and 7)
  1.0     4,231,976    568.7 M       4.2 M, 569 M
  0.75    2,585,560    325.4 M       2.6 M, 325 M
  0.5     1,331,592    149.5 M       1.3 M, 149 M
  0.25      470,072     41.0 M       0.5 M, 41 M

Deviations from the paper: ReLU6 in place of ReLU, as in all implementations; padding is PyTorch's, `window // 2` zeros
on all sides, and BatchNorm's epsilon 1e-5, where TensorFlow and Keras pad one zero more after than before at stride 2
and have 1e-3: `padding='SAME', epsilon=1e-3`. The last stage's second block has stride 1 (the paper's table prints 2,
its output sizes say 1).
"""
from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models.mobile import STEMS, TIMM, Stem
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.depthwise_separable import DepthwiseSeparable
from lightjax.nn.blocks.stage import Stage
from lightjax.nn.layers import ConvNorm, make_divisible

__all__ = ['mobilenetv1_100']

# Table 1: channels, blocks, stride of the first.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class MobileNetV1(nn.Module):
  """`stem`, `stage1` to `stage5`, `classifier`; counts in the module's docstring.

  Attributes:
    width: multiplies all channels, rounded to multiples of 8.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    stages: rows of `STAGES`.
    padding: 'torch' or 'SAME', see `ConvNorm`.
    epsilon: of BatchNorm.
    dtype: of the computation; the last layer is float32.
  """

  width: float = 1.0
  classes: int = 1000
  stem: Stem = 'imagenet'
  dropout: float = 0.0
  stages: tuple[tuple[int, int, int], ...] = STAGES
  padding: str = 'torch'
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  # timm's names of the parts of a block.
  parts: ClassVar[dict[str, str]] = {
    'depthwise/conv': 'conv_dw', 'depthwise/norm': 'bn1', 'pointwise/conv': 'conv_pw', 'pointwise/norm': 'bn2'}

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.stem not in STEMS:
      raise ValueError(f'mobilenet_v1: stem {self.stem!r} is none of {tuple(STEMS)}.')
    stem_strides, stage2_strides = STEMS[self.stem]
    conv_norm = functools.partial(ConvNorm, padding=self.padding, epsilon=self.epsilon, dtype=self.dtype)
    stem_features = make_divisible(32 * self.width)
    x = conv_norm(stem_features, strides=stem_strides, activation=nn.relu6, name='stem')(x, train)
    for index, (channels, blocks, strides) in enumerate(self.stages, 1):
      block = functools.partial(
          DepthwiseSeparable, make_divisible(channels * self.width), activation=nn.relu6, conv_norm=conv_norm,
          dtype=self.dtype)
      strides = min(strides, stage2_strides) if index == 2 else strides
      x = Stage(block, blocks, strides, name=f'stage{index}')(x, train)
    return classify(x, self.classes, dropout=self.dropout, train=train)

  def torch_name(self, module: str) -> str:
    """timm's name of a module."""
    if not module.startswith('stage'):
      return TIMM[module]
    stage, block, part = module.split('/', 2)
    return f'blocks.{int(stage.removeprefix("stage")) - 1}.{block.removeprefix("block")}.{self.parts[part]}'


def mobilenetv1_100(
    *, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.0,
    stages: tuple[tuple[int, int, int], ...] = STAGES, padding: str = 'torch', epsilon: float = 1e-5,
    dtype: Any = jnp.float32,
) -> MobileNetV1:
  """MobileNetV1, by timm's name; see the class."""
  rows = tuple((channels, blocks, stride) for channels, blocks, stride in stages)
  return MobileNetV1(width, classes, stem, dropout, rows, padding, epsilon, dtype)
