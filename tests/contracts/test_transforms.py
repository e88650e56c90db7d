"""What holds for every transform; criteria, patterns, budgets and constructors of `__all__` are found by themselves."""
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import binarize, prune, quantize, share
from lightjax.binarize import binarizers, estimators
from lightjax.core import schedules, trees
from lightjax.core.transform import Context, Transform, chain, where
from lightjax.prune import budgets, criteria, patterns
from lightjax.share import starts
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (2, 6, 6, 3))
LABELS = jax.nn.one_hot(jnp.array([0, 2]), 3)
KEY = jax.random.key(2)
SCHEDULE = schedules.cubic(0.0, 0.6, begin=1, end=3)


class Network(nn.Module):
  """Normal, depthwise and pointwise convolutions, normalization and dense layers."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(4, (3, 3), name='stem')(x))
    x = nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False, name='depthwise')(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, name='norm')(x))
    x = nn.relu(nn.Conv(8, (1, 1), name='pointwise')(x))
    x = nn.relu(nn.Dense(6, name='fc')(x.mean((1, 2))))
    return nn.Dense(3, name='head')(x)


# Arguments of what is no piece by itself but makes one: `n_of_m: dict(n=2, m=4)` makes `patterns.n_of_m(n=2, m=4)`.
ARGUMENTS: dict[str, dict] = {
  'n_of_m': dict(n=1, m=3, axis=-1), 'block': dict(rows=1, columns=2), 'by_path': dict(ratios=(('.*', 1.0),)),
  'equal_macs': dict(budget=budgets.uniform)}


def pieces(namespace):
  """Name to piece for every function of a namespace's `__all__`; classes are no pieces."""
  named = {name: getattr(namespace, name) for name in namespace.__all__ if callable(getattr(namespace, name))}
  return {name: each(**ARGUMENTS[name]) if name in ARGUMENTS else each
          for name, each in named.items() if not inspect.isclass(each)}


def pruned(criterion=criteria.magnitude, pattern=patterns.unstructured, budget=budgets.uniform, **options):
  method = prune.prune(criterion, pattern, budget, options.pop('schedule', SCHEDULE), every=1, **options)
  # n_of_m takes those whose axis divides.
  return where((('fc/.*', method),)) if pattern.at_least else method


SPARSE_TRAINING = dict(schedule=schedules.periodic(0.6, begin=0, end=3), first=criteria.random)


def everywhere(method):
  return where((('.*', method),), skip=('not_kernel',))


