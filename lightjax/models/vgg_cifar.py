"""The small VGGs for CIFAR of the distillation and pruning literature, with BatchNorm and one dense layer.

As in RepDistiller (Tian et al. 2020, arXiv:1910.10699), with 100 classes:

  network        params        published    MACs at 32x32
  vgg8_cifar      3,965,028    3.97 M         96,192,512
  vgg11_cifar     9,277,284    -             209,438,720
  vgg13_cifar     9,462,180    9.46 M        284,936,192
  vgg16_cifar    14,774,436    -             398,182,400
  vgg19_cifar    20,086,692    -             511,428,608

The pruning literature's networks pool once more and have no biases in the convolutions (`pools=4, use_bias=False`).
With 10 classes, vgg19_cifar of Network Slimming (Liu et al. 2017, arXiv:1708.06519) has 20,035,018 params and
398,136,320 MACs; vgg16_cifar of Li et al. 2017, arXiv:1608.08710, with `hidden=512` too, 14,987,722 and 313,463,808.

As in RepDistiller, the fourth stage is followed by no pooling at 32x32 unless `pools=4`.
"""
from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lightjax.models.vgg import CHANNELS, CONVOLUTIONS, sequential_place
from lightjax.nn.blocks.classifier import classify
from lightjax.nn.blocks.plain import PlainStage
from lightjax.nn.layers import BatchNorm
from lightjax.nn.pooling import max_pool

__all__ = ['vgg8_cifar', 'vgg11_cifar', 'vgg13_cifar', 'vgg16_cifar', 'vgg19_cifar']

DEPTHS = {8: (1, 1, 1, 1, 1), **CONVOLUTIONS}


class VGGCIFAR(nn.Module):
  """`stage1` to `stage5`, poolings after the first of them, global average, `classifier`.

  Attributes:
    depth: 8, 11, 13, 16 or 19, named as their ImageNet kin, which have two dense layers more.
    classes: number of logits.
    pools: how many stages are followed by a pooling.
    use_bias: whether the convolutions have a bias.
    hidden: width of a dense layer with BatchNorm before the last, `fc1`; None for none.
    width: multiplies the channels.
    dtype: of the computation; the last layer is float32.
  """

  depth: int
  classes: int = 10
  pools: int = 3
  use_bias: bool = True
  hidden: int | None = None
  width: float = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b classes']:
    """Logits of a batch of images."""
    if self.depth not in DEPTHS:
      raise ValueError(f'vgg_cifar: depth {self.depth} is none of {tuple(DEPTHS)}.')
    for index, (channels, convolutions) in enumerate(zip(CHANNELS, DEPTHS[self.depth], strict=True), 1):
      x = PlainStage(
          round(channels * self.width), convolutions, True, self.use_bias, dtype=self.dtype,
          name=f'stage{index}')(x, train)
      if index <= self.pools:
        x = max_pool(x, 2, 2)
    if self.hidden is None:
      return classify(x, self.classes)
    x = classify(x, self.hidden, name='fc1')
    x = nn.relu(BatchNorm(use_running_average=not train, name='fc1_norm')(x))
    return nn.Dense(self.classes, dtype=jnp.float32, name='classifier')(x)

  def torch_name(self, module: str) -> str:
    """The name in RepDistiller or, without biases, in Rethinking the Value of Network Pruning."""
    dense = {'fc1': 'classifier.0', 'fc1_norm': 'classifier.1', 'classifier': 'classifier.3'}
    if module in dense:
      return dense[module] if self.hidden else 'classifier'
    if not self.use_bias:
      return f'feature.{sequential_place(module, DEPTHS[self.depth], batch_norm=True)}'
    stage, _, layer = module.partition('/')
    # Each stage is a sequence of its own there: convolution, BatchNorm, ReLU.
    return f'block{int(stage.removeprefix("stage")) - 1}.{3 * (int(layer[4:]) - 1) + layer.startswith("norm")}'


def vgg8_cifar(
    *, classes: int = 10, pools: int = 3, use_bias: bool = True, hidden: int | None = None, width: float = 1,
    dtype: Any = jnp.float32,
) -> VGGCIFAR:
  """One convolution a stage; see the class."""
  return VGGCIFAR(8, classes, pools, use_bias, hidden, width, dtype)


def vgg11_cifar(
    *, classes: int = 10, pools: int = 3, use_bias: bool = True, hidden: int | None = None, width: float = 1,
    dtype: Any = jnp.float32,
) -> VGGCIFAR:
  """Configuration A; see the class."""
  return VGGCIFAR(11, classes, pools, use_bias, hidden, width, dtype)


def vgg13_cifar(
    *, classes: int = 10, pools: int = 3, use_bias: bool = True, hidden: int | None = None, width: float = 1,
    dtype: Any = jnp.float32,
) -> VGGCIFAR:
  """Configuration B; see the class."""
  return VGGCIFAR(13, classes, pools, use_bias, hidden, width, dtype)


def vgg16_cifar(
    *, classes: int = 10, pools: int = 3, use_bias: bool = True, hidden: int | None = None, width: float = 1,
    dtype: Any = jnp.float32,
) -> VGGCIFAR:
  """Configuration D; see the class."""
  return VGGCIFAR(16, classes, pools, use_bias, hidden, width, dtype)


def vgg19_cifar(
    *, classes: int = 10, pools: int = 3, use_bias: bool = True, hidden: int | None = None, width: float = 1,
    dtype: Any = jnp.float32,
) -> VGGCIFAR:
  """Configuration E; see the class."""
  return VGGCIFAR(19, classes, pools, use_bias, hidden, width, dtype)
