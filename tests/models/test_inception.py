import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import models
from lightjax.core import trees
from lightjax.nn.blocks.inception import InceptionA, InceptionB, InceptionC, InceptionV1, ReductionA, ReductionB

HEADS = {'googlenet': ('aux1', 'aux2'), 'inception_v3': ('aux',)}
SIDES = {'googlenet': 224, 'inception_v3': 299}


def shapes(name, train, **overrides):
  model = models.create(name, classes=7, **overrides)
  x = jax.ShapeDtypeStruct((2, SIDES[name], SIDES[name], 3), jnp.float32)
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  variables = jax.eval_shape(lambda x: model.init(rngs, x), x)
  logits = jax.eval_shape(
      lambda variables, x: model.apply(variables, x, train=train, rngs=rngs, mutable=['batch_stats'])[0], variables, x)
  return variables, logits


@pytest.mark.parametrize('name', HEADS)
def test_auxiliary_heads_exist_where_asked_for_and_give_logits_in_training(name):
  plain, logits = shapes(name, True)
  assert logits.shape == (2, 7)
  full, several = shapes(name, True, aux_logits=True)
  assert [(each.shape, each.dtype) for each in several] == [((2, 7), jnp.float32)] * (1 + len(HEADS[name]))
  added = set(trees.flatten(full)) - set(trees.flatten(plain))
  assert {path.partition('/')[0] for path in added} >= set(HEADS[name])
  assert all(any(head in path for head in HEADS[name]) for path in added)
  assert shapes(name, False, aux_logits=True)[1].shape == (2, 7)


@pytest.mark.parametrize('module,shape', [
  (InceptionV1(3, (2, 4), (1, 5), 6), (9, 9, 3 + 4 + 5 + 6)),
  (InceptionA(32), (9, 9, 64 + 64 + 96 + 32)), (ReductionA(), (4, 4, 384 + 96 + 8)),
  (InceptionB(16), (9, 9, 4 * 192)), (ReductionB(), (4, 4, 320 + 192 + 8)), (InceptionC(), (9, 9, 320 + 4 * 384 + 192)),
], ids=lambda value: type(value).__name__)
def test_modules_concatenate_their_branches(module, shape):
  x = jax.ShapeDtypeStruct((1, 9, 9, 8), jnp.float32)
  assert jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], x).shape == (1, *shape)


def test_the_third_branch_sees_as_far_as_its_window():
  x = jnp.zeros((1, 9, 9, 2)).at[0, 4, 4].set(1.0)
  for window in (3, 5):
    module = InceptionV1(1, (1, 1), (4, 4), 1, window, jax.nn.initializers.ones)
    y = module.init_with_output(jax.random.key(0), x)[0]
    assert (np.asarray(y[0, 4, :, 2:6] > 0).all(-1)).sum() == window


@pytest.mark.parametrize('name,module,theirs', [
  ('googlenet', 'conv2/norm', 'conv2.bn'), ('googlenet', 'inception4e/branch3_2/conv', 'inception4e.branch3.1.conv'),
  ('googlenet', 'inception3a/branch4/norm', 'inception3a.branch4.1.bn'),
  ('googlenet', 'aux2/conv/norm', 'aux2.conv.bn'),
  ('googlenet', 'aux1/fc2', 'aux1.fc2'), ('inception_v3', 'conv3b/conv', 'Conv2d_3b_1x1.conv'),
  ('inception_v3', 'mixed7c/branch3x3dbl_3a/norm', 'Mixed_7c.branch3x3dbl_3a.bn'),
  ('inception_v3', 'aux/conv1/norm', 'AuxLogits.conv1.bn'), ('inception_v3', 'aux/fc', 'AuxLogits.fc'),
])
def test_modules_have_torchvisions_names(name, module, theirs):
  assert models.create(name).torch_name(module) == theirs


def test_what_the_auxiliary_heads_flatten_is_stated():
  assert models.create('googlenet', aux_logits=True).torch_flattened() == {
    'aux1/fc1': (4, 4, 128), 'aux2/fc1': (4, 4, 128)}
  assert models.create('googlenet').torch_flattened() == {}
