"""How files call and shape what our networks hold.

Every layout but the first two is said in terms of the network's `torch_name`, so that no network knows of it:

    torch               torchvision's or timm's state_dict, whichever is the network's reference
    timm                timm's, of a network that torchvision is the reference of: the network's `timm_name`
    torchvision_1.0     DenseNets as torchvision's files still call them: `denselayer1.norm.1` for `denselayer1.norm1`
    lukemelas           EfficientNet-Lite (timm's names) as in lukemelas' EfficientNet-PyTorch: `_blocks.1._expand_conv`
    keras_squeezenet    SqueezeNet (torchvision's names) as in Keras files: `fire2/squeeze1x1/fire2/squeeze1x1_W:0`
"""
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

# Height, width and channels of what a dense layer flattens.
Flattened = tuple[int, int, int]


class Layout(NamedTuple):
  """One of the ways to call and shape weights.

  Attributes:
    rename: names of all modules as `torch_name` gives them -> from each to its name here.
    tensors: our name of an array to its name here, after that of the module, which `{0}` stands for.
    transposed: whether output channels come first (OIHW) and flattened images run over channels first.
  """
  rename: Callable[[Collection[str]], Mapping[str, str]]
  tensors: Mapping[str, str]
  transposed: bool = True


class Place(NamedTuple):
  """Where an array of ours stands in a file.

  Attributes:
    name: its name there.
    shape: its shape there.
    axes: theirs is `ours.transpose(axes).reshape(shape)`, once the flattened axis is turned.
    turned: the shape of ours after that transposition.
    flattened: [h, w, c] that our first axis runs over, where theirs runs over c, h, w.
  """
  name: str
  shape: tuple[int, ...]
  axes: tuple[int, ...]
  turned: tuple[int, ...]
  flattened: Flattened | None = None

  def to_theirs(self, ours: np.ndarray) -> np.ndarray:
    """Our array as the file has it."""
    if self.flattened:
      ours = ours.reshape(*self.flattened, -1).transpose(2, 0, 1, 3).reshape(ours.shape)
    return np.array(ours.transpose(self.axes).reshape(self.shape), order='C')

  def to_ours(self, theirs: np.ndarray) -> np.ndarray:
    """The file's array as ours: float32, in memory of its own."""
    ours = theirs.reshape(self.turned).transpose(np.argsort(self.axes))
    if self.flattened:
      height, width, channels = self.flattened
      ours = ours.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(ours.shape)
    return np.array(ours, np.float32, order='C')


def place(
  layout: Layout, module: str, leaf: str, shape: tuple[int, ...], flattened: Flattened | None
) -> Place:
  """Where an array of a convolution, dense layer or norm stands.

  Args:
    layout: of the file.
    module: name of its module there.
    leaf: our name of the array, one of `layout.tensors`.
    shape: ours.
    flattened: what the module's input was before a flatten, if there was one.
  Returns:
    The place.
  """
  name = layout.tensors[leaf].format(module)
  axes = tuple(range(len(shape)))
  if leaf != 'kernel' or not layout.transposed:
    return Place(name, shape, axes, shape)
  axes = (axes[-1], axes[-2], *axes[:-2])
  turned = tuple(shape[axis] for axis in axes)
  return Place(name, turned, axes, turned, flattened)


def detect(names: Iterable[str]) -> str:
  """The layout that names of tensors are in, a key of `LAYOUTS`."""
  names = list(names)
  for layout, pattern in _SIGNS.items():
    if any(re.search(pattern, name) for name in names):
      return layout
  return 'torch'


def _same(modules: Collection[str]) -> dict[str, str]:
  return {module: module for module in modules}


def _densenet_before(modules: Collection[str]) -> dict[str, str]:
  """Since 1.0 the files were not renamed, only the modules were: a dot in a module's name was forbidden."""
  return {module: re.sub(r'(denselayer\d+\.(?:norm|conv))(\d)$', r'\1.\2', module) for module in modules}


def _lukemelas(modules: Collection[str]) -> dict[str, str]:
  """From timm's names. Blocks are counted through, stages are not; a block's names are its layers', and a block
  without expansion is one whose first convolution and norm are left out."""
  names = {'conv_stem': '_conv_stem', 'bn1': '_bn0', 'conv_head': '_conv_head', 'bn2': '_bn1', 'classifier': '_fc'}
  block_name = re.compile(r'blocks\.(\d+)\.(\d+)\.(\w+)')
  parts = {module: match.groups() for module in modules if (match := block_name.fullmatch(module))}
  blocks = sorted({(int(stage), int(block)) for stage, block, _ in parts.values()})
  expanded = {blocks.index((int(stage), int(block))) for stage, block, name in parts.values() if name == 'conv_pwl'}
  expanding = {
    'conv_pw': '_expand_conv', 'bn1': '_bn0', 'conv_dw': '_depthwise_conv', 'bn2': '_bn1', 'conv_pwl': '_project_conv',
    'bn3': '_bn2'}
  separable = {'conv_dw': '_depthwise_conv', 'bn1': '_bn1', 'conv_pw': '_project_conv', 'bn2': '_bn2'}
  for module, (stage, block, name) in parts.items():
    place = blocks.index((int(stage), int(block)))
    own = expanding if place in expanded else separable
    if name in own:
      names[module] = f'_blocks.{place}.{own[name]}'
  return {module: names[module] for module in modules if module in names}


def _keras_squeezenet(modules: Collection[str]) -> dict[str, str]:
  """From torchvision's names: fire modules are counted from 2, and the classifier is the tenth convolution."""
  places = sorted({int(match[1]) for module in modules if (match := re.match(r'features\.(\d+)\.', module))})
  names = {'features.0': 'conv1', 'classifier.1': 'conv10'}
  parts = {'squeeze': 'squeeze1x1', 'expand1x1': 'expand1x1', 'expand3x3': 'expand3x3'}
  for fire, place in enumerate(places, 2):
    names |= {f'features.{place}.{ours}': f'fire{fire}/{theirs}' for ours, theirs in parts.items()}
  return {module: names[module] for module in modules if module in names}


_TORCH = {
  'kernel': '{0}.weight', 'scale': '{0}.weight', 'bias': '{0}.bias', 'mean': '{0}.running_mean',
  'var': '{0}.running_var',
}
LAYOUTS = {
  'torch': Layout(_same, _TORCH),
  'timm': Layout(_same, _TORCH),
  'torchvision_1.0': Layout(_densenet_before, _TORCH),
  'lukemelas': Layout(_lukemelas, _TORCH),
  'keras_squeezenet': Layout(_keras_squeezenet, {'kernel': '{0}/{0}_W:0', 'bias': '{0}/{0}_b:0'}, transposed=False),
}
_SIGNS = {
  'torchvision_1.0': r'denselayer\d+\.norm\.\d', 'lukemelas': r'^_blocks\.\d', 'keras_squeezenet': r'^fire\d.*_W:0$',
  'timm': r'^(?:conv_stem|pre_logits|stages\.\d+|s\d\.b\d+)\.',
}
