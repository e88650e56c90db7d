"""Importances of channels against NumPy, on a network small enough to see through."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import graph
from lightjax.graph.channels import Group, Member
from lightjax.prune import channel_scores, importance, normalizers, reductions

WEIGHT = np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0]])
GRADIENTS = np.array([[[1.0, 1.0], [5.0, 5.0], [2.0, -1.0]], [[-1.0, 1.0], [1.0, 1.0], [1.0, -3.0]]])


def two_layers(variables, x):
  """8 inputs -> 3 channels, scaled -> 2 outputs."""
  params = variables['params']
  hidden = jax.nn.relu(x @ params['up']['kernel'] * params['norm']['scale'])
  return hidden @ params['down']['kernel']


@pytest.fixture(scope='module')
def network():
  generator = np.random.default_rng(0)
  draw = lambda *shape: generator.standard_normal(shape).astype(np.float32)  # noqa: E731
  variables = {'params': {
    'up': {'kernel': draw(8, 3)}, 'norm': {'scale': draw(3)}, 'down': {'kernel': draw(3, 2)}}}
  x = draw(5, 8)
  return variables, x, graph.channels(two_layers, variables, x)


@pytest.mark.parametrize(('formula', 'evidence', 'wanted'), [
  (importance.l1, {'weight': WEIGHT}, [7, 0, 2]),
  (importance.l2, {'weight': WEIGHT}, [5, 0, np.sqrt(2)]),
  (importance.batch_norm_scale, {'scale': np.array([[-2.0], [0.0], [0.5]])}, [2, 0, 0.5]),
  # Sums of w g by batch: (3 - 4, 0, 2 - 1) and (-3 - 4, 0, 1 - 3).
  (importance.taylor, {'weight': WEIGHT, 'gradients': GRADIENTS}, [4, 0, 1.5]),
  (importance.fisher, {'weight': WEIGHT, 'gradients': GRADIENTS}, [12.5, 0, 1.25]),
  (importance.geometric_median, {'weight': WEIGHT}, [5 + np.sqrt(29), 5 + np.sqrt(2), np.sqrt(29) + np.sqrt(2)]),
  (importance.activation_mean, {'activation': np.array([[1.0, 3.0], [0.0, 0.0], [5.0, 5.0]])}, [2, 0, 5]),
])
def test_hand_computed_importances(formula, evidence, wanted):
  found = formula(**{name: jnp.asarray(each, jnp.float32) for name, each in evidence.items()})
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_every_importance_runs_on_every_group(network):
  variables, x, coupling = network
  gradients = [jax.grad(lambda variables: two_layers(variables, x).sum())(variables)]
  for name in importance.__all__:
    found = channel_scores.scores(
      coupling, variables, getattr(importance, name), gradients=gradients, key=jax.random.key(0),
      activations=channel_scores.mean_activations(two_layers, variables, x))
    assert {group: each.shape for group, each in found.items()} == {'up': (3,)}, name


def test_scores_of_roles_against_numpy(network):
  variables, x, coupling = network
  up, down = variables['params']['up']['kernel'], variables['params']['down']['kernel']
  plain = {'normalize': normalizers.none}
  for roles, reduce, wanted in (
    (('producer',), reductions.mean, np.abs(up).sum(0)),
    (('consumer',), reductions.mean, np.abs(down).sum(1)),
    (('producer', 'consumer'), reductions.total, np.abs(up).sum(0) + np.abs(down).sum(1)),
    (('producer', 'consumer'), reductions.product, np.abs(up).sum(0) * np.abs(down).sum(1)),
    (('producer', 'consumer'), reductions.maximum, np.maximum(np.abs(up).sum(0), np.abs(down).sum(1))),
    (('producer', 'consumer'), reductions.first, np.abs(up).sum(0)),
  ):
    found = channel_scores.scores(coupling, variables, importance.l1, roles=roles, reduce=reduce, **plain)
    np.testing.assert_allclose(found['up'], wanted, rtol=1e-6)
  scale = variables['params']['norm']['scale']
  found = channel_scores.scores(coupling, variables, importance.batch_norm_scale, **plain)
  np.testing.assert_allclose(found['up'], np.abs(scale), rtol=1e-6)
  seen = channel_scores.mean_activations(two_layers, variables, x)
  hidden = np.maximum(x @ up * scale, 0)
  np.testing.assert_allclose(seen['down/kernel'], hidden.mean(0), rtol=1e-5)
  np.testing.assert_allclose(seen['up/kernel'], np.abs(x).mean(0), rtol=1e-5)
  found = channel_scores.scores(coupling, variables, importance.activation_mean, activations=seen, **plain)
  np.testing.assert_allclose(found['up'], hidden.mean(0), rtol=1e-5)


def test_units_with_several_places_and_units_that_a_member_lacks():
  # Unit 0 has places 0 and 3 of the axis, unit 1 place 2, unit 2 none; the other member has all three.
  group = Group('made', 3, (
    Member('params/wide', 0, 'producer', ((0, 3), (2,), ())), Member('params/all', 1, 'producer', ((0,), (1,), (2,)))))
  coupling = graph.ChannelGraph((group,), (), {'params/wide': (4, 2), 'params/all': (2, 3)})
  variables = {'params': {'wide': np.array([[1, 2], [9, 9], [3, 0], [-4, 1]], np.float32),
                          'all': np.array([[1, 2, 3], [1, 2, 3]], np.float32)}}
  found = channel_scores.scores(
    coupling, variables, importance.l1, normalize=normalizers.none, reduce=reductions.mean)
  np.testing.assert_allclose(found['made'], [(8 + 2) / 2, (3 + 4) / 2, 6])


@pytest.mark.parametrize(('normalize', 'wanted'), [
  (normalizers.none, [1, 2, 3]), (normalizers.by_mean, [0.5, 1, 1.5]), (normalizers.by_maximum, [1 / 3, 2 / 3, 1]),
  (normalizers.by_norm, np.array([1, 2, 3]) / np.sqrt(14)),
  (normalizers.standardize, np.array([-1, 0, 1]) * np.sqrt(1.5)),
])
def test_normalizers(normalize, wanted):
  np.testing.assert_allclose(normalize(np.array([1.0, 2.0, 3.0])), wanted, rtol=1e-12)
  assert np.isfinite(normalize(np.zeros(3))).all()


def test_random_importances_differ_between_members_and_keys(network):
  variables, _, coupling = network
  draw = lambda seed: channel_scores.scores(  # noqa: E731
    coupling, variables, importance.random, key=jax.random.key(seed), normalize=normalizers.none)['up']
  assert (draw(0) == draw(0)).all() and (draw(0) != draw(1)).all()


def test_errors_say_what_is_missing(network):
  variables, _, coupling = network
  for formula, message in (
    (importance.taylor, 'taylor asks for gradients; give scores'), (importance.random, 'random asks for key'),
    (importance.activation_mean, 'asks for activation'), (lambda weight, colour: weight, "not 'colour'"),
  ):
    with pytest.raises(ValueError, match=message):
      channel_scores.scores(coupling, variables, formula)
  with pytest.raises(ValueError, match='up has units without depthwise, so that they have no importance'):
    channel_scores.scores(coupling, variables, importance.l1, roles=('depthwise',))
  broken = {'params': {**variables['params'], 'up': {'kernel': np.full((8, 3), np.nan, np.float32)}}}
  with pytest.raises(ValueError, match='importances of up are not finite'):
    channel_scores.scores(coupling, broken, importance.l1)
