"""Logits of the reference implementations, whose weights are drawn again from the names of their tensors."""
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from lightjax import models
from lightjax.core import trees

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'


def draw(name, shape):
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  if len(shape) >= 2:
    return (rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(np.float32)
  if name.rsplit('.', 1)[-1] == 'weight':
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def torchvision_modules():
  """Our module paths and torchvision's, both in execution order."""
  yield 'stem', 'features.0.0', 'features.0.1'
  feature = 0
  for stage, (expansion, _, blocks, _) in enumerate(((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                                     (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)), 1):
    for block in range(blocks):
      feature += 1
      ours, theirs = f'stage{stage}/block{block}', f'features.{feature}.conv'
      names = ['expand', 'depthwise', 'project'] if expansion != 1 else ['depthwise', 'project']
      for index, name in enumerate(names[:-1]):
        yield f'{ours}/{name}', f'{theirs}.{index}.0', f'{theirs}.{index}.1'
      yield f'{ours}/project', f'{theirs}.{len(names) - 1}', f'{theirs}.{len(names)}'
  yield 'head', 'features.18.0', 'features.18.1'


def nested(flat):
  tree = {}
  for path, value in flat.items():
    *parents, name = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = value
  return tree


def test_mobilenet_v2_gives_torchvisions_logits():
  golden = np.load(GOLDEN / 'mobilenet_v2.npz')
  meta = json.loads(str(golden['meta']))
  tensors = {name: golden[name].astype(np.float32) if name in golden else draw(name, shape)
             for name, shape in meta['tensors']}
  params, statistics = {}, {}
  for ours, conv, norm in torchvision_modules():
    params[f'{ours}/conv/kernel'] = tensors.pop(f'{conv}.weight').transpose(2, 3, 1, 0)
    params[f'{ours}/norm/scale'] = tensors.pop(f'{norm}.weight')
    params[f'{ours}/norm/bias'] = tensors.pop(f'{norm}.bias')
    statistics[f'{ours}/norm/mean'] = tensors.pop(f'{norm}.running_mean')
    statistics[f'{ours}/norm/var'] = tensors.pop(f'{norm}.running_var')
  params['classifier/kernel'] = tensors.pop('classifier.1.weight').T
  params['classifier/bias'] = tensors.pop('classifier.1.bias')
  assert not [name for name in tensors if 'num_batches_tracked' not in name]

  model = models.create('mobilenet_v2')
  variables = {'params': nested(params), 'batch_stats': nested(statistics)}
  x = np.random.default_rng(0).standard_normal((4, 224, 224, 3)).astype(np.float32)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(x)))
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
  assert sum(leaf.size for leaf in trees.flatten(variables).values()) == meta['num_params']
  logits = jax.jit(model.apply)(variables, x)
  assert np.abs(logits - golden['logits']).max() <= 1e-4 * np.abs(golden['logits']).max()
