"""Weights of torchvision, timm and the like, by name: `from_torch` and its inverse `to_torch`.

A network that has a reference implementation says how the reference calls its modules, in plain methods of the class:

    torch_name(module)           'stage1/block0/conv1' -> 'layer1.0.conv1'; for every module that holds arrays
    torch_flattened()            {'classifier': (7, 7, 512)}; only where a dense layer follows a flatten of [h, w, c]
    torch_shape(name, shape)     only where an array that is none of the following has another shape there
    timm_name(module)            where timm has the network, too, and calls its modules otherwise
    timm_shape(array, shape)     only where an array, 'hidden/kernel' for instance, has another shape there
    timm_arguments               arguments of the constructor that timm's network needs to be equal

The rest is the same for all networks:

    here              in a state_dict                  turned
    kernel (conv)     weight                           HWIO <- OIHW, also grouped and depthwise
    kernel (dense)    weight                           [i, o] <- [o, i]; after a flatten i is h, w, c <- c, h, w
    scale             weight
    bias              bias
    mean, var         running_mean, running_var
    -                 num_batches_tracked              left out
    any other         torch_name(path of the array)

Other layouts than the reference's own are in `lightjax.interop.layouts`.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lightjax import models
from lightjax.core import trees
from lightjax.core.typing import Variables
from lightjax.interop import layouts, preprocessing
from lightjax.interop.errors import WeightsError
from lightjax.interop.layouts import Place

# Heads that references train with and that a network created without them has no place for.
AUXILIARY = ('AuxLogits.', 'aux1.', 'aux2.')

# timm's networks whose weights come from TensorFlow: ours, and the arguments of its constructor.
_PORTED = {'epsilon': 1e-3, 'padding': 'SAME'}
TENSORFLOW: dict[str, tuple[str, dict[str, Any]]] = {
  **{f'tf_efficientnet_{size}': (f'efficientnet_{size}', _PORTED)
     for size in (*(f'b{number}' for number in range(8)), *(f'lite{number}' for number in range(5)))},
  **{f'tf_mobilenetv3_{size}_{variant}': (f'mobilenet_v3_{size}', {**_PORTED, **arguments})
     for size in ('large', 'small')
     for variant, arguments in (('100', {}), ('075', {'width': 0.75}), ('minimal_100', {'minimalistic': True}))}}

# The most names that an error lists of each kind.
MOST_LISTED = 8

Keys = tuple[str, ...]


def from_torch(
  model: str | nn.Module,
  state_dict: Mapping[str, np.ndarray],
  *,
  layout: str = '',
  input_shape: tuple[int, ...] | None = None,
  **overrides: Any,
) -> tuple[nn.Module, Variables]:
  """A network with the weights of its reference implementation.

  Args:
    model: a name of `lightjax.models`; one of timm's that begins with 'tf_', whose files have the same names and shapes
      as others but were trained with TensorFlow's padding and epsilon (see `reference`); or a module that has
      `torch_name`.
    state_dict: name to array, as the reference calls and shapes them (see `read_weights` for files); a 'module.'
      before all names, which PyTorch's DataParallel writes, is left out.
    layout: a key of `lightjax.interop.layouts.LAYOUTS`; '' finds it by the names.
    input_shape: of one image, [h, w, c], where parameters depend on it; the reference's own without it.
    **overrides: arguments of the network's constructor.
  Returns:
    (model, variables); NumPy arrays, float32. Only shapes are traced, nothing is computed.
  Raises:
    WeightsError: tensors that are missing, unexpected or of another shape, all in one message. Tensors of auxiliary
      heads (`AuxLogits.*`, `aux1.*`, `aux2.*`) may be there where the network was created with `aux_logits=False`:
      they are left out.
  """
  given = {key: np.asarray(value) for key, value in _without_prefix(state_dict).items()}
  layout = layout or layouts.detect(given)
  if isinstance(model, str):
    model, implied = reference(model, given, layout=layout)
    overrides = {**implied, **overrides}
  name = model if isinstance(model, str) else type(model).__name__
  module = _module(model, overrides)
  given = {key: value for key, value in given.items() if not _left_out(key, module)}
  size = preprocessing.of(name).size
  shapes = _shapes(module, input_shape or (size, size, 3))
  wanted = _places(module, shapes, layout)
  _refuse_misfits(name, wanted, given)
  leaves = {keys: place.to_ours(given[place.name]) for keys, place in wanted.items()}
  return module, jax.tree_util.tree_map_with_path(lambda path, _: leaves[_keys(path)], shapes)


def to_torch(
  model: str | nn.Module, variables: Variables, *, layout: str = 'torch', **overrides: Any
) -> dict[str, np.ndarray]:
  """The exact inverse of `from_torch`: the tensors as the reference calls and shapes them.

  Args:
    model: a name of `lightjax.models`, or the module that `from_torch` returned.
    variables: of that network.
    layout: a key of `lightjax.interop.layouts.LAYOUTS`.
    **overrides: arguments of the network's constructor.
  Returns:
    Name to array. `num_batches_tracked` is not there: PyTorch's `load_state_dict` fills it in.
  Raises:
    WeightsError: the network has no such layout.
  """
  leaves = _flatten(variables)
  places = _places(_module(model, overrides), variables, layout)
  return {place.name: place.to_theirs(np.asarray(leaves[keys])) for keys, place in places.items()}


def reference(model: str, names: Iterable[str], *, layout: str = '') -> tuple[str, dict[str, Any]]:
  """The network that computes what a reference's does, for equal weights.

  Args:
    model: a name of `lightjax.models`, or of timm's 'tf_efficientnet_b0' to '_b7', '_lite0' to '_lite4' and
      'tf_mobilenetv3_...', with or without the tag of its weights ('tf_efficientnet_b0.ns_jft_in1k').
    names: of the file's tensors.
    layout: see `from_torch`.
  Returns:
    (name in `lightjax.models`, arguments that `from_torch` gives the constructor unless its caller does).
  Raises:
    WeightsError: a name 'tf_...' of a network that is not among ours.
  Example:
    >>> reference('mobilenet_v3_large', ['conv_stem.weight'])
    ('mobilenet_v3_large', {'epsilon': 1e-05})
    >>> reference('tf_mobilenetv3_large_075', ['conv_stem.weight'])
    ('mobilenet_v3_large', {'epsilon': 0.001, 'padding': 'SAME', 'width': 0.75})
  """
  name, ported = model, dict[str, Any]()
  if model.startswith('tf_'):
    untagged = model.partition('.')[0]
    if untagged not in TENSORFLOW:
      raise WeightsError(f'{model!r} is no network of the zoo; nearest: {trees.nearest(untagged, TENSORFLOW)}.')
    name, ported = TENSORFLOW[untagged]
  is_timm = (layout or layouts.detect(names)) == 'timm'
  return name, {**(getattr(models.create(name), 'timm_arguments', {}) if is_timm else {}), **ported}


def _module(model: str | nn.Module, overrides: Mapping[str, Any]) -> nn.Module:
  if isinstance(model, str):
    return models.create(model, **overrides)
  if overrides:
    raise ValueError(f'{sorted(overrides)} are arguments of a constructor, but a module was given; leave them out.')
  return model


def _shapes(module: nn.Module, input_shape: tuple[int, ...]) -> Variables:
  """The variables as shapes, auxiliary heads included: only training runs them."""
  train: dict[str, Any] = {'train': True} if getattr(module, 'aux_logits', False) else {}
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  return jax.eval_shape(lambda x: module.init(rngs, x, **train), jax.ShapeDtypeStruct((1, *input_shape), jnp.float32))


def _without_prefix(state_dict: Mapping[str, Any]) -> dict[str, Any]:
  prefixed = all(name.startswith('module.') for name in state_dict)
  return {name.removeprefix('module.') if prefixed else name: value for name, value in state_dict.items()}


def _left_out(name: str, module: nn.Module) -> bool:
  has_no_heads = getattr(module, 'aux_logits', None) is False
  return name.endswith('num_batches_tracked') or (has_no_heads and name.startswith(AUXILIARY))


def _places(module: nn.Module, variables: Variables, name: str) -> dict[Keys, Place]:
  """Where each array of `variables` stands in a file of a layout, by its keys."""
  hooks: Any = module
  kind = type(module).__name__
  if name not in layouts.LAYOUTS:
    raise WeightsError(f'layout {name!r} is unknown; nearest: {trees.nearest(name, layouts.LAYOUTS)}.')
  if not hasattr(hooks, 'torch_name'):
    raise WeightsError(f'{kind} has no method torch_name(module), which says how a state_dict calls its modules.')
  layout = layouts.LAYOUTS[name]
  flattened = hooks.torch_flattened() if hasattr(hooks, 'torch_flattened') else {}
  leaves = _flatten(variables)
  modules = {'/'.join(keys[1:-1]) for keys in leaves if keys[-1] in layouts.LAYOUTS['torch'].tensors}
  own = 'timm' if name == 'timm' and hasattr(hooks, 'timm_name') else 'torch'
  named, shaped = getattr(hooks, f'{own}_name'), getattr(hooks, f'{own}_shape', lambda _, shape: shape)
  references = {path: named(path) for path in sorted(modules)}
  renamed = layout.rename(list(references.values()))
  places: dict[Keys, Place] = {}
  for keys, leaf in leaves.items():
    path, shape = '/'.join(keys[1:-1]), tuple(leaf.shape)
    if keys[-1] not in layouts.LAYOUTS['torch'].tensors:
      array = '/'.join(keys[1:])
      places[keys] = Place(named(array), tuple(shaped(array, shape)), tuple(range(len(shape))), shape)
    elif references[path] not in renamed or keys[-1] not in layout.tensors:
      raise WeightsError(f'{kind}: layout {name!r} has no {references[path]}, which is our {path}/{keys[-1]}.')
    else:
      place = layouts.place(layout, renamed[references[path]], keys[-1], shape, flattened.get(path))
      places[keys] = place._replace(shape=shaped('/'.join(keys[1:]), place.shape)) if own == 'timm' else place
  _refuse_twice(kind, [place.name for place in places.values()])
  return places


def _refuse_twice(kind: str, names: Sequence[str]) -> None:
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise WeightsError(f'{kind}.torch_name gives one name to several modules: {_listed(twice)}.')


def _refuse_misfits(name: str, wanted: Mapping[Keys, Place], given: Mapping[str, np.ndarray]) -> None:
  shapes = {place.name: place.shape for place in wanted.values()}
  missing = [each for each in shapes if each not in given]
  unexpected = [each for each in given if each not in shapes]
  misshapen = [
    f'{each} {given[each].shape}, not {shape}' for each, shape in shapes.items()
    if each in given and given[each].shape != shape]
  found = {'missing': missing, 'unexpected': unexpected, 'of another shape': misshapen}
  if any(found.values()):
    parts = [f'{len(names)} {what}: {_listed(names)}' for what, names in found.items() if names]
    raise WeightsError(f'tensors do not fit {name} ({len(shapes)} wanted, {len(given)} given). {". ".join(parts)}.')


def _listed(names: Sequence[str]) -> str:
  rest = f' and {len(names) - MOST_LISTED} more' if len(names) > MOST_LISTED else ''
  return ', '.join(name[:100] for name in names[:MOST_LISTED]) + rest


def _flatten(variables: Variables) -> dict[Keys, Any]:
  """Parameters first, so that errors begin with kernels and not with statistics."""
  leaves = {_keys(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables))}
  return dict(sorted(leaves.items(), key=lambda item: item[0][0] != 'params'))


def _keys(path: tuple[Any, ...]) -> Keys:
  return tuple(str(entry.key) for entry in path)