METHODS: dict[str, Transform] = {
  **{f'prune, criterion {name}': pruned(criterion=each) for name, each in pieces(criteria).items()},
  **{f'prune, pattern {name}': pruned(pattern=each) for name, each in pieces(patterns).items()},
  **{f'prune, budget {name}': pruned(budget=each) for name, each in pieces(budgets).items()},
  **{f'weights, {bits} bits': quantize.weights(bits=bits) for bits in range(2, 9)},
  'RigL': pruned(**SPARSE_TRAINING, growth=prune.Growth(criteria.gradient_magnitude, 0.3, 3)),
  'SET': pruned(**SPARSE_TRAINING, growth=prune.Growth(criteria.random, 0.3, 3)),
  'static': pruned(criteria.random, schedule=schedules.constant(0.6)),
  'straight-through': pruned(straight_through=True),
  'AC/DC': pruned(schedule=schedules.alternating(0.6, begin=0, end=3, every=1)),
  'SynFlow': pruned(criteria.synflow, budget=budgets.global_, schedule=schedules.constant(0.6), rounds=3),
  'weights, per tensor': quantize.weights(bits=4, granularity=quantize.granularities.tensor),
  **{f'activations, {bits} bits': quantize.activations(bits=bits) for bits in (2, 8)},
  **{f'binary weights, {name}': binarize.weights(each, clip=0.4, steps=4) for name, each in pieces(binarizers).items()},
  **{f'binary activations, {name}': binarize.activations(each, steps=4) for name, each in pieces(estimators).items()},
  'binary activations, scaled': where((
    ('depthwise/.*', None), ('.*', binarize.activations(estimators.hard_tanh, scaled=True)))),
  'trained ternary': binarize.trained_ternary(),
  **{f'shared, start {name}': share.share(each, bits=2) for name, each in pieces(starts).items()},
  'shared, one codebook with a penalty': share.share(starts.linear, bits=3, together=True, entropy=0.05, every=1),
  'prune, then ternary': chain(pruned(), binarize.weights(binarizers.ternary, clip=None)),
  'binary weights and activations': chain(
    binarize.weights(binarizers.xnor, clip=1.0), binarize.activations(estimators.polynomial)),
  'weights, affine groups': quantize.weights(
    bits=3, format=quantize.formats.affine, granularity=quantize.granularities.group(2)),
  'weights, 8-bit floats': quantize.weights(bits=8, format=quantize.formats.e4m3, scale=quantize.scales.mse),
  'weights, stochastic': quantize.weights(bits=4, stochastic=True),
  'weights, folded': quantize.folded(quantize.weights(bits=4), freeze=2),
  'LSQ, folded': chain(quantize.folded(quantize.weights(bits=4, scale=quantize.scales.lsq)),
                       quantize.activations(bits=4, scale=quantize.scales.lsq, shared=True)),
  'LSQ+': chain(quantize.weights(bits=3, scale=quantize.scales.lsq_plus),
                quantize.activations(bits=3, scale=quantize.scales.lsq_plus)),
  'PACT': quantize.activations(bits=4, scale=quantize.scales.pact),
  'activations, 8-bit floats, percentile': quantize.activations(
    bits=8, format=quantize.formats.e5m2, scale=quantize.scales.percentile(0.99)),
  'DoReFa': chain(quantize.low_bit.dorefa_weights(bits=2), quantize.low_bit.unit_activations(bits=2)),
  'WRPN': quantize.low_bit.wrpn_weights(bits=4),
  'nothing': chain(),
  'prune, then weights': chain(pruned(), quantize.weights(bits=4)),
  'prune, then share': chain(pruned(), share.share(starts.density, bits=3, every=2)),
  'prune twice': chain(pruned(), pruned(budget=budgets.global_)),
  'prune, weights, activations, everywhere': chain(
    everywhere(pruned()), everywhere(quantize.weights(bits=8)), everywhere(quantize.activations(bits=8))),
  'rules': where((
    ('depthwise/.*', None),
    ('pointwise/.*', chain(pruned(criteria.random), quantize.weights(bits=2))),
    ('.*', quantize.weights(bits=8)))),
}
# Bounds that a projection keeps latent weights in.
CLIPS = {name: 0.4 for name in METHODS if name.startswith('binary weights, ')} | {'binary weights and activations': 1.0}
# Constructors that the methods above exercise.
COVERED = {
  'prune': {'prune'}, 'quantize': {'weights', 'activations', 'folded'},
  'binarize': {'weights', 'activations', 'trained_ternary'}, 'share': {'share'}}


class Case:
  """A method on the network: what it owns at init, and after three observed steps of training."""

  def __init__(self, method, clip=np.inf):
    self.variables = Network().init(jax.random.key(0), X)
    self.compressed = bind(Network(), self.variables, method, X)
    self.method, self.clip = method, clip
    self.taken = {line.path for line in method.describe(self.variables, Context(self.compressed.layouts))
                  if line.stage != '-'}
    self.fresh = self.own = self.compressed.init(self.variables, key=KEY, loss=self.loss, batch=(X,))
    self.jitted = jax.jit(self.step)
    for step in (1, 2, 3):
      self.own = self.jitted(self.own, step)

  def loss(self, view):
    return -(LABELS * jax.nn.log_softmax(Network().apply(view, X))).sum()

  def step(self, own, step):
    view = self.method.view(self.variables, own, KEY)
    _, observed = self.compressed.apply_view(view, own, X, observe=True)
    gradients = jax.grad(self.loss)(view)['params']
    return self.compressed.update(
      self.variables, own, step=step, key=KEY, observed=observed, gradients=gradients, loss=self.loss, batch=(X,))[1]

  def view(self, own=None, key=KEY):
    return jax.jit(self.method.view)(self.variables, self.own if own is None else own, key)


@pytest.fixture(scope='module', params=METHODS)
def case(request):
  return Case(METHODS[request.param], CLIPS.get(request.param, np.inf))


