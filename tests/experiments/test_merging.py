"""Results of several machines, as fake units wrote them."""
import json

import pytest

from experiments.engine import merging, tables
from experiments.engine.errors import TableError


@pytest.fixture
def train(tmp_path, write_table, fake_unit):
  """Trains some seeds of one table in a work folder of their own; returns the folder."""
  declared = tables.load(write_table([({'m': 'a'}, {'method': 'a'})], seeds=(0, 1, 2)))

  def run(name, *seeds):
    for seed in seeds:
      config = tables.build(declared, declared.cells[0], seed=seed)
      fake_unit.run(config, tmp_path / name / 'units', lambda _: None)
    return tmp_path / name

  return run


def change(workdir, **metrics):
  path = min((workdir / 'units').glob('*/result.json'))
  result = json.loads(path.read_text())
  result['metrics'] |= metrics
  path.write_text(json.dumps(result))
  return path


def finished(workdir):
  return sorted(path.parent.name for path in (workdir / 'units').glob('*/result.json'))


def test_what_is_missing_is_copied_and_what_is_the_same_is_left(train, fake_unit, tmp_path):
  ours, one, other = train('ours', 0), train('one', 0, 1), train('other', 1, 2)
  merged = merging.merge(ours, [one, other], unit=fake_unit)
  assert (len(merged.copied), len(merged.same), merged.blocked, merged.conflicts) == (2, 2, [], [])
  assert finished(ours) == sorted({*finished(one), *finished(other)})
  identity = merged.copied[0]
  for file in ('result.json', 'metrics.jsonl'):
    assert (ours / 'units' / identity / file).read_bytes() == (one / 'units' / identity / file).read_bytes()
  again = merging.merge(ours, [one, other], unit=fake_unit)
  assert (len(again.copied), len(again.same)) == (0, 4)
  assert not [path for path in (ours / 'units').iterdir() if path.name.startswith('.')]


def test_figures_that_disagree_are_shown_and_not_overwritten(train, fake_unit):
  ours, theirs = train('ours', 0), train('theirs', 0)
  path = change(theirs, **{'test/accuracy': 0.5, 'seconds': 99.0})
  before = (ours / 'units' / path.parent.name / 'result.json').read_bytes()
  merged = merging.merge(ours, [theirs], unit=fake_unit)
  (conflict,) = merged.conflicts  # the seconds are another machine's, and no conflict
  assert (conflict.figure, conflict.theirs, conflict.seed, conflict.source) == ('test/accuracy', 0.5, 0, theirs)
  assert conflict.ours == json.loads(before)['metrics']['test/accuracy']
  assert (ours / 'units' / path.parent.name / 'result.json').read_bytes() == before


def test_a_unit_that_is_begun_here_is_not_replaced(train, fake_unit):
  ours, theirs = train('ours', 0), train('theirs', 0)
  (identity,) = finished(ours)
  (ours / 'units' / identity / 'result.json').unlink()
  merged = merging.merge(ours, [theirs], unit=fake_unit)
  assert merged.blocked == [identity] and not merged.copied and finished(ours) == []


def test_what_a_killed_merge_left_is_no_unit_and_does_not_stop_the_next(train, fake_unit, tmp_path):
  theirs = train('theirs', 0)
  (identity,) = finished(theirs)
  (tmp_path / 'ours' / 'units' / f'.incoming_{identity}').mkdir(parents=True)
  assert merging.merge(tmp_path / 'ours', [theirs], unit=fake_unit).copied == [identity]


@pytest.mark.parametrize(('source', 'message'), [('nowhere', 'no units'), ('ours', 'into itself')])
def test_a_folder_that_is_none_is_one_line(train, fake_unit, tmp_path, source, message):
  ours = train('ours', 0)
  with pytest.raises(TableError, match=message):
    merging.merge(ours, [tmp_path / source], unit=fake_unit)
