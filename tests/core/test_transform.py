"""Composition: chain, where, their tables and what they store. The stages here are as plain as a stage can be."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.core import encoded, rngs, trees
from lightjax.core.encoded import Encoded, Integers
from lightjax.core.transform import Context, Own, chain, named, table, transform, where
from lightjax.core.typing import Layout

PATHS = ('conv1/kernel', 'conv2/kernel', 'conv3/kernel', 'head/bias', 'head/kernel')
LAYOUTS = {
  'conv1/kernel': Layout('conv', (3,), 0), 'conv2/kernel': Layout('conv', (3,), 1),
  'conv3/kernel': Layout('conv', (3,), 2),
  'head/kernel': Layout('dense', (1,), 3),
}
MIDDLE = ('conv2/kernel', 'conv3/kernel')


@pytest.fixture
def variables():
  rng = np.random.default_rng(0)
  shapes = {'conv1': (3, 3, 1, 2), 'conv2': (3, 3, 2, 2), 'conv3': (1, 1, 2, 3)}
  params = {name: {'kernel': jnp.asarray(rng.normal(size=shape), jnp.float32)} for name, shape in shapes.items()}
  params['head'] = {'kernel': jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), 'bias': jnp.ones(2)}
  return {'params': params, 'batch_stats': {'mean': jnp.zeros(2)}}


def context(**more):
  return Context(LAYOUTS, **more)


def pointwise(name, function, **parts):
  """A stage that maps a function over what it selects; its state is the list of paths, and how often it was updated."""
  def init(variables, context):
    return Own(state={path: jnp.zeros((), jnp.int32) for path in context.select(variables)})

  def view(variables, own, key):
    leaves = trees.flatten(variables)
    return trees.replace(variables, {path: function(leaves[path]) for path in own.state})

  return transform(name, init=init, view=view, **parts)


half = pointwise('half', lambda leaf: leaf / 2)
plus = pointwise('plus', lambda leaf: leaf + 1)


def sparse(name, remainder):
  """Zeros at every third entry."""
  def mask(leaf):
    return (jnp.arange(leaf.size) % 3 != remainder).reshape(leaf.shape)

  def init(variables, context):
    return Own(state={path: mask(leaf) for path, leaf in context.select(variables).items()})

  def view(variables, own, key):
    leaves = trees.flatten(variables)
    return trees.replace(variables, {path: leaves[path] * kept for path, kept in own.state.items()})

  return transform(
    name, init=init, view=view, support=lambda own: own.state,
    project=lambda variables, own: view(variables, own, None))


def changed(variables, view):
  leaves = trees.flatten(variables)
  return tuple(path for path, leaf in trees.flatten(view).items() if not np.array_equal(leaf, leaves[path]))


# Order

def test_a_chain_runs_in_its_order(variables):
  for method, function in ((chain(half, plus), lambda w: w / 2 + 1), (chain(plus, half), lambda w: (w + 1) / 2)):
    view = method.view(variables, method.init(variables, context()), None)
    assert changed(variables, view) == MIDDLE
    np.testing.assert_array_equal(view['params']['conv2']['kernel'], function(variables['params']['conv2']['kernel']))
    assert view['batch_stats'] is variables['batch_stats']


def test_each_stage_starts_moves_and_is_stored_at_its_own_input(variables):
  seen = {'init': [], 'update': [], 'finalize': []}

  def note(when, result):
    def noting(variables, *rest):
      seen[when].append(float(trees.flatten(variables)['conv2/kernel'].ravel()[0]))
      return result(variables, *rest)
    return noting

  stage = half._replace(
    init=note('init', half.init), update=note('update', half.update), finalize=note('finalize', half.finalize))
  method = chain(stage, stage, plus, stage)
  own = method.init(variables, context())
  seen['finalize'].clear()  # init looks at what each stage would store
  method.update(variables, own, context())
  method.finalize(variables, own)
  w = float(variables['params']['conv2']['kernel'].ravel()[0])
  for inputs in seen.values():
    assert inputs == pytest.approx([w, w / 2, w / 4 + 1])


def test_the_empty_chain_is_the_identity(variables):
  identity = chain()
  own = identity.init(variables, context())
  assert own == Own((), ())
  assert identity.view(variables, own, None) is variables
  assert identity.finalize(variables, own) == encoded.NOTHING
  assert table(identity, variables, context()) == 'no transform: every parameter is left alone'


def test_what_a_chain_owns_is_a_tuple_with_an_entry_a_stage_in_both_halves(variables):
  steps = transform('steps', init=lambda variables, context: Own({'step': jnp.ones(3)}, {'count': jnp.zeros(())}))
  own = chain(half, steps, chain(steps)).init(variables, context())
  assert own.trainable[1:] == ({'step': own.trainable[1]['step']}, ({'step': own.trainable[2][0]['step']},))
  assert [sorted(each) for each in own.state[:2]] == [sorted(MIDDLE), ['count']]
  assert jax.tree.structure(own) == jax.tree.structure(jax.tree.map(lambda leaf: leaf + 1, own))


def test_trap_15_stages_of_a_chain_draw_from_keys_of_their_own(variables):
  def noisy(variables, own, key):
    return trees.replace(variables, {'head/bias': jax.random.normal(key, (2,))})

  stage = transform('noise', init=lambda variables, context: Own(), view=noisy)
  key = jax.random.key(3)
  own = chain(stage, half).init(variables, context(key=key))
  first = chain(stage).view(variables, Own(((),), ((),)), key)['params']['head']['bias']
  second = chain(chain(), stage).view(variables, Own(((), ()), ((), ())), key)['params']['head']['bias']
  np.testing.assert_array_equal(first, jax.random.normal(rngs.fold(key, 0), (2,)))
  assert not np.array_equal(first, second)
  assert sorted(own.state[1]) == sorted(MIDDLE)


def test_trap_15_stages_of_a_chain_move_by_keys_of_their_own(variables):
  keep_key = transform(
    'key', init=lambda variables, context: Own(state=jax.random.key_data(context.key)),
    update=lambda variables, own, context: Own(state=jax.random.key_data(context.key)))
  method, key = chain(keep_key, chain(keep_key, keep_key)), jax.random.key(3)
  fresh = method.init(variables, context(key=key))
  moved = method.update(variables, fresh, context(key=key))
  for own in (fresh, moved):
    assert len({tuple(np.asarray(each).tolist()) for each in jax.tree.leaves(own)}) == 3
  np.testing.assert_array_equal(moved.state[0], jax.random.key_data(rngs.fold(key, 0)))


def test_update_hands_each_stage_what_its_own_interception_saw(variables):
  collect = transform(
    'collect', init=lambda variables, context: Own(state=jnp.zeros(())),
    update=lambda variables, own, context: own if context.observed is None else Own(state=context.observed))
  method = chain(collect, half, chain(collect))
  own = method.init(variables, context())
  moved = method.update(variables, own, context(observed=(jnp.float32(1), None, (jnp.float32(2),))))
  assert (moved.state[0], moved.state[2][0]) == (1, 2)
  unmoved = method.update(variables, own, context())
  assert (unmoved.state[0], unmoved.state[2][0]) == (0, 0)


# Zeros

def test_a_stage_that_loses_zeros_is_refused_with_both_names(variables):
  with pytest.raises(ValueError, match=r"'plus' does not keep the zeros that 'sparse' makes in 'conv2/kernel'"):
    chain(sparse('sparse', 0), half, plus).init(variables, context())
  chain(plus, sparse('sparse', 0), half).init(variables, context())


def test_zeros_are_kept_from_others_only_where_they_are(variables):
  apart = chain(where((('conv2/.*', sparse('sparse', 0)),)), where((('conv3/.*', plus),)))
  assert changed(variables, apart.view(variables, apart.init(variables, context()), None)) == MIDDLE
  with pytest.raises(ValueError, match=r"zeros .* in 'conv2/kernel'"):
    chain(where((('conv2/.*', sparse('sparse', 0)),)), where((('conv.*', plus),))).init(variables, context())


def test_the_support_of_a_chain_is_the_intersection(variables):
  method = chain(sparse('first', 0), where((('conv2/.*', sparse('second', 1)),)))
  own = method.init(variables, context())
  support = method.support(own)
  count = np.arange(36)
  np.testing.assert_array_equal(support['conv2/kernel'].ravel(), (count % 3 != 0) & (count % 3 != 1))
  np.testing.assert_array_equal(support['conv3/kernel'].ravel(), np.arange(6) % 3 != 0)
  projected = trees.flatten(method.project(variables, own))
  for path, kept in support.items():
    np.testing.assert_array_equal(projected[path] != 0, kept)


# Rules

def test_the_first_rule_wins_and_none_leaves_alone(variables):
  method = where((('conv1/kernel', None), ('conv2/.*', half), ('.*', plus)), skip=())
  view = method.view(variables, method.init(variables, context()), None)
  assert changed(variables, view) == ('conv2/kernel', 'conv3/kernel', 'head/bias', 'head/kernel')
  np.testing.assert_array_equal(view['params']['conv2']['kernel'], variables['params']['conv2']['kernel'] / 2)


def test_rules_within_rules_see_the_defaults_of_the_whole_network(variables):
  inner = where((('conv2/.*', half), ('.*', plus)))
  method = where((('conv.*', inner),))
  own = method.init(variables, context())
  assert changed(variables, method.view(variables, own, None)) == MIDDLE
  assert [(line.stage, line.path, line.by) for line in method.describe(variables, context())] == [
    ('-', 'conv1/kernel', 'default: first_conv'),
    ('half', 'conv2/kernel', 'conv.* > conv2/.*'),
    ('plus', 'conv3/kernel', 'conv.* > .*'),
    ('-', 'head/bias', 'default: not_kernel'),
    ('-', 'head/kernel', 'default: last_dense'),
  ]


def test_a_chain_within_a_rule_keeps_to_its_parameters(variables):
  method = where((('conv3/.*', chain(half, plus)),))
  assert changed(variables, method.view(variables, method.init(variables, context()), None)) == ('conv3/kernel',)


def test_a_network_that_the_defaults_leave_alone_is_an_error(variables):
  small = {'params': {'conv1': variables['params']['conv1']}}
  with pytest.raises(ValueError, match='the defaults leave every parameter alone'):
    half.init(small, context())


def test_the_table_says_which_rule_took_which_parameter(variables):
  method = chain(named('gentle', half), where((('conv3/.*', plus),)))
  assert table(method, variables, context()).splitlines() == [
    'stage   parameter     by',
    'gentle  conv2/kernel  default',
    'gentle  conv3/kernel  default',
    '-       conv1/kernel  default: first_conv',
    '-       conv2/kernel  no rule',
    'plus    conv3/kernel  conv3/.*',
    '-       head/bias     default: not_kernel',
    '-       head/kernel   default: last_dense',
  ]


def test_a_lazy_closure_that_is_not_there_is_an_error_that_says_who_asked():
  with pytest.raises(ValueError, match=r'saliency needs context.gradients, which this caller does not give'):
    context().need('gradients', 'saliency')


# What is stored

def test_two_stages_that_store_the_same_parameter_are_an_error_at_init(variables):
  stored = Encoded({'conv2/kernel': Integers(jnp.zeros((), jnp.int8), jnp.ones(()), 8)}, {})
  stage = pointwise('stored', lambda leaf: leaf, finalize=lambda variables, own: stored)
  method = chain(stage, where((('conv2/.*', stage),)))
  with pytest.raises(ValueError, match="'where' changes 'conv2/kernel', which 'stored' stores as integers"):
    method.finalize(variables, method.init(variables, context()))
