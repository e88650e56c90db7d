"""PyTorch's counterparts of networks of the zoo, for side-by-side timings; needs torch and torchvision.

Where `lightjax.interop` knows the layout, the benchmark loads their weights and compares logits before it times them.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn
from torch.nn import functional

__all__ = ['PAIRS', 'Pair', 'build']


class Pair(NamedTuple):
  """A network of the zoo, its size of input, and how torchvision's ImageNet network becomes its small-image form.

  Attributes:
    network: name in `lightjax.models`.
    overrides: its arguments.
    size: height and width of the images, pixels.
    channels: of the images.
    flattened: how many of the first convolutions of stride 2 get stride 1.
    comparable: whether `interop.from_torch` takes the weights.
  """
  network: str
  overrides: Mapping[str, Any]
  size: int = 32
  channels: int = 3
  flattened: int = 0
  comparable: bool = True


SMALL = {'classes': 10, 'stem': 'cifar'}
PAIRS = {
  'lenet5': Pair('lenet5', {}, channels=1, comparable=False),
  'resnet20': Pair('resnet20', {'shortcut': 'projection'}),
  'mobilenet_v2': Pair('mobilenet_v2', SMALL, flattened=2),
  'shufflenet_v2': Pair('shufflenet_v2_x1_0', SMALL),
  'mnasnet': Pair('mnasnet1_0', SMALL, flattened=2),
  'densenet_bc_100': Pair('densenet_bc_100', {}),
  'resnet18-224': Pair('resnet18', {}, size=224),
  'mobilenet_v2-224': Pair('mobilenet_v2', {}, size=224),
  'efficientnet_b0-224': Pair('efficientnet_b0', {}, size=224),
}


def build(name: str) -> nn.Module:
  """PyTorch's counterpart of a pair, channels last, randomly initialized.

  Args:
    name: a key of `PAIRS`.
  """
  pair = PAIRS[name]
  classes = pair.overrides.get('classes', 1000)
  if name == 'lenet5':
    flat = 50 * (((pair.size - 4) // 2 - 4) // 2) ** 2
    network: nn.Module = nn.Sequential(
      nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(flat, 500),
      nn.ReLU(inplace=True), nn.Linear(500, 10))
  elif name == 'resnet20':
    network = ResNetCIFAR(3, 10)
  elif name == 'densenet_bc_100':
    network = torchvision.models.DenseNet(12, (16, 16, 16), 24, num_classes=10)
    features: Any = network.features
    features.conv0, features.norm0 = nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.Identity()
    features.relu0, features.pool0 = nn.Identity(), nn.Identity()
    features.norm4 = features.norm5  # the last norm is named by the number of blocks
    del features.norm5
  else:
    network = getattr(torchvision.models, pair.network)(num_classes=classes)
  if name == 'shufflenet_v2':  # the reference's stem for 32x32: 1x1, stride 1, no pooling
    stem: Any = network
    stem.conv1[0], stem.maxpool = nn.Conv2d(3, 24, 1, bias=False), nn.Identity()
  strided = [each for each in network.modules() if isinstance(each, nn.Conv2d) and each.stride == (2, 2)]
  for convolution in strided[:pair.flattened]:
    convolution.stride = (1, 1)
  return network.to(memory_format=torch.channels_last)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut, projected where the shape changes; RepDistiller's names."""

  def __init__(self, before: int, after: int, stride: int) -> None:
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
    self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
    self.downsample = None
    if before != after:
      self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """The block on one batch."""
    y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
    shortcut = x if self.downsample is None else self.downsample(x)
    return functional.relu(self.bn2(self.conv2(y)) + shortcut, inplace=True)


class ResNetCIFAR(nn.Module):
  """He et al. 2016, arXiv:1512.03385, section 4.2: 6 n + 2 layers of 16, 32, 64 channels."""

  def __init__(self, blocks: int, classes: int) -> None:
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
    widths = (16, 16, 32, 64)
    for index in range(1, 4):
      stage = [BasicBlock(widths[index - (block == 0)], widths[index], 1 + (index > 1 and block == 0))
               for block in range(blocks)]
      setattr(self, f'layer{index}', nn.Sequential(*stage))
    self.fc = nn.Linear(64, classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Logits of a batch of images."""
    x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
    for index in range(1, 4):
      x = getattr(self, f'layer{index}')(x)
    return self.fc(x.mean((2, 3)))
