"""Channels under a budget: what is left fits, is the most important, and what can't be done says why."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax import graph, measure, models
from lightjax.prune import channel_scores, costs, importance, selection, surgery
from lightjax.prune.surgery import RemovalError

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')


def shaped(name, **fields):
  """A network, its shapes and coupling; nothing is computed."""
  model = getattr(models, name)(classes=10, **fields)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), IMAGE)
  return model, shapes, graph.channels(model.apply, shapes, IMAGE)


def drawn_scores(coupling, seed=0):
  generator = np.random.default_rng(seed)
  return {group.name: generator.random(group.size) for group in coupling.prunable}


def counted(model, shapes, coupling, kept):
  """Counts of the network that `remove` makes, from a trace of it."""
  removal = surgery.plan(coupling, kept)
  return measure.count((removal.apply(model.apply), jax.eval_shape(removal.cut, shapes)), IMAGE.shape[1:])


@pytest.fixture(scope='module')
def resnet():
  return shaped('resnet8')


# Each has something that ties channels in its own way: shuffles (v1: convolutions in groups), gates, concatenations.
@pytest.mark.parametrize('name', [
  'shufflenet_v1', 'mobilenet_v3_small', 'densenet_bc_40', 'googlenet',
  *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ('shufflenet_v2_x0_5', 'densenet121'))])
def test_networks_lose_half_their_macs(name):
  model, shapes, coupling = shaped(name)
  cost = costs.macs(coupling, model.apply, shapes, IMAGE)
  kept = selection.choose(coupling, drawn_scores(coupling), cost, ratio=0.5)
  whole, left = measure.count((model.apply, shapes), IMAGE.shape[1:]), counted(model, shapes, coupling, kept)
  assert left.macs == cost(kept)
  assert 0.45 * whole.macs < left.macs <= 0.5 * whole.macs


def test_costs_are_what_the_smaller_network_counts(resnet):
  model, shapes, coupling = resnet
  kept = {name: each > 0.4 for name, each in drawn_scores(coupling).items()}
  left = counted(model, shapes, coupling, kept)
  assert costs.macs(coupling, model.apply, shapes, IMAGE)(kept) == left.macs
  assert costs.params(coupling, shapes)(kept) == left.params
  assert costs.size_bytes(coupling, shapes)(kept) == 4 * (left.params + left.statistics)
  assert costs.channels(coupling)(kept) == sum(each.sum() for each in kept.values())
  assert costs.channels(coupling)({}) == sum(group.size for group in coupling.prunable)


def test_macs_of_a_network_that_multiplies_activations():
  class Bilinear(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.relu(nn.Conv(8, (3, 3), 4)(x)).reshape(len(x), -1, 8)
      return nn.Dense(3)(jnp.einsum('bnc,bmc->bnm', x, x).mean((1,)))

  model = Bilinear()
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), IMAGE)
  coupling = graph.channels(model.apply, shapes, IMAGE)
  kept = {'Conv_0': np.arange(8) < 3}
  assert costs.macs(coupling, model.apply, shapes, IMAGE)(kept) == counted(model, shapes, coupling, kept).macs


@pytest.mark.parametrize('kind', ['channels', 'params', 'size_bytes', 'macs', 'latency'])
@pytest.mark.parametrize('ranking', ['global', 'layer'])
def test_budgets_are_met_closely(resnet, kind, ranking):
  model, shapes, coupling = resnet
  cost = {
    'channels': costs.channels(coupling), 'params': costs.params(coupling, shapes),
    'size_bytes': costs.size_bytes(coupling, shapes), 'macs': costs.macs(coupling, model.apply, shapes, IMAGE),
    # A machine on which the stem's channels alone take time, in ms.
    'latency': lambda kept: 1.0 + 0.1 * float(np.sum(kept.get('stem/conv', np.ones(16)))),
  }[kind]
  scores = drawn_scores(coupling)
  limit = 0.6 * cost({})
  kept = selection.choose(coupling, scores, cost, ratio=0.6, ranking=ranking)
  assert cost(kept) <= limit
  surgery.plan(coupling, kept)
  for name, mask in kept.items():  # within a group the most important stay
    assert mask.any() and (mask.all() or scores[name][mask].min() >= scores[name][~mask].max())
  if kind == 'channels':
    assert cost(kept) >= limit - len(coupling.groups)
  if kind == 'channels' and ranking == 'global':  # one threshold for all
    stays = np.concatenate([scores[name][mask] for name, mask in kept.items()])
    goes = np.concatenate([scores[name][~mask] for name, mask in kept.items()])
    assert stays.min() >= goes.max()


def test_multiples_and_minimum(resnet):
  _, shapes, coupling = resnet
  kept = selection.choose(
    coupling, drawn_scores(coupling), costs.params(coupling, shapes), ratio=0.5, multiple=8, minimum=9)
  counts = {name: int(mask.sum()) for name, mask in kept.items()}
  assert all(count % 8 == 0 and count >= 16 for count in counts.values())
  assert sum(counts.values()) < sum(len(mask) for mask in kept.values())


def test_everything_may_stay(resnet):
  _, _, coupling = resnet
  kept = selection.choose(coupling, drawn_scores(coupling), costs.channels(coupling), ratio=1.0)
  assert all(mask.all() for mask in kept.values())


def test_a_layer_that_reads_a_part_of_a_group_keeps_a_channel():
  def halves(variables, x):
    x = jax.nn.relu(x @ variables['up'])
    return x[:, :4] @ variables['left'] + x[:, 4:] @ variables['right']

  shapes = {'up': np.zeros((3, 8)), 'left': np.zeros((4, 2)), 'right': np.zeros((4, 2))}
  coupling = graph.channels(halves, shapes, np.zeros((1, 3)))
  scores = {'up': np.array([8.0, 7, 6, 5, 1, 3, 2, 4])}
  kept = selection.choose(coupling, scores, costs.channels(coupling), ratio=0.25)
  assert kept['up'].tolist() == [True, *[False] * 6, True]  # the most important of each half
  with pytest.raises(RemovalError, match='fewest channels that are allowed cost 2'):
    selection.choose(coupling, scores, costs.channels(coupling), ratio=0.2)


def test_groups_that_may_lose_channels(resnet):
  _, _, coupling = resnet
  names = [group.name for group in selection.candidates(coupling)]
  assert 'classifier' not in names and 'stem/conv' in names
  left = [group.name for group in selection.candidates(coupling, exclude=('stage2/block0/conv1/kernel',))]
  # Neither the channels that it makes nor those that it reads.
  assert set(names) - set(left) >= {'stage2/block0/conv1', 'stem/conv'}
  assert [group.name for group in selection.candidates(coupling, only=('stage./block0/conv1',))] == [
    'stage1/block0/conv1', 'stage2/block0/conv1', 'stage3/block0/conv1']


def test_mistakes_are_named(resnet):
  _, shapes, coupling = resnet
  with pytest.raises(RemovalError, match=r"exclude: 'stage9/.\*' matches no parameter; nearest: 'stage"):
    selection.candidates(coupling, exclude=('stage9/.*',))
  with pytest.raises(RemovalError, match="only: 'conv7' matches no group of channels; nearest"):
    selection.candidates(coupling, only=('conv7',))
  with pytest.raises(RemovalError, match='asks for classifier, of which no channel can be removed: an output of the'):
    selection.candidates(coupling, only=('classifier',))
  with pytest.raises(RemovalError, match='no group of channels is left'):
    selection.candidates(coupling, exclude=('.*',))
  cost, scores = costs.params(coupling, shapes), drawn_scores(coupling)
  least = cost({name: np.arange(len(each)) < 8 for name, each in scores.items()})
  with pytest.raises(RemovalError, match=f'752.9 of a cost of 75,290 may be left .ratio=0.01.*cost {least:,.6g}'):
    selection.choose(coupling, scores, cost, ratio=0.01, minimum=8)
  for wrong in ({'ratio': 0.0}, {'ratio': 1.5}, {'ratio': 0.5, 'multiple': 0}, {'ratio': 0.5, 'ranking': 'local'}):
    with pytest.raises(RemovalError, match=list(wrong)[-1]):
      selection.choose(coupling, scores, cost, **wrong)


def test_a_pinned_channel_names_operation_and_module():
  class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(3)(nn.LayerNorm()(nn.Dense(6, name='hidden')(x)))

  model, x = Normed(), jnp.ones((1, 4))
  variables = model.init(jax.random.key(0), x)
  coupling = graph.channels(model.apply, variables, x)
  with pytest.raises(RemovalError, match=r'asks for hidden.*reduce_sum in LayerNorm_0 over channels'):
    selection.candidates(coupling, only=('hidden',))
  scores = channel_scores.scores(coupling, variables, importance.l1, groups=[coupling.group('hidden')])
  with pytest.raises(RemovalError, match=r'hidden.*reduce_sum in LayerNorm_0 over channels'):
    selection.choose(coupling, scores, lambda kept: 1.0, ratio=0.5)
