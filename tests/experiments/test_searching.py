"""Runs whose channels are searched first: every candidate is a row, whatever stops them; they train the best."""
import json
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import building, candidates, configuration, reshaping, searching, training, unit
from experiments.engine import tables
from lightjax import artifact
from lightjax.core import rngs, specs

TINY = str(pathlib.Path(__file__).with_name('tiny_config.py'))
SEARCHES = {
  'netadapt': {'search__strategy': 'netadapt(step=0.2)', 'search__steps': 3, 'remove__ratio': 0.4},
  'amc': {'search__strategy': 'amc(warmup=3, hidden=8)', 'search__evaluations': 7, 'remove__ratio': 0.5}}


def silent(_):
  """No progress bar."""


@pytest.fixture
def config(tiny):
  """A run of what a search leaves of the tiny network, trained before."""
  def make(**changes):
    return configuration.override(tiny(), [
      ('epochs', 1), ('start.config', TINY), ('remove.importance', 'l1'),
      *((field.replace('__', '.'), value) for field, value in changes.items())])

  return make


def rows_of(folder, *, timed=False):
  found = [json.loads(line) for line in (folder / 'search' / 'rows.jsonl').read_text().splitlines()]
  times = () if timed else ('seconds', 'measured_ms', 'whole_ms')
  return [{name: value for name, value in row.items() if name not in times} for row in found]


@pytest.mark.parametrize('name', SEARCHES)
def test_every_candidate_is_a_row_and_the_best_within_the_budget_is_trained(name, config, tmp_path, monkeypatch):
  splits = []
  evaluation = building._evaluation

  def watched(*arguments):
    evaluate = evaluation(*arguments)

    def noted(split, *more):
      splits.append(split)
      return evaluate(split, *more)

    return noted

  monkeypatch.setattr(building, '_evaluation', watched)
  monkeypatch.setattr(building, '_programs', {})
  made = config(**SEARCHES[name])
  before = unit.run(unit.prerequisites(made)['start'], tmp_path, silent)['metrics']
  splits.clear()
  result = unit.run(made, tmp_path, silent)
  assert splits.count('test') == 2  # of what was found: the last epoch and the one that validation chose
  folder = tmp_path / result['id']
  rows = rows_of(folder, timed=True)
  assert [row['number'] for row in rows] == list(range(len(rows)))
  assert result['metrics']['search/candidates'] == len(rows) > 2
  budget = made.remove.ratio * before['macs']
  within = [row for row in rows if row['predicted'] <= budget]
  best = max(within, key=lambda row: (row['accuracy'], -row['predicted']))
  assert result['metrics']['macs'] == best['predicted']  # counted on the network that was stored
  assert best['measured_ms'] > 0 and best['whole_ms'] > 0
  removal, = reshaping.read(folder).steps
  assert len({each.axis: each.indices for each in removal.kept['params/fc1/kernel']}[1]) == best['options']['fc1']
  assert len(within) == len(rows) if name == 'amc' else max(row['base'] for row in rows) > 0
  stored = artifact.load(folder / 'artifact.ljx')
  assert reshaping.Surgery.from_json(stored.network['surgery']).steps == (removal,)
  # Another run starts from it by either way.
  for changes in ([('start.config', ''), ('start.weights', str(folder))],):
    later = configuration.override(made, [('remove.importance', ''), ('search.strategy', ''), *changes])
    assert unit.run(later, tmp_path, silent)['metrics']['macs'] == best['predicted']


