import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lightjax import interop, models
from lightjax.interop import layouts
from lightjax.nn.layers import Conv


class Tiny(nn.Module):
  """Two convolutions, the second grouped, a flatten and a dense layer; named as a `torch.nn.Sequential`."""
  aux_logits: bool | None = None
  groups: int = 2

  @nn.compact
  def __call__(self, x, train=False):
    x = Conv(4, (3, 1), padding='VALID', name='first')(x)
    x = nn.BatchNorm(use_running_average=not train, name='norm')(x)
    x = Conv(6, (1, 1), feature_group_count=self.groups, use_bias=False, name='second')(x)
    x = x * self.param('gate', nn.initializers.ones, (6,))
    return nn.Dense(5, name='last')(x.reshape(x.shape[0], -1))

  def torch_name(self, module):
    return {'first': '0', 'norm': '1', 'second': '2', 'gate': '3.gamma', 'last': '4'}[module]

  def torch_flattened(self):
    return {'last': (2, 3, 6)}

  def torch_shape(self, name, shape):
    return (*shape, 1, 1)


SHAPE = (4, 3, 2)  # 4x3 images of 2 channels; the first convolution leaves 2x3


def tiny_state_dict():
  rng = np.random.default_rng(0)
  shapes = {
    '0.weight': (4, 2, 3, 1), '0.bias': (4,), '1.weight': (4,), '1.bias': (4,), '1.running_mean': (4,),
    '1.running_var': (4,), '2.weight': (6, 2, 1, 1), '3.gamma': (6, 1, 1), '4.weight': (5, 36), '4.bias': (5,)}
  return {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}


def torch_like(tensors, x):
  """What PyTorch computes with NCHW images, written out."""
  def convolve(x, kernel, groups=1):
    outputs, inputs, height, width = kernel.shape
    rows, columns = x.shape[2] - height + 1, x.shape[3] - width + 1
    out = np.zeros((len(x), outputs, rows, columns))
    for o in range(outputs):
      first = o // (outputs // groups) * inputs
      for i in range(inputs):
        for dy in range(height):
          for dx in range(width):
            out[:, o] += kernel[o, i, dy, dx] * x[:, first + i, dy:dy + rows, dx:dx + columns]
    return out

  def channels(name):
    return tensors[name].reshape(-1, 1, 1)

  x = convolve(x.transpose(0, 3, 1, 2), tensors['0.weight']) + channels('0.bias')
  x = (x - channels('1.running_mean')) / np.sqrt(channels('1.running_var') + 1e-5)
  x = x * channels('1.weight') + channels('1.bias')
  x = convolve(x, tensors['2.weight'], groups=2) * tensors['3.gamma']
  return x.reshape(len(x), -1) @ tensors['4.weight'].T + tensors['4.bias']


def test_imported_network_computes_what_the_definition_says():
  tensors, x = tiny_state_dict(), np.random.default_rng(1).standard_normal((3, *SHAPE)).astype(np.float32)
  model, variables = interop.from_torch(Tiny(), tensors, input_shape=SHAPE)
  np.testing.assert_allclose(model.apply(variables, x), torch_like(tensors, x), rtol=1e-5, atol=1e-4)


def test_to_torch_is_the_exact_inverse():
  tensors = tiny_state_dict()
  model, variables = interop.from_torch(Tiny(), tensors, input_shape=SHAPE)
  back = interop.to_torch(model, variables)
  assert back.keys() == tensors.keys()
  assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize('name,overrides', [
  ('mobilenet_v2', {'width': 0.35, 'classes': 7}),
  ('resnet20', {'shortcut': 'projection'}),
  ('resnet8', {'shortcut': 'projection', 'width': 0.5}),
])
def test_round_trips_of_networks_are_exact(name, overrides):
  model = models.create(name, **overrides)
  shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)
  tensors = interop.to_torch(name, variables, **overrides)
  _, again = interop.from_torch(name, tensors, **overrides)
  assert jax.tree.structure(again) == jax.tree.structure(variables)
  assert jax.tree.all(jax.tree.map(np.array_equal, again, variables))


