"""Pruning as configs say it: methods by name, the lottery ticket's chain of runs, the sensitivity scan."""
import itertools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import building, configuration, lottery, removing, sensitivity, sparse_methods, stages, training, unit
from lightjax.core import specs, trees
from lightjax.prune import budgets

TINY = str(pathlib.Path(__file__).with_name('tiny_config.py'))
KERNELS = 64 * 16 + 16 * 8 + 8 * 4


def silent(_):
  """No progress bar."""


def with_stage(tiny, **fields):
  """The tiny config with the stage `prune` of these fields."""
  config = tiny().unlock()
  config.compress.stages = ('prune',)
  config.compress.prune = {**config.compress.prune.to_dict(), **fields}
  return config.lock()


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder of units that the tests share."""
  return tmp_path_factory.mktemp('units')


@pytest.mark.parametrize('method', sparse_methods.METHODS)
def test_every_method_by_name_reaches_its_sparsity(method, tiny, root):
  fields = {'budget': 'uniform', 'sparsity': 0.75, **sparse_methods.METHODS[method]}
  config = with_stage(tiny, **fields | {'every': 5 if method == 'AC/DC' else 2})
  result = unit.run(config, root, silent)
  own = training.finished(root, config)[1]
  masks = [mask for mask in jax.tree.leaves(own) if mask.dtype == bool]
  assert sum(int(mask.sum()) for mask in masks) == KERNELS // 4
  assert result['metrics']['nonzeros'] <= KERNELS // 4 + 28  # and the biases
  assert result['metrics']['nonzero macs'] <= KERNELS // 4 < result['metrics']['macs'] == KERNELS


def test_grasp_takes_the_loss_at_its_temperature(tiny):
  """The masks are those of w H g of the cross-entropy of logits / T, with H g as half the gradient of |g|^2."""
  assert sparse_methods.overrides('GraSP', sparsity=0.5, budget='global_')['criteria_temperature'] == 200.0
  fields = {'budget': 'global_', 'sparsity': 0.5, **sparse_methods.METHODS['GraSP']}
  config = configuration.override(with_stage(tiny, **fields), [('criteria_temperature', 7.0)])
  built = training.program(config)
  state = built.initial(config.seed, None, None)
  images, labels = removing.batch(config, built, 0)
  initial = trees.flatten(building.initializer(built.network, built.splits.info.shape)(
    jax.random.key(config.seed, impl='rbg')))
  kernels = {path: initial[path] for path in built.compressed.layouts}

  def norm(kernels):
    def loss(kernels):
      logits = built.apply(trees.replace(state.variables(), {**initial, **kernels}), images) / 7.0
      return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()

    return sum(jnp.sum(leaf ** 2) for leaf in jax.tree.leaves(jax.grad(loss)(kernels))) / 2

  scores = {path: np.asarray(kernels[path] * slope) for path, slope in jax.grad(norm)(kernels).items()}
  threshold = np.sort(np.concatenate([score.ravel() for score in scores.values()]))[KERNELS // 2]
  for path, mask in state.own.state[0][0]['masks'].items():
    np.testing.assert_array_equal(mask, scores[path] >= threshold)


def params(root, config):
  """A finished run's weights and masks by path."""
  variables, own = training.finished(root, config)[:2]
  return trees.flatten(variables), own.state[0][0]['masks']


@pytest.fixture(scope='module')
def chain(root):
  """The configs of a dense run and of two rounds rewound to the initialization, all of them run."""
  base = configuration.load(TINY)
  rounds = lottery.rounds(TINY, (0.5, 0.75), fields={'epochs': 2}, prune={'budget': 'uniform'})
  configs = [configuration.override(base, [('epochs', 2)])]
  configs += [configuration.override(base, list(changes.items())) for _, changes in rounds]
  unit.run(configs[-1], root, silent)
  return configs