def test_an_accepted_step_trains_as_the_network_without_its_channels_does(config, monkeypatch):
  """Short fine-tuning under masks, against the same steps of the smaller network, of another program."""
  made = config(search__strategy='netadapt', search__steps=4, search__peak=0.05, average=0.0)
  built, state = training.program(made), training.program(made).initial(3, None, None)
  searched = candidates.network(made, built, state.variables())
  kept = searched.kept((5, 4))
  masked = candidates.Masked(searched).train(state.variables(), kept, 2)
  removed = candidates.surgery.remove(built.apply, searched.coupling, state.variables(), kept)
  constant = configuration.override(made, [('learning_rate.peak', 0.05)])
  constant.unlock()
  constant.learning_rate.schedule, constant.seed = 'constant', made.seed
  smaller = training.program(constant.lock(), reshaping.Surgery((removed.removal,)))
  copied = jax.tree.map(jnp.copy, removed.variables)  # the step donates its buffers
  after = smaller.initial(3, copied, None).replace(step=jnp.int32(2))
  for _, batch in zip(range(4), smaller.batches(made.seed, 2), strict=False):
    after = smaller.advance(after, rngs.root(made.seed), batch, None)
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6),
    removed.removal.cut(masked), after.variables())
  seen = candidates.measured(searched, masked, kept)
  assert set(seen) == {'measured_ms', 'whole_ms'}
  monkeypatch.setattr(candidates.surgery, 'mask', lambda coupling, variables, kept: jax.tree.map(
    lambda leaf: leaf + 1, variables))
  with pytest.raises(ArithmeticError, match='differs from the masked one'):
    candidates.measured(searched, masked, kept)


def test_all_candidates_share_one_compilation(config):
  made = config(search__strategy='netadapt', search__steps=2)
  built = training.program(made)
  searched = candidates.network(made, built, built.initial(0, None, None).variables())
  masked, compiled = candidates.Masked(searched), []

  def note(event, seconds, **about):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(note)
  try:
    for number, candidate in enumerate([(5, 4), (3, 7), (11, 2)]):
      kept = searched.kept(candidate)
      masked.accuracy(masked.train(searched.variables, kept, 0), kept)
      assert compiled if number == 0 else not compiled
      compiled.clear()
  finally:
    jax.monitoring.unregister_event_duration_listener(note)


class Killed(BaseException):
  """The process ends here, as far as files can tell."""


@pytest.mark.parametrize('name', [
  pytest.param(name, marks=() if name == 'netadapt' else pytest.mark.exhaustive) for name in SEARCHES])
def test_a_search_stopped_anywhere_loses_no_row_and_ends_alike(name, config, tmp_path, monkeypatch):
  made = config(**SEARCHES[name])
  whole = unit.run(made, tmp_path / 'whole', silent)
  expected = rows_of(tmp_path / 'whole' / whole['id'])
  folder = tmp_path / 'stopped' / whole['id']
  evaluated = []
  for owner, method, calls in (
      (candidates.Masked, 'accuracy', 3), (searching.checkpoints, 'save', 1), (candidates, 'measured', 1),
      (searching.rows, 'write', 2), (training, '_figures', 1)):
    with monkeypatch.context() as patch:
      original, count = getattr(owner, method), []

      def stop(*arguments, original=original, count=count, calls=calls, folder=folder, **keywords):
        count.append(None)
        if len(count) == calls and (folder / 'search').exists():
          raise Killed
        return original(*arguments, **keywords)

      patch.setattr(owner, method, stop)
      before = len(rows_of(folder)) if (folder / 'search' / 'rows.jsonl').exists() else 0
      try:
        unit.run(made, tmp_path / 'stopped', silent)
      except Killed:
        if (folder / 'search' / 'rows.jsonl').exists():
          assert len(rows_of(folder)) >= before
          evaluated.append(len(rows_of(folder)))
  assert evaluated == sorted(evaluated) and len(evaluated) >= 2
  result = unit.run(made, tmp_path / 'stopped', silent)
  assert rows_of(folder) == expected
  assert result['metrics']['test/accuracy'] == whole['metrics']['test/accuracy']
  assert (folder / reshaping.FILE).read_text() == (tmp_path / 'whole' / whole['id'] / reshaping.FILE).read_text()


KILLER = '''
import os, signal
from experiments import commands, run, searching

original, calls = searching.rows.write, []

def kill(*arguments):
  original(*arguments)
  calls.append(None)
  if len(calls) == 2:
    os.kill(os.getpid(), signal.SIGKILL)

searching.rows.write = kill
commands.launch(run.main)
'''


