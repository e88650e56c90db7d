"""Published figures: the committed CSVs, units, and which figure stands beside which cell."""

import csv

import pytest

from experiments.engine import published
from experiments.engine.errors import TableError
from experiments.engine.published import Figure

SUBJECTS = sorted(path.stem for path in published.FOLDER.glob('*.csv'))


@pytest.mark.parametrize('subject', SUBJECTS)
def test_every_row_has_all_columns_and_says_how_sure_it_is(subject):
  with (published.FOLDER / f'{subject}.csv').open(newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) > 50
  for row in rows:
    assert None not in row and None not in row.values()
    assert row['confidence'].startswith(('counted', 'checked', 'recalled'))


def test_every_subject_is_described():
  readme = (published.FOLDER / 'README.md').read_text(encoding='utf-8')
  assert all(f'`{subject}.csv`' in readme for subject in SUBJECTS)


@pytest.mark.parametrize(
  ('value', 'metric', 'expected'),
  [
    (98.36, 'top-1 %', 0.9836),
    (1.64, 'test err %', 0.9836),
    (146, 'test errors /10000', 0.9854),
    (27.3, 'BLEU', 27.3),
    (10.9, 'WER %', 0.891),
    (72.1, 'accuracy %', 0.721),
  ],
)
def test_units(value, metric, expected):
  assert published.to_unit(value, metric) == pytest.approx(expected, abs=1e-12)


def test_han_2015_prints_1_64_percent_error_for_lenet_300_100():
  first, compressed = published.published('deep_compression', value='top1_err', table='1', network='LeNet-300-100')[:2]
  assert first.value == pytest.approx(1 - 0.0164)
  assert compressed.value == pytest.approx(1 - 0.0158)
  assert first.confidence == 'checked'
  assert first.source == 'Han 2016 Deep Compression, table 1'


def test_numbers_select_by_value_and_texts_by_text(tmp_path):
  (tmp_path / 'own.csv').write_text(
    'paper,table,bits,metric,value,confidence\nA,1,4.0,top-1 %,70,checked\nA,1b,4,top-1 %,71,recalled\n'
  )
  values = [figure.value for figure in published.published('own', folder=tmp_path, bits=4)]
  assert values == [0.70, 0.71]
  assert [figure.value for figure in published.published('own', folder=tmp_path, table=1)] == [0.70]
  assert [figure.value for figure in published.published('own', folder=tmp_path, table='1b')] == [0.71]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('quants', {}), 'no such file; nearest: quant'),
    (('quant', {'netwrk': 'x'}), "no column 'netwrk'; nearest: network"),
    (('quant', {'network': 'x'}), 'no figure'),
  ],
)
def test_mistakes_name_the_nearest(arguments, message):
  subject, selection = arguments
  with pytest.raises(TableError, match=message):
    published.published(subject, **selection)


def test_attach_takes_the_figure_whose_labels_the_cell_has():
  cells = [{'method': 'a', 'bits': 4}, {'method': 'a', 'bits': 8}, {'method': 'b', 'bits': 4}]
  four = Figure(0.7).labelled(method='a', bits=4)
  others = Figure(0.6).labelled(method='b')
  assert published.attach([others, four], cells) == [four, None, others]


@pytest.mark.parametrize(
  ('figures', 'message'),
  [
    ([Figure(0.5)], 'has no labels'),
    ([Figure(0.5).labelled(method='c')], 'label of no cell'),
    ([Figure(0.5).labelled(method='a'), Figure(0.6).labelled(bits=4)], 'two figures'),
  ],
)
def test_attach_refuses_what_is_unclear(figures, message):
  with pytest.raises(TableError, match=message):
    published.attach(figures, [{'method': 'a', 'bits': 4}])
