"""Every config runs: a few steps on synthetic images of its set's shape, through the whole road to a stored network."""
import pytest

from experiments import configuration, unit
from lightjax import artifact

NAMES = sorted(path.name for path in configuration.FOLDER.glob('*.py') if not path.name.startswith('_'))
# A minute or more to compile and run; the units that they are made of have tests of their own.
LONG = (
  'distilled_cifar100.py', 'mobilenet_v2_cifar10.py', 'searched_fashion_mnist.py', 'two_stage_fashion_mnist.py',
  'vgg_small_cifar10.py')


@pytest.mark.parametrize('name', [
  pytest.param(name, marks=pytest.mark.exhaustive if name in LONG else ()) for name in NAMES])
def test_config_runs(name, tmp_path):
  config = configuration.smoke(configuration.load(name))
  result = unit.run(config, tmp_path, lambda state: None)
  assert 0.0 <= result['metrics']['test/accuracy'] <= 1.0
  stored = tmp_path / result['id'] / 'artifact.ljx'
  assert result['metrics']['bytes'] == stored.stat().st_size
  artifact.verify(stored)