def test_one_chain_yields_all_its_sparsities(chain, root):
  for config, left in zip(chain, (1, 2, 4), strict=True):
    result = unit.result(root, unit.identify(config))  # run because the last round needed it
    assert result is not None and result['metrics']['nonzero macs'] in range(KERNELS // left - 9, KERNELS // left + 1)


def test_a_round_keeps_the_largest_weights_that_the_one_before_ended_with(chain, root):
  for before, after in itertools.pairwise(chain):
    last = trees.flatten(training.finished(root, before)[0])
    for path, mask in params(root, after)[1].items():
      magnitude = np.abs(np.asarray(last[path]))
      np.testing.assert_array_equal(mask, magnitude >= np.sort(magnitude, None)[-int(mask.sum())])


def beginning(root, config):
  """The weights that a run is given before its first step."""
  start, *_ = training._beginning(config, lambda needed: training.finished(root, needed))
  state = training.program(config).initial(config.seed, start, None)
  return trees.flatten({**state.collections, 'params': state.params})


def test_every_round_begins_with_the_weights_of_the_dense_run(chain, root):
  initial = beginning(root, chain[0])
  for config in chain[1:]:
    for path, leaf in beginning(root, config).items():
      np.testing.assert_array_equal(leaf, initial[path])


def test_rewinding_to_a_step_and_new_weights_are_other_runs(chain, root):
  at_7, fresh, last = (
    configuration.override(chain[2], [('start.rewind', weights)]) for weights in ('7', 'fresh', 'last'))
  assert len({unit.identify(config) for config in (chain[2], at_7, fresh, last)}) == 4
  # Steps of the first run of a chain, whatever the rounds between do: chain[1] is rewound to 0, not the dense run.
  only_dense = configuration.override(chain[1], [('start.rewind', '7')])
  one, other = beginning(root, at_7), beginning(root, only_dense)
  initial, new = beginning(root, chain[0]), beginning(root, fresh)
  for path in params(root, chain[2])[1]:
    np.testing.assert_array_equal(one[path], other[path])
    assert not np.array_equal(one[path], initial[path]) and not np.array_equal(new[path], initial[path])


@pytest.mark.parametrize('weights, message', [('first', "start.rewind='first' is none of"), ('99', '14 steps only')])
def test_a_wrong_place_to_rewind_to_is_an_error(chain, root, weights, message):
  config = configuration.override(chain[1], [('start.rewind', weights)])
  with pytest.raises(specs.SpecError, match=message):
    unit.run(config, root, silent)


@pytest.mark.parametrize('fields, message', [
  ({'pattern': 'n_of_m(2, 3)', 'sparsity': 0.2}, r'size 64, which 3 does not divide'),
  ({'pattern': 'n_of_m(2'}, r"pattern='n_of_m\(2': arguments are Python literals"),
  ({'pattern': 'n_of_m(2, 4)', 'sparsity': 0.9, 'budget': 'uniform'}, r"n_of_m\(2, 4, axis=-2\) allows 512 of 1024"),
  ({'budget': 'equal_macs(global_)'}, 'ranks 3 parameters together'),
  ({'budget': 'by_path((("stem", 0.5),))'}, "no pattern takes 'fc1/kernel'"),
  ({'budget': 'erkk'}, "nearest: 'erk'"), ({'schedule': 'cubc'}, "nearest: 'cubic'"),
  ({'grow': 'gradient'}, "nearest: 'gradient_magnitude'"),
])
def test_a_wrong_stage_is_an_error_that_names_the_field(tiny, fields, message):
  with pytest.raises(specs.SpecError, match=message):
    training.check(with_stage(tiny, **fields), silent)


def test_a_scan_masks_one_layer_and_its_ratios_make_a_budget(tiny, root, tmp_path):
  found = sensitivity.scan(
    tiny(), root, ratios=(1.0, 0.0, 0.5), criterion='magnitude', pattern='unstructured', progress=silent)
  assert found.ratios == (0.0, 0.5, 1.0) and len(found.accuracies) == 3
  built = training.program(tiny())
  variables, own = jax.tree.map(jnp.asarray, training.finished(root, tiny())[:2])
  for path, accuracies in found.accuracies.items():
    assert accuracies[0] == found.dense
    zeroed = trees.replace(variables, {path: jnp.zeros_like(trees.flatten(variables)[path])})
    assert accuracies[2] == built.evaluate('validation', zeroed, own)['accuracy']
  allowed = found.within(0.0)
  (tmp_path / 'ratios.json').write_text(json.dumps(allowed))
  budget = f'by_path({budgets.read(tmp_path / "ratios.json")!r})'
  stage = stages.prune(
    stages.Run(10), criterion='magnitude', sparsity=1.0, budget=budget, begin=0.0, end=0.0, every=1)
  own = built.compressed._replace(transform=stage).transform.init(
    variables, sensitivity.Context(built.compressed.layouts, tuple(found.accuracies)))
  for path, mask in own.state['masks'].items():
    assert (~mask).sum() == round(allowed[path] * mask.size)
  sensitivity.plot(found, tmp_path / 'plot.svg')
  assert len(re.findall('<path', (tmp_path / 'plot.svg').read_text())) > 4
  assert len(sensitivity.table(found, 0.01).rows) == 3


@pytest.mark.parametrize('options, message', [
  ({'ratios': (2.0,)}, 'want one or more numbers'), ({'criterion': 'size'}, "criterion='size' is none of"),
  ({'pattern': 'n_of_m(1, 7)'}, 'fc1/kernel.*7 does not divide'),
])
def test_a_wrong_scan_is_an_error(tiny, root, options, message):
  arguments = {'ratios': (0.5,), 'criterion': 'magnitude', 'pattern': 'unstructured'} | options
  with pytest.raises(specs.SpecError, match=message):
    sensitivity.scan(tiny(), root, progress=silent, **arguments)
