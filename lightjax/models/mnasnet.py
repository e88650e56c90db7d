"""MnasNet of Tan et al. 2019, arXiv:1807.11626: B1 equal to torchvision's, A1 and small to timm's.

  network          params      MACs at 224    published
  mnasnet0_5       2,218,512    104.5 M       -
  mnasnet0_75      3,170,208    215.5 M       -
  mnasnet1_0       4,383,312    314.4 M       4.4 M, 315 M (B1, from memory)
  mnasnet1_3       6,282,256    526.4 M       -
  semnasnet_050    2,082,006    103.2 M       2.1 M, 105.2 M (reference code)
  semnasnet_075    2,912,278    223.4 M       2.9 M, 226.7 M (reference code)
  semnasnet_100    3,887,038    311.6 M       3.9 M, 312 M (A1, table 1)
  semnasnet_140    6,105,992    586.3 M       6.1 M, 591.5 M (reference code)
  mnasnet_small    2,030,264     68.3 M       2.0 M, 68 M (table 4)

B1 has no squeeze-excite; that of the others reduces to a quarter of the block's input channels, with ReLU and a
sigmoid. Deviations: BatchNorm keeps 0.9997 of its statistics in B1, as in torchvision, 0.9 in the others, as in timm.
"""
from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from lightjax.models.mobile import MobileNetwork, Row, Stem

__all__ = [
  'mnasnet0_5', 'mnasnet0_75', 'mnasnet1_0', 'mnasnet1_3', 'mnasnet_small', 'semnasnet_050', 'semnasnet_075',
  'semnasnet_100', 'semnasnet_140',
]

# Expansion, window, channels, layers, stride, SE. A1 is figure 7; B1 and small are those of the reference code.
B1 = (
  (Row(1, 3, 16, 1, 1),), (Row(3, 3, 24, 3, 2),), (Row(3, 5, 40, 3, 2),), (Row(6, 5, 80, 3, 2),),
  (Row(6, 3, 96, 2, 1),), (Row(6, 5, 192, 4, 2),), (Row(6, 3, 320, 1, 1),),
)
A1 = (
  (Row(1, 3, 16, 1, 1),), (Row(6, 3, 24, 2, 2),), (Row(3, 5, 40, 3, 2, 0.25),), (Row(6, 3, 80, 4, 2),),
  (Row(6, 3, 112, 2, 1, 0.25),), (Row(6, 5, 160, 3, 2, 0.25),), (Row(6, 3, 320, 1, 1),),
)
SMALL = (
  (Row(1, 3, 8, 1, 1),), (Row(3, 3, 16, 1, 2),), (Row(6, 3, 16, 2, 2),), (Row(6, 5, 32, 4, 2, 0.25),),
  (Row(6, 3, 32, 3, 1, 0.25),), (Row(6, 5, 88, 3, 2, 0.25),), (Row(6, 3, 144, 1, 1),),
)


class MnasNetB1(MobileNetwork):
  """Stages of `B1`; counts in the module's docstring."""

  family: ClassVar[str] = 'mnasnet'

  def torch_name(self, module: str) -> str:
    """torchvision's name of a module."""
    if module == 'classifier':
      return 'classifier.1'
    # Convolution, norm and activation each count.
    *_, leaf = module.split('/')
    after = ('conv', 'norm').index(leaf)
    if not module.startswith('stage'):
      # Behind the stem come the layers of the first stage, and then each stage is one.
      return f'layers.{after if module.startswith("stem") else 7 + len(self.stages) + after}'
    stage, block, part, _ = self.located(module)
    if stage == 0:
      return f'layers.{3 + 3 * ("depthwise", "project").index(part) + after}'
    return f'layers.{7 + stage}.{block}.layers.{3 * ("expand", "depthwise", "project").index(part) + after}'


class MnasNetA1(MobileNetwork):
  """Stages of `A1` or `SMALL`; counts in the module's docstring."""

  family: ClassVar[str] = 'mnasnet'


def mnasnet1_0(
    *, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetB1:
  """MnasNet-B1.

  Args:
    width: multiplies the channels of stem and stages, rounded to multiples of 8.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """
  return MnasNetB1(
      B1, width, classes=classes, stem=stem, dropout=dropout, fixed=('head',), activation='relu', momentum=0.9997,
      dtype=dtype)


def mnasnet0_5(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetB1:
  """MnasNet-B1 of width 0.5; the arguments are those of `mnasnet1_0`."""
  return mnasnet1_0(width=0.5, classes=classes, stem=stem, dropout=dropout, dtype=dtype)


def mnasnet0_75(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetB1:
  """MnasNet-B1 of width 0.75; the arguments are those of `mnasnet1_0`."""
  return mnasnet1_0(width=0.75, classes=classes, stem=stem, dropout=dropout, dtype=dtype)


def mnasnet1_3(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetB1:
  """MnasNet-B1 of width 1.3; the arguments are those of `mnasnet1_0`."""
  return mnasnet1_0(width=1.3, classes=classes, stem=stem, dropout=dropout, dtype=dtype)


def semnasnet_100(
    *, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetA1:
  """MnasNet-A1, by timm's name; the arguments are those of `mnasnet1_0`."""
  return MnasNetA1(
      A1, width, classes=classes, stem=stem, dropout=dropout, fixed=('head',), activation='relu', dtype=dtype)


def semnasnet_050(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetA1:
  """MnasNet-A1 of width 0.5; the arguments are those of `mnasnet1_0`."""
  return semnasnet_100(width=0.5, classes=classes, stem=stem, dropout=dropout, dtype=dtype)


def semnasnet_075(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetA1:
  """MnasNet-A1 of width 0.75; the arguments are those of `mnasnet1_0`."""
  return semnasnet_100(width=0.75, classes=classes, stem=stem, dropout=dropout, dtype=dtype)


def semnasnet_140(
    *, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetA1:
  """MnasNet-A1 of width 1.4; the arguments are those of `mnasnet1_0`."""
  return semnasnet_100(width=1.4, classes=classes, stem=stem, dropout=dropout, dtype=dtype)


def mnasnet_small(
    *, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> MnasNetA1:
  """MnasNet-small (table 4); the arguments are those of `mnasnet1_0`."""
  return MnasNetA1(
      SMALL, width, classes=classes, stem=stem, dropout=dropout, stem_features=8, fixed=('head',), activation='relu',
      dtype=dtype)
