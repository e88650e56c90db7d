"""Each criterion against a value worked out by hand and against its paper's formula in NumPy."""
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core import schedules, trees
from lightjax.core.transform import Context, where
from lightjax.prune import budgets, calibration, criteria, patterns, prune
from lightjax.train.compression import bind

WEIGHT = jnp.array([[-3.0, 0.5], [1.0, -0.25]])
GRADIENT = jnp.array([[0.1, -4.0], [0.0, 2.0]])
BY_HAND = {
  'magnitude': ({'weight': WEIGHT}, [[3.0, 0.5], [1.0, 0.25]]),
  'gradient_magnitude': ({'gradient': GRADIENT}, [[0.1, 4.0], [0.0, 2.0]]),
  'saliency': ({'weight': WEIGHT, 'gradient': GRADIENT}, [[0.3, 2.0], [0.0, 0.5]]),
  'snip': ({'weight': WEIGHT, 'gradient': GRADIENT}, [[0.3, 2.0], [0.0, 0.5]]),
  'grasp': ({'weight': WEIGHT, 'hessian_gradient': GRADIENT}, [[-0.3, -2.0], [0.0, -0.5]]),
  'synflow': ({'weight': WEIGHT, 'flow': jnp.abs(GRADIENT)}, [[0.3, 2.0], [0.0, 0.5]]),
  'fisher': ({'weight': WEIGHT, 'squared_gradient': GRADIENT**2}, [[0.045, 2.0], [0.0, 0.125]]),
  'movement': ({'movement': -WEIGHT * GRADIENT}, [[0.3, 2.0], [0.0, 0.5]]),
  'wanda': ({'weight': WEIGHT, 'input_norm': jnp.array([[2.0], [10.0]])}, [[6.0, 1.0], [10.0, 2.5]]),
  'optimal_brain_surgeon': (
    {'weight': WEIGHT, 'inverse_hessian': jnp.array([[0.5], [2.0]])}, [[9.0, 0.25], [0.25, 0.015625]]),
  # Squares 9, 1/4, 1, 1/16 over the sums of those that are not smaller.
  'lamp': ({'weight': WEIGHT}, [[1.0, 0.25 / 10.25], [0.1, 0.0625 / 10.3125]]),
}


def test_every_criterion_has_a_value_by_hand():
  assert set(BY_HAND) | {'random'} == set(criteria.__all__)


@pytest.mark.parametrize('name', BY_HAND)
def test_scores_by_hand(name):
  given, expected = BY_HAND[name]
  np.testing.assert_allclose(getattr(criteria, name)(**given), expected, rtol=1e-6)


def test_saliency_is_the_first_order_change_of_the_loss_when_a_weight_is_removed():
  def loss(w):
    return jnp.sum(jnp.array([2.0, -3.0, 5.0]) * w)  # linear, so that the first order is exact

  weight = jnp.array([0.5, 1.0, -2.0])
  removed = [abs(loss(weight.at[i].set(0)) - loss(weight)) for i in range(3)]
  np.testing.assert_allclose(criteria.saliency(weight, jax.grad(loss)(weight)), removed, rtol=1e-6)


def test_random_is_uniform_noise_of_its_key():
  scores = criteria.random(jnp.zeros((100, 100)), jax.random.key(0))
  assert scores.shape == (100, 100)
  assert scores.min() >= 0 and scores.max() < 1
  assert abs(scores.mean() - 0.5) < 0.01
  assert not np.array_equal(scores, criteria.random(jnp.zeros((100, 100)), jax.random.key(1)))


def test_lamp_is_eq_1_of_its_paper():
  weight = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
  squares = np.sort(weight.ravel() ** 2)
  eq_1 = {square: square / squares[i:].sum() for i, square in enumerate(squares)}
  expected = np.vectorize(lambda square: eq_1[square])(weight**2)
  np.testing.assert_allclose(criteria.lamp(jnp.asarray(weight)), expected, rtol=1e-5)
  np.testing.assert_array_equal(criteria.lamp(jnp.zeros(3)), np.zeros(3))


# What criteria ask for, as a transform gives it: a two-layer network small enough for closed forms.

X = jax.random.normal(jax.random.key(0), (16, 4))
Y = jax.random.normal(jax.random.key(1), (16, 2))


class Linear(nn.Module):
  """x A B, without biases."""

  @nn.compact
  def __call__(self, x, train=False):
    return nn.Dense(2, use_bias=False, name='b')(nn.Dense(3, use_bias=False, name='a')(x))


VARIABLES = Linear().init(jax.random.key(2), X)
A, B = (np.asarray(VARIABLES['params'][name]['kernel'], np.float64) for name in 'ab')


def loss(variables):
  return 0.5 * jnp.mean(jnp.sum((Linear().apply(variables, X) - Y) ** 2, -1))


def seen(*names):
  """What a criterion that asks for these is given, for each of the two kernels, at a move before training."""
  given = []

  def note(**arrays):
    given.append([np.asarray(arrays[name]) for name in names])
    return arrays['weight']

  asked = dict.fromkeys((*names, 'weight'))
  note.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in asked])
  method = prune(note, patterns.unstructured, budgets.uniform, schedules.constant(0.5), every=1)
  compressed = bind(Linear(), VARIABLES, where((('.*', method),), skip=()), X)
  compressed.init(VARIABLES, key=jax.random.key(3), loss=loss, batch=(X,))
  return given


def gradients_by_hand():
  error = (np.asarray(X, np.float64) @ A @ B - np.asarray(Y)) / len(X)
  return np.asarray(X).T @ error @ B.T, (np.asarray(X) @ A).T @ error


