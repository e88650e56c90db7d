"""The command from a run's folder to a file for other runtimes; formats that need the extra are in tests/interop."""
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configuration, export, unit
from lightjax import data
from lightjax.core import specs
from lightjax.interop import export as exporting
from lightjax.quantize import integer

TINY = str(pathlib.Path(__file__).with_name('tiny_config.py'))


def trained(place, **fields):
  """Folder of a run of a second."""
  made = configuration.override(
    configuration.load(TINY), [(field.replace('__', '.'), value) for field, value in fields.items()])
  return place / unit.run(made, place, lambda progress: None)['id']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A run that was trained with 8 bits."""
  return trained(tmp_path_factory.mktemp('units'), epochs=1, compress__stages=('weights', 'activations'))


def test_codes_and_ranges_of_a_run_reach_the_integers(folder):
  source = export.read(folder)
  quantized = export.in_integers(source)
  assert source.held.shape == (40, 8, 8, 1) and source.calibration.shape == (export.CALIBRATED, 8, 8, 1)
  for path, stored in source.encoded.parameters.items():
    np.testing.assert_array_equal(quantized.kernels[path.removesuffix('/kernel')].codes, stored.codes)
  scales = {calls[0]['scale'] for calls in source.encoded.activations.values()}
  assert scales <= {grid.scale for grid in quantized.grids.values()}
  logits = integer.convert(quantized).apply(jnp.asarray(source.held))
  simulated = source.rounded(source.variables, jnp.asarray(source.held))
  assert (logits.argmax(-1) == simulated.argmax(-1)).mean() > 0.95


def test_held_images_are_those_of_the_run(folder):
  splits = data.load('synthetic', shape=(8, 8, 1), classes=4, examples=152, test_examples=40, validation=0.25)
  images = jnp.asarray(splits.test.take(np.arange(40))[0])
  np.testing.assert_array_equal(
    export.read(folder).held, data.normalize(images, mean=splits.info.mean, std=splits.info.std))


@pytest.mark.parametrize('is_int8', [False, True])
def test_a_run_becomes_a_file(folder, tmp_path, is_int8):
  command = [sys.executable, '-m', 'experiments.export', f'--checkpoint={folder}', '--format=stablehlo',
             f'--output={tmp_path}/network.stablehlo', *(['--int8'] if is_int8 else [])]
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(each for each in sys.path if each)}
  done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
  assert done.returncode == 0, done.stderr
  assert 'the first choice is the same on 40' in done.stdout
  assert [path.name for path in tmp_path.iterdir()] == ['network.stablehlo']


def test_a_run_without_ranges_and_one_without_codes_are_calibrated(tmp_path):
  smaller = trained(tmp_path, epochs=1, start__config=TINY, remove__importance='l1', remove__ratio=0.6,
                    compress__stages=('weights',))
  whole = next(path.parent for path in tmp_path.glob('*/artifact.ljx') if path.parent != smaller)
  sizes = []
  for folder in (whole, smaller):
    source = export.read(folder / 'artifact.ljx')
    quantized = export.in_integers(source)
    assert not integer.convert(quantized).floats
    sizes.append(sum(kernel.codes.size for kernel in quantized.kernels.values()))
    stored = [integers.codes.tolist() for integers in source.encoded.parameters.values()]
    kept = [kernel.codes.tolist() for kernel in quantized.kernels.values()]
    assert all(codes in kept for codes in stored) and bool(stored) == (folder == smaller)
    report = exporting.save_integers(tmp_path / 'network.stablehlo', quantized, source.held, format='stablehlo')
    assert report.difference == 0
  assert sizes[1] < sizes[0]


def test_a_folder_without_a_network_is_refused(tmp_path):
  with pytest.raises(specs.SpecError, match=r'no artifact\.ljx there'):
    export.read(tmp_path)
