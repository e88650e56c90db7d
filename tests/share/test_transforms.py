"""Shared weights: levels, zeros, gradients of entries, codebooks for groups, and what the file has of them."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import artifact
from lightjax.core import schedules, trees
from lightjax.core.transform import Context, chain, where
from lightjax.prune import budgets, criteria, patterns, prune
from lightjax.share import share, starts

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)
VARIABLES = {'params': {
  'conv': {'kernel': jnp.asarray(RNG.normal(size=(3, 3, 4, 8)), jnp.float32)},
  'fc': {'kernel': jnp.asarray(RNG.normal(size=(40, 50)) * (RNG.random((40, 50)) < 0.3), jnp.float32)}}}
PATHS = ('conv/kernel', 'fc/kernel')
CONTEXT = Context({}, paths=PATHS, key=KEY)


def flat(variables):
  return {path: np.asarray(leaf) for path, leaf in trees.flatten(variables).items()}


def begun(**options):
  method = share(options.pop('start', starts.linear), **options)
  return method, method.init(VARIABLES, CONTEXT)


@pytest.mark.parametrize('name', starts.__all__)
@pytest.mark.parametrize('bits', [1, 3, 8])
def test_a_layer_has_at_most_2_to_the_bits_values_and_the_same_zeros(name, bits):
  method, own = begun(start=getattr(starts, name), bits=bits)
  before, after = flat(VARIABLES), flat(method.view(VARIABLES, own, None))
  for path in PATHS:
    np.testing.assert_array_equal(after[path] == 0, before[path] == 0)
    values = np.unique(after[path][after[path] != 0])
    assert values.size <= 2**bits and np.isin(values, own.trainable[path]).all()
    # Each weight has the entry next to it.
    nonzero = before[path][before[path] != 0]
    distances = np.abs(nonzero[:, None] - np.asarray(own.trainable[path])).min(1)
    np.testing.assert_allclose(np.abs(after[path][before[path] != 0] - nonzero), distances, atol=1e-6)


def test_the_gradient_of_an_entry_is_the_sum_over_its_weights():
  method, own = begun(bits=3)
  gradients = {path: RNG.normal(size=leaf.shape).astype(np.float32) for path, leaf in flat(VARIABLES).items()}

  def loss(trainable, variables):
    seen = trees.flatten(method.view(variables, own._replace(trainable=trainable), None))
    return sum((seen[path] * gradients[path]).sum() for path in PATHS)

  of_entries, of_weights = jax.jit(jax.grad(loss, argnums=(0, 1)))(own.trainable, VARIABLES)
  view = flat(method.view(VARIABLES, own, None))
  for path in PATHS:
    expected = [gradients[path][view[path] == entry].sum() for entry in np.asarray(own.trainable[path])]
    np.testing.assert_allclose(of_entries[path], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(flat(of_weights)[path], np.where(view[path] == 0, 0, gradients[path]))


def test_trained_entries_are_what_is_seen():
  method, own = begun(bits=2)
  moved = own._replace(trainable=jax.tree.map(lambda book: book + 0.5, own.trainable))
  for before, after in zip(*(flat(method.view(VARIABLES, each, None)).values() for each in (own, moved)), strict=True):
    np.testing.assert_array_equal(after, np.where(before == 0, np.float32(0), before + np.float32(0.5)))


def test_a_group_has_one_codebook():
  method, own = begun(bits=4, together=True)
  values = np.concatenate([each[each != 0] for each in flat(method.view(VARIABLES, own, None)).values()])
  assert np.unique(values).size <= 16 and len(own.trainable) == 1


def test_layers_have_bits_of_their_own_by_the_first_pattern_that_matches():
  _, own = begun(bits=(('conv/.*', 6), ('.*', 2)))
  assert {path: book.size for path, book in own.trainable.items()} == {'conv/kernel': 64, 'fc/kernel': 4}


def test_weights_that_move_choose_again_only_where_asked_to():
  changed = jax.tree.map(lambda leaf: -leaf, VARIABLES)
  fixed, own = begun(bits=3)
  np.testing.assert_array_equal(
    fixed.update(changed, own, CONTEXT._replace(step=10)).state['codes']['fc/kernel']['fc/kernel'],
    own.state['codes']['fc/kernel']['fc/kernel'])
  method, own = begun(bits=3, every=5)
  assert jax.tree.all(jax.tree.map(
    np.array_equal, method.update(changed, own, CONTEXT._replace(step=4)).state, own.state))
  after = jax.jit(lambda step: method.update(changed, own, CONTEXT._replace(step=step)))(10)
  view, target = flat(method.view(changed, after, None)), flat(changed)
  for path in PATHS:
    book = np.asarray(own.trainable[path])
    nearest = book[np.abs(target[path][..., None] - book).argmin(-1)]
    np.testing.assert_array_equal(view[path], np.where(target[path] == 0, np.float32(0), nearest))


def test_the_penalty_takes_bits_from_what_is_stored_and_from_what_is_chosen_again():
  def bits(entropy, again):
    method, own = begun(bits=5, entropy=entropy, every=1)
    if again:
      own = method.update(VARIABLES, own, CONTEXT._replace(step=1))
    codes = np.asarray(own.state['codes']['conv/kernel']['conv/kernel'])
    shares = np.bincount(codes.ravel()) / codes.size
    return -sum(each * np.log2(each) for each in shares if each)

  for again in (False, True):
    assert bits(0.1, again) < bits(0.02, again) < bits(0.0, again) - 0.1
  np.testing.assert_allclose(bits(0.1, True), bits(0.1, False), atol=0.2)


def test_after_pruning_the_zeros_are_its_own_and_the_file_has_indices():
  pruning = prune(
    criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.constant(0.9), every=1)
  method = chain(pruning, share(starts.density, bits=4))
  own = method.init(VARIABLES, CONTEXT)
  view = method.view(VARIABLES, own, None)
  for path, leaf in flat(view).items():
    assert (leaf != 0).sum() == leaf.size - round(0.9 * leaf.size)
    assert not np.asarray(trees.flatten(method.project(VARIABLES, own))[path])[leaf == 0].any()
  data = artifact.to_bytes(network=None, variables=view, encoded=method.finalize(view, own))
  stored = artifact.from_bytes(data)
  for path, leaf in flat(stored.variables).items():
    np.testing.assert_array_equal(leaf, flat(view)[path])
  fc = next(size for size in stored.sizes.arrays if size.path == 'fc/kernel')
  assert fc.total < 4 * 16 + 200 * (4 + 5) / 8 + 10  # 4 bits and the position of each of 200


def test_a_parameter_without_weights_stays_zero():
  variables = {'params': {'fc': {'kernel': jnp.zeros((3, 4))}}}
  method = share(starts.random, bits=2)
  own = method.init(variables, CONTEXT._replace(paths=('fc/kernel',)))
  assert not flat(method.view(variables, own, None))['fc/kernel'].any()


@pytest.mark.parametrize('options, message', [
  ({'bits': 9}, '9 bits'), ({'bits': 0}, '0 bits'), ({'bits': 2, 'entropy': -1.0}, 'entropy=-1.0'),
  ({'bits': 2, 'every': -1}, 'every=-1'),
])
def test_what_is_out_of_range_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    share(starts.linear, **options)


@pytest.mark.parametrize('options, message', [
  ({'bits': (('conv/.*', 3),)}, "no pattern of bits takes 'fc/kernel'"),
  ({'bits': (('gone/.*', 3), ('.*', 3))}, "'gone/.*' of bits takes no parameter"),
  ({'bits': (('conv/.*', 3), ('.*', 2)), 'together': True}, 'one codebook have different bits'),
])
def test_bits_that_do_not_fit_the_network_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    begun(**options)


def test_no_key_is_refused():
  with pytest.raises(ValueError, match=r'needs context\.key'):
    share(starts.linear, bits=2).init(VARIABLES, CONTEXT._replace(key=None))


def test_rules_leave_the_others_alone():
  method = where((('fc/.*', share(starts.linear, bits=2)), ('.*', None)), skip=())
  own = method.init(VARIABLES, Context({}, key=KEY))
  after = flat(method.view(VARIABLES, own, None))
  np.testing.assert_array_equal(after['conv/kernel'], VARIABLES['params']['conv']['kernel'])
  assert np.unique(after['fc/kernel']).size <= 5
