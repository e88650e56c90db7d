import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core import schedules, trees
from lightjax.core.transform import Context, chain, where
from lightjax.core.typing import Layout
from lightjax.prune import budgets, criteria, patterns, prune

LAYOUTS = {path: Layout('dense', (1,), order) for order, path in enumerate(('a/kernel', 'b/kernel', 'z/kernel'))}
KEY = jax.random.key(5)


@pytest.fixture
def variables():
  """Two kernels that are pruned by default, with a bias and a last layer that are not."""
  rng = np.random.default_rng(0)
  params = {name: {'kernel': jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)} for name in ('a', 'b', 'z')}
  params['a']['bias'] = jnp.ones(5)
  return {'params': params}


def pruner(criterion=criteria.magnitude, budget=budgets.uniform, schedule=None, *, sparsity=0.5, every=1):
  schedule = schedule or schedules.one_shot(sparsity, begin=1)
  return prune(criterion, patterns.unstructured, budget, schedule, every=every)


def masks_of(method, variables, *, step=1, key=KEY, gradients=None):
  context = Context(LAYOUTS, step=step, key=key, gradients=gradients)
  return method.update(variables, method.init(variables, context._replace(step=0)), context).state['masks']


# Masks of each criterion and budget

def test_magnitude_masks_by_hand(variables):
  variables = trees.replace(variables, {'a/kernel': jnp.array([[1.0, -4.0], [0.5, 3.0]]), 'b/kernel': jnp.ones((2, 2))})
  masks = masks_of(pruner(), variables)
  assert sorted(masks) == ['a/kernel', 'b/kernel']
  np.testing.assert_array_equal(masks['a/kernel'], [[False, True], [False, True]])
  np.testing.assert_array_equal(masks['b/kernel'], [[False, False], [True, True]])


def test_a_global_budget_takes_where_the_lowest_scores_are(variables):
  variables = trees.replace(
    variables, {'a/kernel': jnp.array([[0.1, 0.2, 0.3, 5.0]]), 'b/kernel': jnp.array([[1.0, 2.0]])})
  masks = masks_of(pruner(budget=budgets.global_), variables)
  np.testing.assert_array_equal(masks['a/kernel'], [[False, False, False, True]])
  np.testing.assert_array_equal(masks['b/kernel'], [[True, True]])


def test_saliency_masks_by_hand(variables):
  gradients = {path: jnp.ones((6, 5)) for path in ('b/kernel',)}
  gradients['a/kernel'] = jnp.array([[0.0, 1.0], [1.0, 0.0]])
  variables = trees.replace(variables, {'a/kernel': jnp.array([[9.0, 1.0], [1.0, 9.0]])})
  masks = masks_of(pruner(criteria.saliency), variables, gradients=lambda: gradients)
  np.testing.assert_array_equal(masks['a/kernel'], [[False, True], [True, False]])


def test_trap_15_random_masks_differ_by_path_and_step_and_repeat_with_the_key(variables):
  method = pruner(criteria.random, schedule=schedules.cubic(0.5, 0.5001, begin=1, end=9))
  first, again = masks_of(method, variables, step=1), masks_of(method, variables, step=1)
  later, other = masks_of(method, variables, step=2), masks_of(method, variables, step=1, key=jax.random.key(6))
  np.testing.assert_array_equal(first['a/kernel'], again['a/kernel'])
  for different in (first['b/kernel'], later['a/kernel'], other['a/kernel']):
    assert not np.array_equal(first['a/kernel'], different)
  assert all((~mask).sum() == 15 for masks in (first, later, other) for mask in masks.values())


def test_what_a_criterion_does_not_name_is_not_computed(variables):
  def refuse():
    raise AssertionError('gradients were computed')

  masks_of(pruner(), variables, key=None, gradients=refuse)


def test_what_is_asked_for_and_not_given_is_an_error(variables):
  with pytest.raises(ValueError, match=r'prune\(saliency\) needs context.gradients'):
    masks_of(pruner(criteria.saliency), variables)
  with pytest.raises(ValueError, match=r'prune\(random\) needs context.key'):
    masks_of(pruner(criteria.random), variables, key=None)


def test_a_criterion_of_the_users_own_may_not_ask_for_what_there_is_not():
  message = r"prune\(fisher\): a criterion is offered weight, gradient, key, .*, not 'curvature'"
  with pytest.raises(ValueError, match=message):
    def fisher(weight, curvature):
      return curvature * weight**2
    pruner(fisher)


def test_scores_of_another_shape_are_refused(variables):
  def per_channel(weight):
    return jnp.abs(weight).sum(0)

  with pytest.raises(ValueError, match=r"prune\(per_channel\): scores of 'a/kernel' have shape \(5,\).*shape \(6, 5\)"):
    masks_of(pruner(per_channel), variables)


def test_sparsities_are_ratios(variables):
  with pytest.raises(ValueError, match=r'the schedule gives sparsity 90 at step 1; it is a ratio 0\.\.1'):
    pruner(sparsity=90).init(variables, Context(LAYOUTS))


# Moves

