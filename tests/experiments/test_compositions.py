"""Two methods on one small network: refused at construction, or trained a few steps with what both promise."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compositions
from experiments.compositions import DISTILL, NAMES, SURGERIES, Network
from experiments.reshaping import Surgery
from lightjax import artifact
from lightjax.core import trees
from lightjax.distill import losses
from lightjax.factorize import Factorization

PAGE = pathlib.Path(__file__).parents[2] / 'WORKSPACE.md'
X = jax.random.normal(jax.random.key(1), (8, 12, 12, 3))
LABELS = jax.nn.one_hot(jnp.arange(8) % 10, 10)
# All others are of the same kinds: as integers, as zeros, as a network.
OFTEN = {
  ('prune', 'int8'), ('prune', 'share'), ('N:M', 'ternary'), ('share', 'N:M'), ('prune', DISTILL),
  ('channels', 'low rank'), ('low rank', 'channels'), ('channels', 'prune'), ('channels', 'LSQ'),
  ('low rank', 'prune'), ('low rank', 'int8'), ('low rank', 'binary'), ('low rank', 'share'), ('low rank', DISTILL)}


@pytest.fixture(scope='module')
def cells():
  rows = [[cell.strip() for cell in line.strip('|').split('|')]
          for line in compositions.section(PAGE.read_text()).splitlines() if line.startswith('|')]
  assert rows[0][1:] == list(NAMES) and [row[0] for row in rows[2:]] == list(NAMES)
  return {(row[0], second): cell for row in rows[2:] for second, cell in zip(rows[0][1:], row[1:], strict=True)}


@pytest.mark.parametrize('first', NAMES)
def test_the_page_says_what_construction_does(cells, first):
  for second in NAMES:
    if first != second:
      assert cells[first, second] == compositions.verdict(first, second), (first, second)
    else:
      assert cells[first, second] == ''


def test_low_rank_after_pruning_is_refused_for_the_zeros_and_pruning_after_integers_for_the_levels():
  with pytest.raises(ValueError, match='zeros, of which its factors would keep'):
    compositions.build('prune', 'low rank')
  with pytest.raises(ValueError, match=r"'prune' changes '.*/kernel', which 'int8' stores as integers"):
    compositions.build('int8', 'prune')


def trained(built, *, distilled):
  """Two steps of gradient descent, in training mode, from the built state."""
  compressed, variables, own = built.compressed, built.variables, built.own
  teacher = Network().apply(compositions.build().variables, X)

  def objective(params, trainable, own):
    view_of = own._replace(trainable=trainable)
    (logits, mutated), observed = compressed.apply(
      {**variables, 'params': params}, view_of, X, observe=True, train=True, mutable=['batch_stats'])
    loss = -(LABELS * jax.nn.log_softmax(logits)).sum(-1)
    loss = losses.temperature(logits, teacher, temperature=4.0) if distilled else loss
    return loss.mean(), (mutated, observed)

  for step in (1, 2):
    gradients, (mutated, observed) = jax.grad(objective, argnums=(0, 1), has_aux=True)(
      variables['params'], own.trainable, own)
    params, trainable = jax.tree.map(lambda w, g: w - 0.1 * g, (variables['params'], own.trainable), gradients)
    variables, own, _ = compressed.update(
      {**mutated, 'params': params}, own._replace(trainable=trainable), step=step, observed=observed)
  return variables, own


def stored(built, variables, own):
  method = built.compressed.transform
  return artifact.to_bytes(
    network=built.surgery.to_json(), variables=method.view(variables, own, None),
    encoded=method.finalize(variables, own))


def legal():
  for first, second in compositions.pairs():
    order = [name in SURGERIES for name in (first, second)]
    if first != DISTILL and order != [False, True]:
      yield pytest.param(first, second, marks=() if (first, second) in OFTEN else pytest.mark.exhaustive)


@pytest.mark.parametrize(('first', 'second'), legal())
def test_a_pair_keeps_zeros_levels_ranks_logits_and_bytes(cells, first, second):
  if cells[first, second] != 'yes':
    with pytest.raises(ValueError):
      compositions.build(first, second)
    return
  built = compositions.build(first, second)
  variables, own = trained(built, distilled=DISTILL in (first, second))
  before = trees.flatten(built.variables)
  assert any((np.asarray(leaf) != before[path]).any() for path, leaf in trees.flatten(variables).items())

  method = built.compressed.transform
  view, kept = trees.flatten(method.view(variables, own, None)), method.support(own)
  for path, mask in kept.items():
    assert not np.asarray(view[path])[~np.broadcast_to(mask, view[path].shape)].any()
  halved = [path for path in kept if {'prune', 'N:M'} & {first, second}]
  for path in halved:
    assert (np.asarray(view[path]) == 0).mean() >= 0.4
  for path, integers in method.finalize(variables, own).parameters.items():
    np.testing.assert_array_equal(integers.decode(), view[path])
  if 'share' in (first, second):
    shared = [path for path in view if path.startswith(('conv/', 'pointwise/', 'fc/kernel')) and view[path].ndim > 1]
    assert shared and all(np.unique(np.asarray(view[path])).size <= 8 + 1 for path in shared)

  data = stored(built, variables, own)
  loaded = artifact.from_bytes(data)
  again = Surgery.from_json(loaded.network)
  for step in again.steps:
    if isinstance(step, Factorization) and step is again.steps[-1]:
      for path, kernel in trees.flatten(step.product(method.view(variables, own, None))).items():
        if path in step.ranks:
          assert np.linalg.matrix_rank(np.asarray(kernel).reshape(-1, kernel.shape[-1]), 1e-4) <= step.ranks[path][-1]
  simulated = built.compressed.apply(variables, own, X)
  np.testing.assert_allclose(
    again.apply(Network().apply)(loaded.variables, X), simulated, rtol=1e-5, atol=1e-5 * np.abs(simulated).max())

  if DISTILL not in (first, second):
    sizes = [len(stored(each, each.variables, each.own)) for each in (
      compositions.build(*names) for names in ((first,), (second,), (first, second)))]
    assert sizes[2] <= 1.02 * min(sizes[:2]), sizes