def test_imported_arrays_are_writable_float32_copies():
  tensors = {name: value.astype(np.float16) for name, value in tiny_state_dict().items()}
  _, variables = interop.from_torch(Tiny(), tensors, input_shape=SHAPE)
  leaves = jax.tree.leaves(variables)
  assert all(leaf.dtype == np.float32 and leaf.flags.writeable and leaf.flags.c_contiguous for leaf in leaves)
  before = tensors['0.bias'].copy()
  variables['params']['first']['bias'] += 1
  assert np.array_equal(tensors['0.bias'], before)


def test_counters_and_the_prefix_of_data_parallel_are_left_out():
  tensors = tiny_state_dict()
  more = {f'module.{name}': value for name, value in {**tensors, '1.num_batches_tracked': np.int64(3)}.items()}
  for given in (tensors, more):
    _, variables = interop.from_torch(Tiny(), given, input_shape=SHAPE)
    assert np.array_equal(variables['params']['last']['bias'], tensors['4.bias'])


def test_heads_are_left_out_only_where_the_network_was_created_without():
  tensors = {**tiny_state_dict(), 'aux1.fc.weight': np.zeros((2, 2)), 'AuxLogits.conv.weight': np.zeros((2, 2))}
  interop.from_torch(Tiny(aux_logits=False), tensors, input_shape=SHAPE)
  for aux_logits in (None, True):
    with pytest.raises(interop.WeightsError, match=r'2 unexpected: aux1\.fc\.weight, AuxLogits\.conv\.weight'):
      interop.from_torch(Tiny(aux_logits=aux_logits), tensors, input_shape=SHAPE)


def test_one_error_lists_all_that_does_not_fit():
  tensors = tiny_state_dict()
  del tensors['2.weight'], tensors['0.bias']
  tensors |= {f'extra{index}.weight': np.zeros(1) for index in range(20)}
  tensors['4.weight'] = tensors['4.weight'].T
  with pytest.raises(interop.WeightsError) as caught:
    interop.from_torch(Tiny(), tensors, input_shape=SHAPE)
  message = str(caught.value)
  assert '(10 wanted, 28 given)' in message
  assert '2 missing: 0.bias, 2.weight.' in message
  assert '20 unexpected: extra0.weight,' in message and 'and 12 more' in message
  assert '1 of another shape: 4.weight (36, 5), not (5, 36)' in message
  assert len(message) < 1000


class Nameless(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(2)(x)


class Doubled(Tiny):
  def torch_name(self, module):
    return '0' if module == 'second' else super().torch_name(module)


@pytest.mark.parametrize('call,message', [
  (lambda: interop.from_torch(Nameless(), {}, input_shape=(3,)), 'Nameless has no method torch_name'),
  (lambda: interop.from_torch(Doubled(), {}, input_shape=SHAPE), r'one name to several modules: 0\.weight'),
  (lambda: interop.from_torch(Tiny(), {}, layout='lukemela', input_shape=SHAPE), "'lukemela'.*'lukemelas'"),
  (lambda: interop.from_torch(Tiny(), {}, layout='lukemelas', input_shape=SHAPE), "layout 'lukemelas' has no 0"),
  (lambda: interop.from_torch(Tiny(), {}, classes=3), 'classes.*a module was given'),
  (lambda: interop.from_torch('mobilenet_v3', {}), "'mobilenet_v3'.*'mobilenet_v2'"),
])
def test_errors_tell_the_way_out(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_layouts_are_found_by_the_names():
  names = {
    'torch': 'features.0.weight', 'torchvision_1.0': 'features.denseblock1.denselayer2.norm.1.weight',
    'lukemelas': '_blocks.3._bn0.bias', 'keras_squeezenet': 'fire2/squeeze1x1/fire2/squeeze1x1_W:0',
    'timm': 'conv_stem.weight'}
  assert {layout: layouts.detect([name]) for layout, name in names.items()} == {each: each for each in names}
