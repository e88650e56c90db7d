"""Small networks of inverted residuals by a table that is given, for images of 28x28: what a search changes.

32,930 params, 4,659,808 MACs at 28x28x1 with the default table. No paper's network: the block is that of Sandler et al.
2018, arXiv:1801.04381, with ReLU, the squeeze-excite that of Howard et al. 2019, arXiv:1905.02244.
"""
from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from lightjax.models.mobile import MobileNetwork, Row, Stem

__all__ = ['mobile_stages']

# Expansion, window, channels, blocks, stride, squeeze; with the stem 'mnist' at 28x28, 14x14, 7x7.
STAGES = ((3, 3, 16, 1, 1, 0), (3, 3, 24, 2, 2, 0), (3, 3, 40, 2, 2, 0))


class MobileStages(MobileNetwork):
  """Stages by `mobile_stages`."""

  family: ClassVar[str] = 'mobile_stages'


def mobile_stages(
    *, stages: tuple[tuple[float, ...], ...] = STAGES, width: float = 1.0, classes: int = 10, stem: Stem = 'mnist',
    stem_features: int = 16, head_features: int = 128, dropout: float = 0.0, dtype: Any = jnp.float32,
) -> MobileStages:
  """Inverted residuals by a table.

  Args:
    stages: rows of `STAGES`: the first four to seven fields of `mobile.Row`.
    width: multiplies the channels of stem and stages, rounded to multiples of 8.
    classes: number of logits.
    stem: 'imagenet' (the table's strides), 'cifar' or 'mnist', see `mobile.STEMS`.
    stem_features: channels of the stem.
    head_features: channels of the last 1x1 convolution; `width` does not touch them.
    dropout: rate before the classifier, in training; needs the rng 'dropout'.
    dtype: of the computation; the last layer is float32.
  """
  rows = tuple((Row(*row),) for row in stages)  # type: ignore[arg-type]
  return MobileStages(
      rows, width, classes=classes, stem=stem, dropout=dropout, stem_features=stem_features,
      head_features=head_features, fixed=('head',), activation='relu', squeeze_from='hidden', gate='hard_sigmoid',
      dtype=dtype)