def test_masks_move_at_the_listed_steps_only_by_the_listed_counts(variables):
  schedule = schedules.cubic(0.0, 0.8, begin=10, end=30)
  method = pruner(schedule=schedule, every=7)
  traced = []

  @jax.jit
  def update(variables, own, step):
    traced.append(step)
    return method.update(variables, own, Context(LAYOUTS, step=step))

  own = method.init(variables, Context(LAYOUTS))
  pruned = {}
  for step in range(1, 41):
    own = update(variables, own, step)
    pruned[step] = int((~own.state['masks']['a/kernel']).sum())
  at = {10: 10, 17: 17, 24: 24, 30: 30}
  due = {step: max([each for each in at if each <= step], default=10) for step in pruned}
  expected = {step: round(30 * schedule.value(due[step])) for step in pruned}
  assert pruned == expected
  assert pruned[30] == pruned[40] == 24
  assert len(traced) == 1


@pytest.mark.parametrize('start', [25, 1000])
def test_a_late_start_makes_the_latest_move_that_is_due_once(variables, start):
  schedule = schedules.cubic(0.0, 0.8, begin=10, end=30)
  method = pruner(criteria.random, schedule=schedule, every=5)
  own = method.init(variables, Context(LAYOUTS))
  first = method.update(variables, own, Context(LAYOUTS, step=start, key=KEY))
  second = method.update(variables, first, Context(LAYOUTS, step=start + 1, key=KEY))
  assert (~first.state['masks']['a/kernel']).sum() == round(30 * schedule.value(start))
  np.testing.assert_array_equal(first.state['masks']['a/kernel'], second.state['masks']['a/kernel'])


def test_before_begin_nothing_is_pruned(variables):
  masks = masks_of(pruner(schedule=schedules.one_shot(0.9, begin=100)), variables, step=99)
  assert all(mask.all() for mask in masks.values())


def test_trap_13_a_new_mask_replaces_the_old_and_is_not_multiplied_into_it(variables):
  method = pruner(schedule=schedules.cubic(0.5, 0.5001, begin=1, end=2))
  context = Context(LAYOUTS, step=1)
  own = method.update(variables, method.init(variables, context), context)
  reversed_order = trees.replace(variables, {'a/kernel': 1 / variables['params']['a']['kernel']})
  moved = method.update(reversed_order, own, context._replace(step=2))
  before, after = own.state['masks']['a/kernel'], moved.state['masks']['a/kernel']
  np.testing.assert_array_equal(after, ~before)


def test_trap_13_the_ranking_sees_the_weights_and_not_their_view(variables):
  method = chain(pruner(sparsity=0.5))
  own = method.init(variables, Context(LAYOUTS))
  own = method.update(variables, own, Context(LAYOUTS, step=1))
  dense = np.abs(np.asarray(variables['params']['a']['kernel']))
  np.testing.assert_array_equal(own.state[0]['masks']['a/kernel'], dense > np.sort(dense.ravel())[14])


# The view, and what it is not

def test_the_view_is_the_masked_weights_and_its_gradient_is_masked(variables):
  method = pruner(sparsity=0.6)
  own = method.update(variables, method.init(variables, Context(LAYOUTS)), Context(LAYOUTS, step=1))
  kernel, mask = variables['params']['a']['kernel'], own.state['masks']['a/kernel']
  view = method.view(variables, own, None)
  np.testing.assert_array_equal(view['params']['a']['kernel'], np.where(mask, kernel, 0))
  assert view['params']['a']['bias'] is variables['params']['a']['bias']
  gradient = jax.grad(
    lambda variables: (method.view(variables, own, None)['params']['a']['kernel'] ** 2).sum())(variables)
  np.testing.assert_array_equal(gradient['params']['a']['kernel'], np.where(mask, 2 * kernel, 0))


def test_trap_6_a_pruned_weight_that_is_not_finite_is_zero_in_the_view(variables):
  """mask * NaN would be NaN."""
  method = pruner()
  own = method.update(variables, method.init(variables, Context(LAYOUTS)), Context(LAYOUTS, step=1))
  mask = own.state['masks']['a/kernel']
  broken = trees.replace(variables, {'a/kernel': jnp.where(mask, 1.0, jnp.nan)})
  np.testing.assert_array_equal(method.view(broken, own, None)['params']['a']['kernel'], mask)


@pytest.mark.parametrize('sparsity', [0.0, 1.0])
def test_trap_10_the_ends_of_the_scale(variables, sparsity):
  masks = masks_of(pruner(sparsity=sparsity), variables)
  assert all(mask.any() == mask.all() == (sparsity == 0.0) for mask in masks.values())


def test_runs_at_other_sparsities_share_one_compiled_step(variables):
  context = Context(LAYOUTS)
  schedule = [schedules.cubic(0.0, final, begin=1, end=9) for final in (0.5, 0.9)]
  first, second = (pruner(schedule=each, every=2).init(variables, context) for each in schedule)
  assert jax.tree.structure(first) == jax.tree.structure(second)
  assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, second)


def test_rules_give_parts_of_a_network_sparsities_of_their_own(variables):
  method = where((('a/.*', pruner(sparsity=0.2)), ('.*', pruner(sparsity=0.8))))
  own = method.update(variables, method.init(variables, Context(LAYOUTS)), Context(LAYOUTS, step=1))
  assert {path: int((~mask).sum()) for path, mask in method.support(own).items()} == {'a/kernel': 6, 'b/kernel': 24}
