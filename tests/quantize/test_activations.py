import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lightjax.core.transform import Context, chain, where
from lightjax.quantize import activations, frozen_interceptor, weights
from lightjax.train.compression import bind

X = jax.random.normal(jax.random.key(1), (8, 6))
EVERY = ('not_kernel',)


class Twice(nn.Module):
  """A layer that is called twice, and one that is called once."""
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    shared = (nn.remat(nn.Dense) if self.remat else nn.Dense)(6, name='shared')
    x = nn.relu(shared(nn.relu(shared(x))))
    self.sow('intermediates', 'last', x)
    return nn.Dense(3, name='head')(x)


class Watched(nn.Module):
  """A layer that shows what it is given."""

  @nn.compact
  def __call__(self, x):
    self.sow('intermediates', 'input', x)
    return x @ self.param('kernel', nn.initializers.lecun_normal(), (6, 6))


class Block(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.relu(nn.Dense(6, name='fc')(x))


class Blocks(nn.Module):
  """Blocks that are computed again in the backward pass."""
  remat: bool = True

  @nn.compact
  def __call__(self, x):
    for i in range(2):
      x = (nn.remat(Block) if self.remat else Block)(name=f'block{i}')(x)
    return nn.Dense(3, name='head')(x)


class Step(nn.Module):
  @nn.compact
  def __call__(self, carry, _):
    return nn.Dense(6, name='fc')(carry), None


class Scanned(nn.Module):
  @nn.compact
  def __call__(self, x):
    scan = nn.scan(Step, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)
    return nn.Dense(3, name='head')(scan(name='scan')(x, None)[0])


class Mapped(nn.Module):
  @nn.compact
  def __call__(self, x):
    mapped = nn.vmap(nn.Dense, variable_axes={'params': None}, split_rngs={'params': False})
    return nn.Dense(3, name='head')(mapped(6, name='mapped')(x))


class ByKeyword(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(3, name='head')(inputs=x)


class MoreInTraining(nn.Module):
  @nn.compact
  def __call__(self, x, train=False):
    shared = nn.Dense(6, name='shared')
    return nn.Dense(3, name='head')(shared(shared(x)) if train else shared(x))


def setup(model, *, bits=8, decay=0.9, pattern='.*/kernel', method=None):
  variables = jax.jit(model.init)(jax.random.key(0), X)
  method = method or where(((pattern, activations(bits=bits, decay=decay)),), skip=EVERY)
  compressed = bind(model, variables, method, X)
  return compressed, variables, compressed.init(variables)


def state(own):
  def is_ranges(node):
    return isinstance(node, dict) and 'call0' in next(iter(node.values()))

  return jax.tree.leaves(own.state, is_leaf=is_ranges)[0]


def trained(compressed, variables, own, batches=3):
  """A few observed forward and backward passes under jit; what was observed, and the last gradients."""
  @jax.jit
  def step(variables, own, x):
    def loss(params):
      output, observed = compressed.apply({**variables, 'params': params}, own, x, observe=True)
      return (output**2).sum(), observed
    gradients, observed = jax.grad(loss, has_aux=True)(variables['params'])
    return gradients, compressed.update(variables, own, step=1, observed=observed)[1]

  for i in range(batches):
    gradients, own = step(variables, own, (i + 1) * X)
  return own, gradients


def average(values, decay=0.9):
  weights = decay ** np.arange(len(values))[::-1]
  return weights @ np.array(values) / weights.sum()


def limits(seen):
  return float(seen.low / seen.weight), float(seen.high / seen.weight)


def reference(variables, x):
  """The float forward pass of `Twice`, in NumPy: its layers' inputs."""
  shared, x = jax.tree.map(np.asarray, variables['params']['shared']), np.asarray(x)
  between = np.maximum(x @ shared['kernel'] + shared['bias'], 0)
  return x, between, np.maximum(between @ shared['kernel'] + shared['bias'], 0)


@pytest.mark.parametrize('remat', [False, True])
def test_a_module_that_is_called_twice_has_two_ranges_that_move_under_jit_and_grad(remat):
  compressed, variables, own = setup(Twice(remat))
  assert {module: list(calls) for module, calls in state(own).items()} == {
    'shared': ['call0', 'call1'], 'head': ['call0']}
  once, gradients = trained(compressed, variables, own, batches=1)
  assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradients))
  seen = (state(once)['shared']['call0'], state(once)['shared']['call1'], state(once)['head']['call0'])
  for each, x in zip(seen, reference(variables, X), strict=True):
    np.testing.assert_allclose(limits(each), (x.min(), x.max()), atol=0.02)  # later layers compute on rounded inputs
  thrice, _ = trained(compressed, variables, own, batches=3)
  factor = average([1, 2, 3])
  np.testing.assert_allclose(limits(state(thrice)['shared']['call0']), (factor * X.min(), factor * X.max()), rtol=1e-5)


