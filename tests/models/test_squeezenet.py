import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.measure.counts import count
from lightjax.nn.blocks.fire import Fire


def test_a_fire_module_expands_what_it_squeezed_in_two_ways():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 5, 4)), jnp.float32)
  y, variables = Fire(2, 3, 6).init_with_output(jax.random.key(0), x)
  params = variables['params']
  z = np.maximum(np.asarray(x) @ params['squeeze_conv']['kernel'][0, 0], 0)
  np.testing.assert_allclose(
      y[..., :3], np.maximum(z @ params['expand1x1_conv']['kernel'][0, 0], 0), rtol=1e-4, atol=1e-5)
  kernel = np.asarray(params['expand3x3_conv']['kernel'])
  centre = np.einsum('ijc,ijco->o', z[0, 1:4, 1:4], kernel)
  np.testing.assert_allclose(y[0, 2, 2, 3:], np.maximum(centre, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('version,sides', [
  ('1_0', {'fire2': 54, 'fire4': 54, 'fire5': 27, 'fire8': 27, 'fire9': 13}),
  ('1_1', {'fire2': 55, 'fire3': 55, 'fire4': 27, 'fire5': 27, 'fire6': 13, 'fire9': 13}),
])
def test_poolings_round_up_and_stand_where_the_version_says(version, sides):
  layers = count(models.create(f'squeezenet{version}'), (224, 224, 3)).layers
  found = {layer.module.partition('/')[0]: layer.output_shape[0] for layer in layers}
  assert sides.items() <= found.items()


@pytest.mark.parametrize('name,module,theirs', [
  ('squeezenet1_0', 'conv1', 'features.0'), ('squeezenet1_0', 'fire4/expand3x3_conv', 'features.5.expand3x3'),
  ('squeezenet1_0', 'fire9/squeeze_conv', 'features.12.squeeze'),
  ('squeezenet1_1', 'fire4/expand1x1_conv', 'features.6.expand1x1'),
  ('squeezenet1_1', 'fire6/squeeze_conv', 'features.9.squeeze'), ('squeezenet1_1', 'conv10', 'classifier.1'),
])
def test_modules_have_torchvisions_names(name, module, theirs):
  assert models.create(name).torch_name(module) == theirs


def test_an_unknown_version_is_an_error():
  with pytest.raises(ValueError, match=r"'1\.2'.*'1.1'"):
    count(models.squeezenet.SqueezeNet('1.2'), (224, 224, 3))
