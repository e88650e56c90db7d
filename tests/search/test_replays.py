"""Replays on a small part of a space, whose outcomes are a formula."""
import numpy as np
import pytest

from experiments import search
from lightjax.core.specs import SpecError
from lightjax.search import Choice, Outcome, Space, measures, replays, rewards, spaces, strategies

WHOLE = spaces.mobile28()
# 60 of the 240 networks: windows of 3.
PART = Space('part', tuple(
  choice._replace(options=choice.options[:1]) if 'window' in choice.name else choice for choice in WHOLE.choices),
  WHOLE.build)


def rows_of(space):
  for candidate in space:
    options = space.options(candidate)
    work = options['expansion'] * options['width'] * options['blocks']
    yield {'options': options, 'latency_ms': 0.5 + 0.2 * work + 0.3 * options['squeeze-excite'],
           'accuracy': 0.93 - 0.05 / (1 + work) + 0.004 * options['squeeze-excite'] - 0.002 * options['expansion']}


def table_of(space):
  return replays.outcomes(space, rows_of(space), quality='accuracy', cost='latency_ms')


@pytest.mark.parametrize('name', ['random', 'evolution', 'nsga2', 'controller'])
def test_searches_of_everything_find_everything_and_stop_at_their_budget(name):
  found = search.replay(
    PART, table_of(PART), names=[name], reward=rewards.soft(target=1.5), evaluations=25, seeds=2)
  for each in found:
    assert len(each.regret) == 25 and each.evaluated <= 25
    assert 0 <= each.hypervolume <= 1 and min(each.regret) >= 0 and (np.diff(each.regret) <= 0).all()
  assert found == search.replay(
    PART, table_of(PART), names=[name], reward=rewards.soft(target=1.5), evaluations=25, seeds=2)
  if name == 'random':
    everything, = search.replay(PART, table_of(PART), names=[name], reward=rewards.quality, evaluations=60, seeds=1)
    assert everything.hypervolume == pytest.approx(1) and everything.regret[-1] == 0


def test_random_regret_is_what_chance_says():
  """The best of k different of n is the i-th best with the hypergeometric probability."""
  table = table_of(PART)
  ordered = sorted((each.quality for each in table.values()), reverse=True)
  chosen, left, expected = 12, 1.0, 0.0
  for place, value in enumerate(ordered):
    hit = min(1.0, chosen / (len(ordered) - place))
    expected += left * hit * (ordered[0] - value)
    left *= 1 - hit
  found = search.replay(PART, table, names=['random'], reward=rewards.quality, evaluations=chosen, seeds=300)
  final = [each.regret[-1] for each in found]
  assert abs(np.mean(final) - expected) < 4 * np.std(final) / np.sqrt(300)


def test_a_policy_that_is_sure_ends_before_its_budget():
  sure = strategies.random(PART)._replace(propose=lambda state: ((0,) * 6, state))
  assert len(replays.replay(sure, table_of(PART), evaluations=5, seed=0)) == 1


def test_the_table_of_figures_says_which_is_better_than_random():
  searches = [search.Search(name, seed, [regret + 0.001 * seed], volume, 5)
              for name, regret, volume in (('random', 0.2, 0.5), ('better', 0.1, 0.5)) for seed in range(5)]
  table = search.grid(searches, 'title')
  cells = [list(column.cells) for column in table.columns]
  assert cells[0] == ['random', 'better']
  assert cells[1][0].startswith('0.2020 (0.2000')  # 0.002 + t(0.975, 4) 0.00158 / sqrt(5) = 0.00196
  assert cells[2] == ['', '-0.1000 (-0.1023 to -0.0977), better']  # Welch: t(0.975, 8) = 2.306, 0.001
  assert cells[4][1].endswith('within noise')


def test_rows_that_are_not_the_whole_space_are_refused():
  lines = list(rows_of(PART))
  for wrong, says in ((lines[1:], '1 of 60 candidates have no row'), ([*lines, lines[3]], 'row 61 is the second'),
                      ([{'options': {}}], "row 1 has no 'accuracy'")):
    with pytest.raises(ValueError, match=says):
      replays.outcomes(PART, wrong, quality='accuracy', cost='latency_ms')
  with pytest.raises(SpecError, match='60 candidates'):
    search.replay(PART, table_of(PART), names=['random'], reward=rewards.quality, evaluations=61, seeds=1)
  with pytest.raises(SpecError, match='evolution'):
    search.replay(PART, table_of(PART), names=['evolutionary'], reward=rewards.quality, evaluations=1, seeds=1)


def test_a_space_of_a_file_of_ones_own_is_found(tmp_path, monkeypatch):
  (tmp_path / 'my_space_file.py').write_text(
    'from lightjax.search import Choice, Space\n\n\n'
    'def depths(most=3):\n'
    "  return Space('depths', (Choice('depth', tuple(range(1, most + 1))),), lambda options: {'name': 'resnet20'})\n")
  monkeypatch.syspath_prepend(tmp_path)
  assert spaces.load('my_space_file:depths').count == 3
  assert spaces.load('my_space_file:depths(most=5)').count == 5
  assert spaces.load('mobile28').count == 240
  with pytest.raises(SpecError, match='mobile28'):
    spaces.load('mobile29')


def test_hypervolume_of_a_replay_uses_the_worst_of_both_as_reference():
  space = Space('line', (Choice('a', (0, 1, 2)),), dict)
  table = {(0,): Outcome(0.0, 1.0), (1,): Outcome(1.0, 2.0), (2,): Outcome(2.0, 4.0)}
  found = search.replay(space, table, names=['random'], reward=rewards.quality, evaluations=3, seeds=1)
  assert found[0].hypervolume == 1.0
  assert measures.hypervolume(list(table.values()), reference=Outcome(0.0, 4.0)) == 2.0