def test_ranges_are_the_same_with_and_without_remat():
  plain, again = (trained(*setup(Blocks(remat))) for remat in (False, True))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, again)


def test_trap_7_inputs_after_a_relu_get_zero_point_zero_and_others_do_not():
  compressed, variables, own = setup(Twice())
  own, _ = trained(compressed, variables, own)
  stored = compressed.transform.finalize(variables, own).activations
  assert [call['zero_point'] > 0 for call in stored['shared']] == [True, False]
  assert stored['head'][0]['zero_point'] == 0
  assert all(set(call) == {'scale', 'zero_point', 'bits'} for calls in stored.values() for call in calls)


def test_trap_8_ranges_do_not_move_in_evaluation_or_at_init():
  compressed, variables, own = setup(Twice())
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(own))
  own, _ = trained(compressed, variables, own)
  output, mutated = compressed.apply(variables, own, 100 * X, mutable=['intermediates'])
  assert list(mutated) == ['intermediates']
  assert compressed.update(variables, own, step=1)[1] == own
  assert np.isfinite(output).all()


def test_the_forward_pass_sees_inputs_on_the_grid():
  compressed, variables, own = setup(Watched(), bits=2, pattern='kernel')
  own, _ = trained(compressed, {'params': variables['params']}, own, batches=1)
  output, seen = compressed.apply(variables, own, X, mutable=['intermediates'])
  values = np.asarray(seen['intermediates']['input'][-1])
  assert len(np.unique(values)) == 4 and 0.0 in values
  assert np.abs(values - X).max() <= (X.max() - X.min()) / 3 * 1.001  # half a step to round, half for the nudged zero
  np.testing.assert_allclose(output, values @ variables['params']['kernel'], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('model', [Twice(), Twice(remat=True), Blocks()], ids=['twice', 'remat', 'blocks'])
@pytest.mark.parametrize('bits', [2, 4, 8])
def test_the_frozen_interceptor_gives_the_simulations_logits_to_the_last_bit(model, bits):
  method = chain(where((('.*/kernel', weights(bits=bits)),), skip=EVERY),
                 where((('.*/kernel', activations(bits=bits)),), skip=EVERY))
  compressed, variables, own = setup(model, method=method)
  own, _ = trained(compressed, variables, own)
  stored = compressed.transform.finalize(variables, own)

  @jax.jit
  def frozen(variables, x):
    with nn.intercept_methods(frozen_interceptor(stored.activations)):
      return model.apply(variables, x)

  simulated = jax.jit(lambda variables, own, x: compressed.apply(variables, own, x))(variables, own, X)
  loaded = compressed.transform.view(variables, own, None)
  np.testing.assert_array_equal(frozen(loaded, X), simulated)
  assert not np.array_equal(simulated, model.apply(variables, X))


def test_eight_bits_are_close_to_the_float_network():
  compressed, variables, own = setup(Twice(), decay=0.0)
  own, _ = trained(compressed, variables, own, batches=1)
  exact = compressed.model.apply(variables, X)
  np.testing.assert_allclose(compressed.apply(variables, own, X), exact, atol=0.03 * float(jnp.abs(exact).max()))


def test_trap_8_a_sharded_batch_moves_ranges_as_a_whole_one_does(devices):
  compressed, variables, own = setup(Twice())
  mesh = jax.make_mesh((2,), ('batch',), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))

  @jax.jit
  def observe(x):
    return compressed.apply(variables, own, x, observe=True)[1]

  whole, sharded = observe(X), observe(jax.device_put(X, NamedSharding(mesh, PartitionSpec('batch'))))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, sharded)


