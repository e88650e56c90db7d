"""Layouts of published files, by the names that those files have."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import interop, models


@functools.cache
def variables_of(name):
  model = models.create(name)
  shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), jnp.zeros((1, 224, 224, 3)))
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, dtype=np.float32), shapes)


def norm(name):
  return [f'{name}.{leaf}' for leaf in ('weight', 'bias', 'running_mean', 'running_var')]


def lukemelas_names(blocks):
  """Of EfficientNet-PyTorch's files for Lite: 16 blocks in Lite0, 21 in Lite1 and Lite2; the first does not expand."""
  yield from ['_conv_stem.weight', *norm('_bn0'), '_conv_head.weight', *norm('_bn1'), '_fc.weight', '_fc.bias']
  for block in range(blocks):
    if block:
      yield from [f'_blocks.{block}._expand_conv.weight', *norm(f'_blocks.{block}._bn0')]
    yield from [f'_blocks.{block}._depthwise_conv.weight', *norm(f'_blocks.{block}._bn1')]
    yield from [f'_blocks.{block}._project_conv.weight', *norm(f'_blocks.{block}._bn2')]


@pytest.mark.parametrize('name,blocks', [('efficientnet_lite0', 16), ('efficientnet_lite1', 21)])
def test_lukemelas_names_of_lite(name, blocks):
  tensors = interop.to_torch(name, variables_of(name), layout='lukemelas')
  assert set(tensors) == set(lukemelas_names(blocks))
  assert tensors['_blocks.0._project_conv.weight'].shape == (16, 32, 1, 1)
  assert tensors['_blocks.1._expand_conv.weight'].shape == (96, 16, 1, 1)


def test_keras_names_and_kernels_of_squeezenet():
  tensors = interop.to_torch('squeezenet1_1', variables_of('squeezenet1_1'), layout='keras_squeezenet')
  layers = ['conv1', 'conv10', *(
    f'fire{fire}/{part}' for fire in range(2, 10) for part in ('squeeze1x1', 'expand1x1', 'expand3x3'))]
  assert set(tensors) == {f'{layer}/{layer}_{leaf}:0' for layer in layers for leaf in 'Wb'}
  assert tensors['conv1/conv1_W:0'].shape == (3, 3, 3, 64)
  assert tensors['fire9/squeeze1x1/fire9/squeeze1x1_W:0'].shape == (1, 1, 512, 64)


def test_old_names_of_densenet():
  new, old = (
    interop.to_torch('densenet121', variables_of('densenet121'), layout=layout)
    for layout in ('torch', 'torchvision_1.0'))
  changed = {name.replace('.norm1.', '.norm.1.').replace('.norm2.', '.norm.2.').replace('.conv1.', '.conv.1.')
             .replace('.conv2.', '.conv.2.') if 'denselayer' in name else name for name in new}
  assert set(old) == changed
  assert 'features.denseblock4.denselayer16.conv.2.weight' in old


@pytest.mark.parametrize('name,layout', [
  ('efficientnet_lite0', 'lukemelas'), ('squeezenet1_1', 'keras_squeezenet'), ('densenet121', 'torchvision_1.0')])
def test_layouts_are_found_and_come_back_exactly(name, layout):
  variables = variables_of(name)
  _, again = interop.from_torch(name, interop.to_torch(name, variables, layout=layout))
  assert jax.tree.all(jax.tree.map(np.array_equal, again, variables))