def test_gradients_and_their_squares():
  given = seen('weight', 'gradient', 'squared_gradient', 'movement')
  for (weight, gradient, square, moved), kernel, expected in zip(given, (A, B), gradients_by_hand(), strict=True):
    np.testing.assert_allclose(weight, kernel, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(square, expected**2, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(moved, -kernel * expected, rtol=1e-4, atol=1e-6)


def test_the_hessian_times_the_gradient_is_the_difference_of_gradients():
  found = seen('hessian_gradient')
  small = 1e-5
  gradient = np.concatenate([each.ravel() for each in gradients_by_hand()])

  def at(a, b):
    error = (np.asarray(X, np.float64) @ a @ b - np.asarray(Y)) / len(X)
    return np.concatenate([(np.asarray(X).T @ error @ b.T).ravel(), ((np.asarray(X) @ a).T @ error).ravel()])

  step_a, step_b = small * gradient[:12].reshape(4, 3), small * gradient[12:].reshape(3, 2)
  expected = (at(A + step_a, B + step_b) - at(A - step_a, B - step_b)) / (2 * small)
  np.testing.assert_allclose(np.concatenate([each[0].ravel() for each in found]), expected, rtol=1e-3, atol=1e-4)


def test_synaptic_flow_is_conserved_and_in_closed_form():
  """R = 1' |A| |B| 1, and the sum of a layer's scores is R in every layer (theorem 1 of the paper)."""
  (first, flow_a), (second, flow_b) = seen('weight', 'flow')
  total = np.ones(4) @ np.abs(A) @ np.abs(B) @ np.ones(2)
  np.testing.assert_allclose(flow_a, np.outer(np.ones(4), np.abs(B) @ np.ones(2)), rtol=1e-5)
  for weight, flow in ((first, flow_a), (second, flow_b)):
    np.testing.assert_allclose(criteria.synflow(jnp.asarray(weight), jnp.asarray(flow)).sum(), total, rtol=1e-5)


def test_input_norms_and_the_inverse_hessian():
  (norm_a, inverse_a), (norm_b, _) = seen('input_norm', 'inverse_hessian')
  moment = np.asarray(X).T @ np.asarray(X) / len(X)
  np.testing.assert_allclose(norm_a[:, 0], np.sqrt(np.diag(moment)), rtol=1e-5)
  np.testing.assert_allclose(norm_b[:, 0], np.sqrt(((np.asarray(X) @ A) ** 2).mean(0)), rtol=1e-4)
  damped = moment + 0.01 * np.diag(moment).mean() * np.eye(4)
  np.testing.assert_allclose(inverse_a[:, 0], np.diag(np.linalg.inv(damped)), rtol=1e-4)


@pytest.mark.parametrize('groups, strides', [(1, 1), (2, 2), (4, 1)])
def test_moments_of_convolutions_see_what_the_kernel_multiplies(groups, strides):
  """The output of a convolution has the mean square w' M w; padding, strides and groups included."""
  model = nn.Conv(4, (3, 2), strides=strides, feature_group_count=groups, use_bias=False)
  x = jax.random.normal(jax.random.key(0), (3, 6, 5, 4))
  variables = model.init(jax.random.key(1), x)
  moment = calibration.moments(model.apply, variables, (x,), ('kernel',))['kernel']
  kernel = np.asarray(variables['params']['kernel'])
  assert moment.matrix.shape == (groups, 24 // groups, 24 // groups) and moment.axes == (0, 1, 2)
  outputs = np.asarray(model.apply(variables, x))
  for output in range(4):
    row, matrix = kernel[..., output].ravel(), np.asarray(moment.matrix[output * groups // 4])
    np.testing.assert_allclose(row @ matrix @ row, (outputs[..., output] ** 2).mean(), rtol=1e-4)
  norm = np.broadcast_to(calibration.input_norm(moment, kernel.shape), kernel.shape)
  np.testing.assert_allclose(norm[..., -1].ravel(), np.sqrt(np.diag(np.asarray(moment.matrix[-1]))), rtol=1e-5)


def test_moments_need_arrays_and_kernels():
  with pytest.raises(ValueError, match='only their shapes'):
    calibration.moments(Linear().apply, VARIABLES, (jax.ShapeDtypeStruct((1, 4), 'float32'),), ('a/kernel',))
  variables = trees.replace(VARIABLES, {})
  with pytest.raises(ValueError, match="'c' is no kernel"):
    calibration.moments(Linear().apply, variables, (X,), ('c',))


def test_sums_over_the_steps_are_means_and_cost_nothing_where_no_criterion_asks():
  def pruner(criterion):
    return prune(criterion, patterns.unstructured, budgets.uniform, schedules.one_shot(0.5, begin=3), every=1)

  layouts = bind(Linear(), VARIABLES, pruner(criteria.magnitude), X).layouts
  context = Context(layouts, ('a/kernel',))
  own = pruner(criteria.fisher).init(VARIABLES, context)
  for step in (1, 2, 3):
    now = context._replace(step=step, gradients=lambda step=step: {'a/kernel': jnp.full((4, 3), float(step))})
    own = pruner(criteria.fisher).update(VARIABLES, own, now)
  np.testing.assert_allclose(own.state['sums']['squared_gradient']['a/kernel'] / own.state['seen'], 14 / 3, rtol=1e-6)
  np.testing.assert_array_equal(own.state['masks']['a/kernel'].ravel(), np.abs(A).ravel() > np.sort(np.abs(A), None)[5])
  assert pruner(criteria.magnitude).init(VARIABLES, context).state['sums'] == {}