def test_other_collections_pass_by_the_observers():
  compressed, variables, own = setup(Twice())
  (output, mutated), observed = compressed.apply(variables, own, X, observe=True, mutable=['intermediates'])
  assert output.shape == (8, 3) and list(mutated) == ['intermediates']
  moved = compressed.update(variables, own, step=1, observed=observed)[1]
  assert jax.tree.structure(moved) == jax.tree.structure(own)


def test_a_network_that_is_a_single_layer():
  compressed, variables, own = setup(nn.Dense(3), pattern='kernel')
  own, _ = trained(compressed, variables, own)
  assert limits(state(own)['']['call0']) != (0, 0)


@pytest.mark.parametrize('model, message', [
  (Scanned(), "does not reach the layer of 'scan/fc/kernel'"),
  (Mapped(), "does not reach the layer of 'mapped/kernel'"),
  (ByKeyword(), "the layer of 'head/kernel' takes its input by keyword"),
], ids=['scan', 'vmap', 'keyword'])
def test_a_layer_out_of_reach_is_an_error_at_init_that_names_the_parameter(model, message):
  with pytest.raises(ValueError, match=message):
    setup(model)


def test_what_is_out_of_reach_may_be_left_alone():
  method = where((('scan/.*', None), ('.*/kernel', activations(bits=8))), skip=EVERY)
  _, _, own = setup(Scanned(), method=method)
  assert list(state(own)) == ['head']


def test_a_network_that_is_no_linen_module_is_refused():
  variables = {'a': jnp.ones((6, 6)), 'b': jnp.ones((6, 3))}
  compressed = bind(lambda variables, x: x @ variables['a'] @ variables['b'], variables, activations(bits=8), X)
  with pytest.raises(ValueError, match=r'in a flax\.linen module only'):
    compressed.init(variables)


def test_calls_that_init_did_not_see_are_an_error():
  compressed, variables, own = setup(MoreInTraining())
  with pytest.raises(ValueError, match="'shared' has no range for call1; it was called less often at init"):
    compressed.apply(variables, own, X, observe=True, train=True)


def test_ranges_that_were_never_observed_are_not_stored():
  compressed, variables, own = setup(Twice())
  with pytest.raises(ValueError, match="the input range of 'shared' was never observed; train or calibrate it first"):
    compressed.transform.finalize(variables, own)


def test_a_bad_number_of_bits_is_refused_where_it_is_written():
  with pytest.raises(ValueError, match='bits=1'):
    activations(bits=1)


def test_the_context_needs_a_trace():
  with pytest.raises(ValueError, match=r'activations\(uint4\) needs context.modules'):
    activations(bits=4).init({'a/kernel': X}, Context({}, paths=('a/kernel',)))


def test_a_second_init_in_one_process_finds_the_layers_again():
  """JAX keeps abstract traces by function: a kept one would pass the second interceptor by."""
  compressed, variables, own = setup(Twice())
  again = compressed.init(variables)
  assert jax.tree.structure(again) == jax.tree.structure(own)
  _, _, rebound = setup(compressed.model)
  assert jax.tree.structure(rebound) == jax.tree.structure(own)
  _, _, narrower = setup(compressed.model, method=where((('shared/kernel', activations(bits=8)),), skip=EVERY))
  assert list(state(narrower)) == ['shared']


def test_a_float_pass_that_was_compiled_before_does_not_hide_the_interception():
  compressed, variables, own = setup(Twice(), bits=2)
  plain = jax.jit(compressed.model.apply)
  exact = plain(variables, X)
  own, _ = trained(compressed, variables, own)
  rounded = jax.jit(compressed.apply)(variables, own, X)
  assert float(jnp.abs(rounded - exact).max()) > 1e-3
  np.testing.assert_array_equal(plain(variables, X), exact)
