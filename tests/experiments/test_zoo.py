"""The table of all networks: the committed rows are what networks count, and nothing published is passed over."""
import json
import pathlib

import pytest

from experiments import zoo
from lightjax import models
from lightjax.core.specs import SpecError
from lightjax.measure import counts

RESULT = pathlib.Path(__file__).parents[2] / 'experiments' / 'results' / 'zoo'
ROWS = [json.loads(line) for line in (RESULT / 'rows.jsonl').read_text(encoding='utf-8').splitlines()]


def key(row):
  return zoo.Network(row['network'], row['arguments'], row['size'])


@pytest.mark.parametrize('network', [
  zoo.Network('lenet5', '', 28), zoo.Network('resnet20', 'shortcut=projection classes=100', 32),
  zoo.Network('mobilenet_v2', 'width=0.35', 96), zoo.Network('shufflenet_v1', 'groups=8', 224),
  zoo.Network('repvgg_a0', 'deployed=True', 224), zoo.Network('squeezenet1_1', '', 224)])
def test_committed_rows_are_what_is_counted(network):
  todo, _ = zoo.plan(network.name)
  now = zoo.judged(network, zoo.figures(network), todo[network])
  assert now == next(row for row in ROWS if key(row) == network)


def test_one_trace_counts_what_the_measure_counts():
  for network in (zoo.Network('ghostnet_100', 'width=0.5', 32), zoo.Network('densenet_bc_40', '', 32),
                  zoo.Network('googlenet', 'aux_logits=True', 32)):
    counted = counts.count(models.create(network.name, **zoo.arguments(network.arguments)), (network.size,) * 2 + (3,))
    assert zoo.figures(network) == (counted.params, counted.macs)


def test_every_network_has_a_row_and_every_published_figure_a_row_or_a_reason():
  todo, absent = zoo.plan()
  assert [key(row) for row in ROWS] == list(todo)
  assert {row['network'] for row in ROWS} == set(models.names())
  for subject, kind in (('reference_counts', 'references'), ('zoo', 'published')):
    spoken_of = [row for known in todo.values() for row in known[kind]]
    absent_names = {name for names in absent.values() for name in names}
    for row in zoo.rows_of(subject):
      name = row['impl'] if subject == 'reference_counts' else zoo.title(row)
      assert row in spoken_of or name in absent_names, name


def test_every_deviation_is_named_and_every_rule_is_needed():
  _, absent = zoo.plan()
  assert zoo.unnamed(ROWS) == []
  assert zoo.needless(ROWS, absent) == []
  broken = [{**ROWS[0], 'published': [{'name': 'a', 'recalled': False, 'params': {
    'value': '1', 'verdict': '+9.0 %', 'reason': ''}}]}]
  assert len(zoo.unnamed(broken)) == 1


def test_the_committed_table_is_rendered_from_the_rows():
  _, absent = zoo.plan()
  assert (RESULT / 'table.md').read_text(encoding='utf-8') == zoo.markdown(ROWS, absent)


@pytest.mark.parametrize('printed,ours,verdict', [
  ('4.2', 4_250_000, 'cut off'), ('4.2', 4_249_999, 'equal'), ('4.2', 4_150_000, 'equal'), ('4.2', 4_149_999, '-1.2 %'),
  ('4.2', 4_299_999, 'cut off'), ('4.2', 4_300_000, '+2.4 %'), ('22.855952', 22_855_952, 'equal'),
  ('22.855952', 22_855_953, '+0.0 %'), ('1800', 1_814_000_000, 'equal'), ('1800', 1_850_000_000, 'cut off'),
  ('15300', 15_470_264_320, '+1.1 %'), ('300', 300_774_272, 'cut off'), ('<25', 23_834_568, 'equal'),
  ('<23', 23_834_568, '+3.6 %')])
def test_published_digits_decide(printed, ours, verdict):
  assert zoo.compare(printed, ours) == verdict


def test_a_row_that_no_rule_speaks_of_is_an_error(monkeypatch):
  row = dict(zoo.rows_of('reference_counts')[0], impl='somebody.new_network')
  monkeypatch.setattr(zoo, 'rows_of', lambda subject: (row,))
  with pytest.raises(SpecError, match=r'somebody\.new_network'):
    zoo.plan()