def types(tree):
  """Structure, shapes, dtypes and weak types: what a checkpoint and a compiled step depend on."""
  return jax.tree.structure(tree), [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('package', [prune, quantize, binarize, share], ids=lambda package: package.__name__)
def test_every_constructor_of_the_package_is_among_the_methods(package):
  found = {name for name in package.__all__ if callable(getattr(package, name))
           and inspect.signature(getattr(package, name)).return_annotation in (Transform, 'Transform')}
  assert found == COVERED[package.__name__.rpartition('.')[2]]


def test_the_view_keeps_structure_shapes_and_dtypes(case):
  for own in (case.fresh, case.own):
    assert types(case.view(own)) == types(case.variables)


def test_the_view_is_pure_and_a_function_of_its_key(case):
  before = jax.tree.map(np.array, (case.variables, case.own))
  first = case.method.view(case.variables, case.own, KEY)
  equal(first, case.method.view(case.variables, case.own, KEY))
  equal(first, case.view())
  equal(before, (case.variables, case.own))


def test_only_parameters_that_were_taken_change(case):
  before, after = trees.flatten(case.variables), trees.flatten(case.view())
  for path in before.keys() - case.taken:
    np.testing.assert_array_equal(after[path], before[path], err_msg=path)


def test_the_view_differentiates(case):
  @jax.jit
  def gradients(variables, own):
    def loss(params, trainable):
      mine = own._replace(trainable=trainable)
      view = case.method.view({**variables, 'params': params}, mine, KEY)
      return case.loss(view) + sum((leaf**2).sum() for leaf in jax.tree.leaves(view['params']))
    return jax.grad(loss, argnums=(0, 1))(variables['params'], own.trainable)

  for own in (case.fresh, case.own):
    found = gradients(case.variables, own)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    kernels = [leaf for path, leaf in trees.flatten(found[0]).items() if path.endswith('kernel')]
    assert all(leaf.any() for leaf in kernels)


def test_what_it_owns_is_arrays_that_keep_structure_and_types(case):
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(case.fresh))
  assert types(case.own) == types(case.fresh)
  assert case.jitted._cache_size() <= 1


def test_an_update_outside_jit_is_the_same(case):
  eager, jitted = case.step(case.own, 4), case.jitted(case.own, 4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), eager, jitted)


def test_projection_keeps_structure_and_is_done_once(case):
  once = case.method.project(case.variables, case.own)
  assert types(once) == types(case.variables)
  equal(case.method.project(once, case.own), once)


def test_the_view_of_what_was_projected_is_the_view(case):
  equal(case.method.view(case.method.project(case.variables, case.own), case.own, KEY), case.view())


def test_zeros_of_the_support_are_zeros_of_the_view_and_of_the_projection(case):
  projected, view = trees.flatten(case.method.project(case.variables, case.own)), trees.flatten(case.view())
  support = case.method.support(case.own)
  for path, mask in support.items():
    assert mask.dtype == bool and mask.shape in ((), view[path].shape)  # a scalar True: anything may be non-zero
    mask = np.broadcast_to(mask, view[path].shape)
    assert not np.asarray(projected[path])[~mask].any()
    assert not np.asarray(view[path])[~mask].any()
  for path, leaf in trees.flatten(case.variables).items():
    if path not in support:
      latent = np.clip(leaf, -case.clip, case.clip) if path in case.taken else leaf
      np.testing.assert_array_equal(projected[path], latent)


def test_what_is_stored_decodes_to_the_view_to_the_last_bit(case):
  stored, view = case.method.finalize(case.variables, case.own), trees.flatten(case.view(key=None))
  for path, integers in stored.parameters.items():
    codes, scale, bits, zero_point = jax.tree.map(np.asarray, integers)
    assert codes.dtype == (np.int8 if codes.dtype.itemsize == 1 and codes.dtype.kind == 'i' else jnp.float8_e4m3fn)
    if codes.dtype == np.int8:
      limit = 2 ** (bits - 1)
      assert (np.abs(codes) == 1).all() if bits == 1 else -limit <= codes.min() and codes.max() < limit
    levels = codes.astype(np.float32)
    for axis in range(levels.ndim):  # an entry of the scale for each block
      scale, zero_point = (
        each if each is None or each.shape[axis] in (1, levels.shape[axis])
        else each.repeat(levels.shape[axis] // each.shape[axis], axis) for each in (scale, zero_point))
    decoded = (levels if zero_point is None else levels - zero_point) * scale
    np.testing.assert_array_equal(decoded.view(np.int32), np.asarray(view[path]).view(np.int32))
    np.testing.assert_array_equal(decoded, integers.decode())


def test_the_compressed_network_computes_the_same_with_and_without_jit(case):
  eager = case.compressed.apply(case.variables, case.own, X)
  jitted = jax.jit(lambda variables, own, x: case.compressed.apply(variables, own, x))(case.variables, case.own, X)
  assert eager.shape == (2, 3) and np.isfinite(eager).all()
  np.testing.assert_allclose(jitted, eager, rtol=1e-3, atol=0.05)