@pytest.mark.slow
def test_a_killed_process_leaves_its_rows(tmp_path):
  script = tmp_path / 'killer.py'
  script.write_text(KILLER)
  flags = [
    f'--config={TINY}', f'--workdir={tmp_path}/run', '--config.remove.importance=l1', '--config.search.strategy=random',
    '--config.search.evaluations=4', '--config.remove.ratio=0.9', '--config.epochs=1']
  done = subprocess.run([sys.executable, str(script), *flags], capture_output=True, text=True, timeout=300)
  assert done.returncode == -signal.SIGKILL, done.stderr
  first = rows_of(tmp_path / 'run', timed=True)
  assert len(first) == 2
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.run', *flags], capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  rows = rows_of(tmp_path / 'run', timed=True)
  assert len(rows) == 4
  assert [row['seconds'] for row in rows[:2]] == [row['seconds'] for row in first]  # kept, not evaluated again


def test_latency_is_looked_up_and_what_was_measured_is_kept(config, tmp_path, monkeypatch):
  made = config(remove__cost='latency', search__strategy='netadapt')
  built = training.program(made)
  searched = candidates.network(made, built, built.initial(0, None, None).variables())
  cost = candidates.cost(searched, tmp_path / 'latency.json')
  first = cost((3, 3))
  written = json.loads((tmp_path / 'latency.json').read_text())
  operations = [f'dense {one} -> {other}, batch 32' for one, other in ((64, 4), (4, 4), (4, 4))]
  total = sum(written['operations'][each]['median_ms'] for each in operations)
  line = written['calibration']
  assert first == pytest.approx(max(line['scale'] * total + line['offset_ms'], 1e-3))
  monkeypatch.setattr(candidates.measure, 'side_by_side', None)  # nothing is measured again
  monkeypatch.setattr(candidates.latency, 'measure', None)
  assert candidates.cost(searched, tmp_path / 'latency.json')((3, 3)) == first


@pytest.mark.parametrize(('changes', 'message'), [
  ({'search__strategy': 'netadept'}, "search.strategy='netadept'.*netadapt"),
  ({'search__strategy': 'netadapt(stop=1)'}, 'stop: netadapt has no such field'),
  ({'search__strategy': 'netadapt(step=0)'}, 'step=0'),
  ({'search__strategy': 'amc'}, 'search.evaluations=0'),
  ({'search__strategy': 'netadapt', 'remove__importance': ''}, 'without remove.importance'),
  ({'search__strategy': 'netadapt', 'remove__cost': 'flops'}, "remove.cost='flops'"),
  ({'search__strategy': 'netadapt', 'remove__only': ('fc3',)}, "only: 'fc3' asks for fc3"),
  ({'search__strategy': 'netadapt', 'remove__ratio': 0.01}, 'the smallest candidate costs'),
  ({'search__strategy': 'netadapt', 'data__validation': 0.0}, 'needs a validation split'),
  ({'search__strategy': 'netadapt', 'search__reward': 'best'}, "search.reward='best'"),
])
def test_mistakes_are_refused_before_anything_is_trained(config, tmp_path, changes, message):
  with pytest.raises(specs.SpecError, match=message):
    unit.run(config(**changes), tmp_path, silent)
  assert not list(tmp_path.glob('*/artifact.ljx'))


def test_rows_of_another_search_and_rewinding_are_refused(config, tmp_path):
  made = config(search__strategy='random', search__evaluations=2, remove__ratio=1.0)
  folder = tmp_path / unit.identify(made) / 'search'
  folder.mkdir(parents=True)
  row = {'options': {'fc1': 1, 'fc2': 1}, 'accuracy': 1.0, 'predicted': 10.0, 'base': 0, 'seconds': 1.0}
  (folder / 'rows.jsonl').write_text(json.dumps(row) + '\n')
  with pytest.raises(OSError, match='rows of another search'):
    unit.run(made, tmp_path, silent)
  with pytest.raises(specs.SpecError, match='searches its channels first'):
    training._weights_after(1, config(search__strategy='netadapt'), None)


def test_the_tables_compare_with_what_is_uniform_from_the_same_network():
  for name, count in (('netadapt_fashion_mnist', 7), ('amc_fashion_mnist', 3)):
    table = tables.load(name)
    configs = [tables.build(table, cell, seed=0) for cell in table.cells]
    whole = unit.identify(configs[0])
    assert len({unit.identify(each) for each in configs}) == len(configs) == count
    assert all(unit.identify(unit.prerequisites(each)['start']) == whole for each in configs[1:])
    assert sum(searching.asked(each) for each in configs) == (3 if name.startswith('netadapt') else 1)
