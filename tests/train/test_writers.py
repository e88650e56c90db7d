"""The file of metrics: one JSON a line, and a resumed run reports no step twice."""
import json
import math

import pytest

from lightjax.train import writers


def lines(folder):
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_lines_after_the_checkpoint_are_cut_and_written_anew(tmp_path):
  metrics = writers.Metrics(tmp_path)
  for step in (1, 2, 3):
    metrics.write(step, {'split': 'train', 'loss': 1 / step})
  assert metrics.lines == 3
  metrics.close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "sp')  # killed within a line
  again = writers.Metrics(tmp_path, lines=2)
  again.write(3, {'split': 'train', 'loss': 0.25})
  again.close()
  assert [(row['step'], row['loss']) for row in lines(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_a_new_run_begins_an_empty_file(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{}\n')
  writers.Metrics(tmp_path).close()
  assert lines(tmp_path) == []


def test_numbers_that_json_does_not_have_are_null(tmp_path):
  metrics = writers.Metrics(tmp_path)
  metrics.write(1, {'split': 'train', 'loss': math.nan, 'accuracy': math.inf, 'seconds': 1.5})
  metrics.close()
  assert lines(tmp_path) == [{'step': 1, 'split': 'train', 'loss': None, 'accuracy': None, 'seconds': 1.5}]


@pytest.mark.parametrize('there', [None, '', '{}\n'])
def test_fewer_lines_than_the_checkpoint_counts_are_an_error_and_stay(tmp_path, there):
  path = tmp_path / 'metrics.jsonl'
  if there is not None:
    path.write_text(there)
  with pytest.raises(OSError, match='where the checkpoint counts 2'):
    writers.Metrics(tmp_path, lines=2)
  assert (path.read_text() if path.exists() else None) == there


def test_event_files_stand_beside_it(tmp_path):
  pytest.importorskip('tensorboardX')
  metrics = writers.Metrics(tmp_path, tensorboard=True)
  metrics.write(1, {'split': 'train', 'loss': 1.0})
  metrics.close()
  assert list((tmp_path / 'tensorboard').glob('events*'))
