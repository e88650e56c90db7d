"""The command from weights and photographs to an artifact in integers, and the committed table."""
import functools
import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import import_weights, quantize, quantize_real_weights, starting
from lightjax import interop, models
from lightjax.core import specs
from lightjax.interop import preprocessing
from lightjax.quantize import integer, program

RESULT = pathlib.Path(__file__).parents[2] / 'experiments' / 'results' / 'quantize_real_weights'
ARGUMENTS = {'width': 0.5, 'shortcut': 'projection', 'classes': 10}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Weights of a small network as a file, and some photographs of its size."""
  how = preprocessing.Preprocessing(16, 18, (127.0,) * 3, (128.0,) * 3)
  monkeypatch.setitem(preprocessing.PREPROCESSING, 'resnet8', how)
  model = models.create('resnet8', **ARGUMENTS)
  shapes = jax.eval_shape(functools.partial(model.init, jax.random.key(0)), jnp.zeros((1, 16, 16, 3)))
  random = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: random.uniform(-0.5, 1.5, leaf.shape).astype(np.float32) if leaf.ndim > 1 else
                           random.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)
  np.savez(tmp_path / 'w.npz', **interop.to_torch(model, variables))
  (tmp_path / 'images').mkdir()
  for i in range(6):
    pixels = random.integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'images' / f'{i}.png')
  return tmp_path


def test_an_artifact_in_integers_is_made_and_loaded(folder):
  import_weights.write(folder / 'float', folder / 'w.npz', 'resnet8', arguments=ARGUMENTS)
  found = quantize.read(folder / 'float', None)
  images = quantize.images(folder / 'images', preprocessing.of('resnet8'), 4)
  assert images.shape == (4, 16, 16, 3)
  original = quantize.lowered(found.model, found.variables)
  exact = models.create(**found.model).apply(found.variables, images)
  assert jnp.abs(program.run(original, images) - exact).max() < 1e-4 * jnp.abs(exact).max()
  network, quantized = quantize.post_training(original, images, method=('equalize', 'correct'))
  assert jnp.abs(program.run(network, images) - exact).max() < 1e-4 * jnp.abs(exact).max()
  sizes = quantize.save(folder / 'int8', found.model, quantized)
  assert sizes.total < 0.5 * (folder / 'float' / starting.FILE).stat().st_size
  again = quantize.load(folder / 'int8')
  logits = integer.convert(again).apply(images)
  assert (logits == integer.convert(quantized).apply(images)).all()
  assert jnp.linalg.norm(logits - exact) < 0.1 * jnp.linalg.norm(exact)
  with pytest.raises(specs.SpecError, match='no network that'):
    quantize.load(folder / 'float')


# The command as it is run, for a network of which no preprocessing is published.
COMMAND = """
import runpy
from lightjax.interop import preprocessing
preprocessing.PREPROCESSING['resnet8'] = preprocessing.Preprocessing(16, 18, (127.0,) * 3, (128.0,) * 3)
runpy.run_module('experiments.quantize', run_name='__main__', alter_sys=True)
"""


def test_the_command_prints_a_report_and_what_it_writes_is_the_network_in_integers(folder):
  import_weights.write(folder / 'float', folder / 'w.npz', 'resnet8', arguments=ARGUMENTS)

  def command(*arguments):
    return subprocess.run(
      [sys.executable, '-c', COMMAND, f'--weights={folder}/float', f'--images={folder}/images',
       f'--workdir={folder}/int8', *arguments], capture_output=True, text=True, check=False)

  done = command('--model=resnet8', '--count=4', '--sensitivity', '--weight_rules=stem/.*=4')
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0] == 'resnet8: equalize, correct; calibrated on 4 photographs, compared on 2 others'
  table = [line.split() for line in lines[3:lines.index('', 3)]]
  written = json.loads((folder / 'int8' / 'report.json').read_text())
  assert [row[:2] for row in table] == [[each['layer'], str(each['bits'])] for each in written['layers']]
  assert [row[1] for row in table] == ['4'] + ['8'] * 9
  # Two ends of a range and three ratios; logits have no range.
  assert [len(row) for row in table] == [7] * 9 + [5]
  for each in written['layers'][:-1]:
    assert each['low'] <= 0 < each['high'] and each['alone_sqnr_db'] > 20
  assert re.search(r'in integers +2 of 2 +\d+\.\d', done.stdout), done.stdout

  again = integer.convert(quantize.load(folder / 'int8'))
  assert again.size_bytes == written['integer_bytes'] < 0.3 * written['float_bytes']
  others = quantize.images(folder / 'images', preprocessing.of('resnet8'), 6)[4:]
  exact = jax.jit(models.create('resnet8', **ARGUMENTS).apply)(starting.read(folder / 'float').variables, others)
  logits = jax.jit(again.apply)(others)
  assert (logits.argmax(-1) == exact.argmax(-1)).sum() == written['in integers']['same']

  wrong = command('--weight_rules=stage9/.*=4')
  assert wrong.returncode == 2 and wrong.stderr.count('\n') == 1
  assert "'stage9/.*' takes no layer; nearest" in wrong.stderr


def test_what_is_wrong_is_said(folder):
  with pytest.raises(specs.SpecError, match='say --model=NAME'):
    quantize.read(folder / 'w.npz', None)
  import_weights.write(folder / 'float', folder / 'w.npz', 'resnet8', arguments=ARGUMENTS)
  with pytest.raises(specs.SpecError, match=r'are of resnet8'):
    quantize.read(folder / 'float', 'resnet20')
  with pytest.raises(specs.SpecError, match='no file there ends in'):
    quantize.images(folder / 'float', preprocessing.IMAGENET, 4)
  (folder / 'images' / '0.png').write_text('no image')
  with pytest.raises(specs.SpecError, match='no image that can be read'):
    quantize.images(folder / 'images', preprocessing.IMAGENET, 4)
  with pytest.raises(specs.SpecError, match="'equalise' is none of"):
    quantize.post_training(None, np.zeros((1, 2)), method=('equalise',))


@pytest.mark.parametrize('text,rule', [('stem/.*=8', ('stem/.*', 8)), ('a=b=float', ('a=b', None))])
def test_rules_are_read(text, rule):
  assert quantize.rule(text) == rule


@pytest.mark.parametrize('text', ['stem', 'stem=', 'stem=eight'])
def test_other_text_is_no_rule(text):
  with pytest.raises(specs.SpecError, match='is not of the form'):
    quantize.rule(text)


@pytest.fixture(scope='module')
def rows():
  return json.loads((RESULT / 'result.json').read_text())['rows']


def test_the_committed_table_is_rendered_from_the_rows(rows):
  assert (RESULT / 'table.md').read_text() == quantize_real_weights.markdown(rows)
  methods = ['float', *(method.name for method in quantize_real_weights.METHODS)]
  order = [(network, method) for network in quantize_real_weights.NETWORKS for method in methods]
  found = [(row['network'], row['method']) for row in rows]
  assert found == [each for each in order if each in found]
  assert len(found) == len(rows)


def test_the_committed_rows_show_the_order_of_the_papers(rows):
  """One step a kernel is worst for MobileNetV2, with 6 bits a breakdown; equalization or a step a channel recovers."""
  agreement = {(row['network'], row['method']): row['agreement'] for row in rows}
  sqnr = {(row['network'], row['method']): row['sqnr_db'] for row in rows}
  mobile = {method: sqnr['mobilenet_v2', f'W8A8 per {method}'] for method in (
    'tensor', 'tensor, equalization', 'tensor, equalization, bias correction', 'channel')}
  assert min(mobile, key=mobile.get) == 'tensor'
  assert agreement['mobilenet_v2', 'W6A8 per tensor'] < 0.3
  assert agreement['mobilenet_v2', 'W6A8 per tensor, equalization, bias correction'] > 0.8
  for (network, method), value in agreement.items():
    if method == 'W8A8 per channel':
      assert value >= 0.95, network
    if 'AdaRound' in method:
      assert sqnr[network, method] > sqnr[network, 'W4A8 per channel']


def test_every_published_figure_is_found():
  assert all(quantize_real_weights.figure(method) for method in quantize_real_weights.METHODS if method.published)
