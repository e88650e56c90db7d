"""Networks that torchvision and timm both have: the names and shapes of either are read and written.

Each file of tests/golden/more was made once with torchvision or timm: names and shapes of all tensors, and of some
networks the logits of two images in float64, weights drawn again from the names; see `draw`.
"""
import functools
import json
import pathlib
import zlib

import jax
import numpy as np
import pytest

from lightjax import interop, models

GOLDEN = sorted((pathlib.Path(__file__).parent.parent / 'golden' / 'more').glob('*.npz'))


def draw(name, shape):
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  if len(shape) == 2 or np.prod(shape[1:]) > 1:
    return (rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(np.float32)
  if name.rsplit('.', 1)[-1] in ('weight', 'running_var', 'gamma', 'layer_scale'):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  return (0.1 * rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_names_shapes_and_logits_are_those_of_either_reference(path):
  golden = np.load(path)
  meta = json.loads(str(golden['meta']))
  has_logits = 'logits' in golden
  tensors = {name: draw(name, shape) if has_logits else np.zeros(shape, np.float32) for name, shape in meta['tensors']}
  if not has_logits:  # the first number of each says which it is, so that swapped arrays are seen
    for place, tensor in enumerate(tensors.values()):
      tensor.flat[0] = place
  model, variables = interop.from_torch(meta['network'], tensors)
  back = interop.to_torch(model, variables, layout='timm' if path.stem.startswith('timm') else 'torch')
  assert set(back) == set(tensors)
  assert all(np.array_equal(back[name], tensors[name]) for name in back)
  if has_logits:
    size = meta['resolution']
    x = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, x)
    assert np.abs(logits - golden['logits']).max() <= 1e-4 * np.abs(golden['logits']).max()


def test_arguments_that_a_reference_implies_give_way_to_the_callers():
  golden = np.load(next(path for path in GOLDEN if path.stem == 'timm_mobilenetv3_small_100'))
  tensors = {name: np.zeros(shape, np.float32) for name, shape in json.loads(str(golden['meta']))['tensors']}
  assert interop.from_torch('mobilenet_v3_small', tensors)[0].epsilon == 1e-5
  assert interop.from_torch('mobilenet_v3_small', tensors, epsilon=1e-3)[0].epsilon == 1e-3
  assert interop.reference('mobilenet_v3_small', ['features.0.0.weight']) == ('mobilenet_v3_small', {})


@pytest.mark.parametrize('theirs, ours, arguments', [
  ('tf_efficientnet_b0.ns_jft_in1k', 'efficientnet_b0', {}), ('tf_efficientnet_lite4', 'efficientnet_lite4', {}),
  ('tf_mobilenetv3_large_100', 'mobilenet_v3_large', {}),
  ('tf_mobilenetv3_small_minimal_100.in1k', 'mobilenet_v3_small', {'minimalistic': True})])
def test_networks_that_tensorflow_trained_have_its_padding_and_epsilon(theirs, ours, arguments):
  name, found = interop.reference(theirs, ['conv_stem.weight'])
  assert (name, found) == (ours, {'padding': 'SAME', 'epsilon': 1e-3, **arguments})
  model = models.create(name, **found)
  assert model.padding == 'SAME' and model.epsilon == 1e-3


def test_other_networks_that_tensorflow_trained_are_refused():
  with pytest.raises(interop.WeightsError, match=r"'tf_efficientnet_es\.in1k' is no network .*nearest"):
    interop.from_torch('tf_efficientnet_es.in1k', {'conv_stem.weight': np.zeros((32, 3, 3, 3))})
