"""FBNet-C of Wu et al. 2019, arXiv:1812.03443, equal to timm's.

5,572,200 params, 384,960,160 MACs at 224 (published, authors' README: 5.5 M, 383 M). Blocks of expansion 1 have a 1x1
convolution, too. Deviations from the paper: none known; timm's table was checked, the paper's was not.
"""
from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from lightjax.models.mobile import MobileNetwork, Row, Stem

__all__ = ['fbnetc_100']

# The blocks that the search chose: expansion, window, channels, layers, stride.
STAGES = (
  (Row(1, 3, 16, 1, 1),),
  (Row(6, 3, 24, 1, 2), Row(1, 3, 24, 2, 1)),
  (Row(6, 5, 32, 1, 2), Row(3, 5, 32, 1, 1), Row(6, 5, 32, 1, 1), Row(6, 3, 32, 1, 1)),
  (Row(6, 5, 64, 1, 2), Row(3, 5, 64, 1, 1), Row(6, 5, 64, 2, 1)),
  (Row(6, 5, 112, 3, 1), Row(3, 5, 112, 1, 1)),
  (Row(6, 5, 184, 4, 2),),
  (Row(6, 3, 352, 1, 1),),
)


class FBNet(MobileNetwork):
  """Stages of `STAGES`; counts in the module's docstring."""

  family: ClassVar[str] = 'fbnet'


def fbnetc_100(
    *, width: float = 1.0, classes: int = 1000, stem: Stem = 'imagenet', dropout: float = 0.2, dtype: Any = jnp.float32,
) -> FBNet:
  """FBNet-C.

  Args:
    width: multiplies the channels of stem and stages, rounded to multiples of 8.
    classes: number of logits.
    stem: 'imagenet' (the paper's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """
  return FBNet(
      STAGES, width, classes=classes, stem=stem, dropout=dropout, stem_features=16, head_features=1984, fixed=('head',),
      activation='relu', always_expand=True, dtype=dtype)
