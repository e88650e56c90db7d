"""Wanda and SparseGPT against their formulas in NumPy and against least squares."""
import flax.linen as nn
import jax
import numpy as np
import pytest

from lightjax.core import trees
from lightjax.prune import calibration, post_training

X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32) @ np.diag([1, 2, 3, 4, 5, 6, 7, 8]) + 0.5
BATCHES = [X[:40], X[40:]]


class Net(nn.Module):
  """A dense layer, then two convolutions over what it gives, one of them grouped."""

  @nn.compact
  def __call__(self, x):
    x = nn.tanh(nn.Dense(16, name='fc')(x)).reshape(-1, 2, 2, 4)
    x = nn.tanh(nn.Conv(4, (3, 3), name='conv')(x))
    return nn.Conv(6, (2, 2), feature_group_count=2, name='grouped')(x)


NET = Net()
VARIABLES = NET.init(jax.random.key(0), X)
EVERYTHING = ('fc/kernel', 'conv/kernel', 'grouped/kernel')
METHODS = {'wanda': post_training.wanda, 'sparse_gpt': post_training.sparse_gpt}


def kernel(variables, path='fc/kernel'):
  return np.asarray(trees.flatten(variables)[path])


def test_wanda_prunes_each_output_by_weight_times_norm():
  pruned = post_training.wanda(NET.apply, VARIABLES, BATCHES, paths=('fc/kernel',), sparsity=0.25)
  score = np.abs(kernel(VARIABLES)) * np.sqrt((X**2).mean(0))[:, None]
  keep = score > np.sort(score, 0)[1]
  np.testing.assert_allclose(kernel(pruned), np.where(keep, kernel(VARIABLES), 0), rtol=1e-6)
  assert pruned['params']['conv']['kernel'] is VARIABLES['params']['conv']['kernel']


@pytest.mark.parametrize('name', METHODS)
def test_every_kind_of_layer_gets_exact_counts(name):
  pruned = METHODS[name](NET.apply, VARIABLES, BATCHES, paths=('.*',), sparsity=0.5)
  for path in EVERYTHING:
    found = kernel(pruned, path)
    assert found.dtype == np.float32 and found.shape == kernel(VARIABLES, path).shape
    assert (found == 0).sum() == found.size // 2
  halved = METHODS[name](NET.apply, VARIABLES, BATCHES, paths=('(fc|conv)/.*',), n_of_m=(2, 4))
  assert ((kernel(halved).reshape(2, 4, 16) == 0).sum(1) == 2).all()
  assert ((kernel(halved, 'conv/kernel').reshape(9, 4, 4) == 0).sum(1) == 2).all()


def restated(weight, moment, sparsity, block):
  """Algorithm 1 of arXiv:2301.00774, with its inverse taken anew for each column instead of by Cholesky."""
  weight, keep = weight.astype(np.float64).copy(), np.ones(weight.shape, bool)
  damped = moment + 0.01 * np.diag(moment).mean() * np.eye(len(moment))
  inverses = [np.linalg.inv(damped[j:, j:]) for j in range(len(moment))]
  for j in range(len(weight)):
    if j % block == 0:
      part = slice(j, j + block)
      scores = weight[part] ** 2 / np.array([each[0, 0] for each in inverses[part]])[:, None]
      keep[part] = scores > np.sort(scores, None)[round(sparsity * scores.size) - 1]
    error = np.where(keep[j], 0, weight[j]) / inverses[j][0, 0]
    weight[j:] -= inverses[j][:, :1] * error
  return np.where(keep, weight, 0)


@pytest.mark.parametrize('block', [4, 8])
def test_sparse_gpt_is_its_algorithm(block):
  pruned = post_training.sparse_gpt(NET.apply, VARIABLES, BATCHES, paths=('fc/kernel',), sparsity=0.5, block=block)
  expected = restated(kernel(VARIABLES), X.T @ X / len(X), 0.5, block)
  np.testing.assert_allclose(kernel(pruned), expected, rtol=1e-3, atol=1e-5)


def test_a_single_weight_is_made_up_for_as_least_squares_would(monkeypatch):
  """With the first input of an output pruned, the others are the solution of min |X w' - X w| with w'_0 = 0."""
  monkeypatch.setattr(calibration, 'DAMPING', 0.0)
  variables = trees.replace(VARIABLES, {'fc/kernel': VARIABLES['params']['fc']['kernel'].at[0].set(1e-3)})
  pruned = post_training.sparse_gpt(NET.apply, variables, BATCHES, paths=('fc/kernel',), sparsity=1 / 8)
  weight, found = kernel(variables), kernel(pruned)
  assert not found[0].any() and found[1:].all()
  expected = np.linalg.lstsq(X[:, 1:], X @ weight, rcond=None)[0]
  np.testing.assert_allclose(found[1:], expected, rtol=1e-3, atol=1e-6)


def test_the_update_makes_the_error_of_the_output_smaller_than_the_mask_alone():
  outputs = X @ kernel(VARIABLES)
  errors = {name: ((X @ kernel(METHODS[name](
    NET.apply, VARIABLES, BATCHES, paths=('fc/kernel',), sparsity=0.5)) - outputs) ** 2).sum() for name in METHODS}
  assert errors['sparse_gpt'] < errors['wanda']


@pytest.mark.parametrize('options, message', [
  ({}, 'one of sparsity and n_of_m'), ({'sparsity': 0.5, 'n_of_m': (2, 4)}, 'one of sparsity and n_of_m'),
  ({'sparsity': 50}, r'sparsity=50 is a ratio'),
  ({'n_of_m': (2, 5)}, r"n_of_m=\(2, 5\): 'fc/kernel' has 8 inputs"),
  ({'sparsity': 0.5, 'paths': ('stem/.*',)}, "'stem/.*' matches no parameter"),
  ({'sparsity': 0.5, 'batches': []}, 'no batch'),
])
def test_mistakes_name_what_is_wrong(options, message):
  arguments = {'paths': ('fc/kernel',), 'batches': BATCHES} | options
  batches = arguments.pop('batches')
  for method in METHODS.values():
    with pytest.raises(ValueError, match=message):
      method(NET.apply, VARIABLES, batches, **arguments)
