"""Parameters, running statistics and MACs of the mobile families are those of the references, as integers."""
import csv
import functools
import importlib
import pathlib
import re

import pytest

import experiments
from lightjax import models
from lightjax.measure.counts import count

TABLE = pathlib.Path(experiments.__file__).parent / 'published' / 'reference_counts.csv'
COLUMNS = ('params_trainable', 'macs_conv_linear', 'norm_running_stats')
with TABLE.open() as file:
  ROWS = {(row['impl'], row['resolution']): row for row in csv.DictReader(file)}

SHUFFLE_OWN = ['1x g=1', '1x g=2', '1x g=3', '1x g=4', '1x g=8', '0.5x g=1', '0.5x g=3', '0.25x g=1', '0.25x g=3',
               '1.5x g=1', '1.5x g=3', '2x g=1', '2x g=2', '2x g=3', '2x g=4', '2x g=8']
STEMS = {'1': 24, '0.5': 12, '0.25': 6, '1.5': 36, '2': 48}
LITE = {'tf_efficientnet_lite0': 224, 'tf_efficientnet_lite1': 240, 'tf_efficientnet_lite2': 260,
        'tf_efficientnet_lite3': 280, 'tf_efficientnet_lite4': 300, 'efficientnet_lite0': 224}
RESOLUTIONS = {'b0': 224, 'b1': 240, 'b2': 288, 'b3': 300, 'b4': 380, 'b5': 456, 'b6': 528, 'b7': 600}


def shuffle_v1():
  for label in SHUFFLE_OWN:
    width, groups = re.fullmatch(r'(.*)x g=(\d)', label).groups()
    impl = f'own: ShuffleNetV1 {label} (first layer {STEMS[width]} ch, first pointwise ungrouped)'
    yield impl, 224, 'shufflenet_v1', {'groups': int(groups), 'width': float(width)}
  for width in (0.5, 1.0, 1.5, 2.0):
    for groups in (3, 8):
      impl = f'megvii-model/ShuffleNet-Series ShuffleNetV1 {width}x g={groups}'
      yield impl, 224, 'shufflenet_v1', {'groups': groups, 'width': width, 'variant': 'megvii'}
  yield 'HobbitLong/RepDistiller ShuffleV1 (CIFAR-100)', 32, 'shufflenet_v1_cifar', {}


def mobilenets():
  for width in ('1', '0.75', '0.5', '0.25'):
    for resolution in (224, 192, 160, 128) if width == '1' else (224,):
      yield f'own: MobileNetV1 alpha={width}', resolution, 'mobilenetv1_100', {'width': float(width)}
  yield 'timm.mobilenetv1_125', 224, 'mobilenetv1_100', {'width': 1.25}
  for width in (0.35, 0.5, 0.75, 1.0):
    for resolution in (224, 192, 160, 128, 96) if width == 1.0 else (224,):
      yield f'keras.applications.MobileNetV2(alpha={width})', resolution, 'mobilenet_v2', {'width': width}
  for width in (1.3, 1.4):
    yield f'keras.applications.MobileNetV2(alpha={width})', 224, 'mobilenet_v2', {'width': width}
  yield 'timm.mobilenetv2_110d', 224, 'mobilenet_v2', {'width': 1.1, 'depth': 1.2, 'fixed_ends': True}
  yield 'timm.mobilenetv2_120d', 224, 'mobilenet_v2', {'width': 1.2, 'depth': 1.4, 'fixed_ends': True}
  yield 'HobbitLong/RepDistiller MobileNetV2 (CIFAR-100)', 32, 'mobile_half', {}
  for size in ('Large', 'Small'):
    for width in (1.0, 0.75):
      for minimalistic in (False, True):
        impl = f'keras.applications.MobileNetV3{size}(alpha={width},minimalistic={minimalistic})'
        yield impl, 224, f'mobilenet_v3_{size.lower()}', {'width': width, 'minimalistic': minimalistic}
  yield 'timm.mobilenetv3_small_050', 224, 'mobilenet_v3_small', {'width': 0.5, 'fixed_stem': True}


def others():
  for name in ('mnasnet0_5', 'mnasnet0_75', 'mnasnet1_0', 'mnasnet1_3', 'shufflenet_v2_x0_5', 'shufflenet_v2_x1_0',
               'shufflenet_v2_x1_5', 'shufflenet_v2_x2_0', 'mobilenet_v3_large', 'mobilenet_v3_small', 'mobilenet_v2'):
    yield f'torchvision.models.{name}', 224, name, {}
  for name in ('semnasnet_050', 'semnasnet_075', 'semnasnet_100', 'semnasnet_140', 'mnasnet_small', 'fbnetc_100',
               'ghostnet_050', 'ghostnet_100', 'ghostnet_130'):
    yield f'timm.{name}', 224, name, {}
  yield 'timm.mnasnet_140', 224, 'mnasnet1_0', {'width': 1.4}
  yield 'HobbitLong/RepDistiller ShuffleV2 (CIFAR-100)', 32, 'shufflenet_v2_x1_0', {'stem': 'cifar', 'classes': 100}
  for size, resolution in RESOLUTIONS.items():
    yield f'torchvision.models.efficientnet_{size}', resolution, f'efficientnet_{size}', {}
  for name, resolution in LITE.items():
    yield f'timm.{name}', resolution, name.removeprefix('tf_'), {}
  for name in (*(f'repvgg_{size}' for size in ('a0', 'a1', 'a2', 'b0')), *(f'mobileone_s{size}' for size in range(5))):
    yield f'timm.{name}', 224, name, {}
    yield f'timm.{name} (reparameterized)', 224, name, {'deployed': True}


NETWORKS = [*mobilenets(), *shuffle_v1(), *others()]

# Between two that are counted in every run; 25 seconds.
BETWEEN = {f'efficientnet_{size}' for size in ('b2', 'b3', 'b4', 'b5', 'b6', 'lite1', 'lite2', 'lite3')}

# What the first column of a docstring's table names, where it is no network: its arguments.
WIDTHS = {
  'mobilenet_v1': 'mobilenetv1_100', 'mobilenet_v2': 'mobilenet_v2', 'ghostnet': 'ghostnet_100',
}


@functools.cache
def counted(name, side, **overrides):
  counts = count(models.create(name, **overrides), (side, side, 3))
  return counts.params, counts.macs, counts.statistics


@pytest.mark.parametrize('impl,resolution,name,overrides', [
  pytest.param(*each, id=f'{each[0]}-{each[1]}'.replace(' ', '_'),
               marks=[pytest.mark.exhaustive] if each[2] in BETWEEN else []) for each in NETWORKS])
def test_counts_are_those_of_the_reference(impl, resolution, name, overrides):
  row = ROWS[impl, str(resolution)]
  assert counted(name, resolution, **overrides) == tuple(int(row[column]) for column in COLUMNS)


def documented():
  """(module, name, overrides, side, figures) of each row of the docstrings' tables."""
  for module, name in WIDTHS.items():
    for width, figures in rows_of(module, r'\d\.\d+'):
      yield module, name, {'width': float(width)}, 224, figures
  for module in ('mnasnet', 'shufflenet_v2', 'repvgg', 'mobileone'):
    for name, figures in rows_of(module, r'[a-z]\w+\d|mnasnet_small'):
      yield module, name, {}, 224, figures
  for groups, figures in rows_of('shufflenet_v1', r'\d'):
    yield 'shufflenet_v1', 'shufflenet_v1', {'groups': int(groups)}, 224, figures
  for name, figures in rows_of('efficientnet', r'efficientnet_\w+'):
    yield 'efficientnet', name, {}, int(figures.split()[0]), figures
  for label, figures in rows_of('mobilenet_v3', r'(?:large|small)[^ ]*(?: [a-z0-9.]+)*'):
    overrides = {'width': 0.75} if 'width' in label else {'minimalistic': True} if 'mini' in label else {}
    yield 'mobilenet_v3', f'mobilenet_v3_{label[:5]}', overrides, 224, figures


def rows_of(module, label):
  text = importlib.import_module(f'lightjax.models.{module}').__doc__
  found = re.findall(rf'^  ({label})  *(\d.*)$', text, re.MULTILINE)
  assert len(found) >= 3, module
  return found


def test_figures_in_the_docstrings_are_counted():
  # A third of them: tracing all takes two minutes, and the counts themselves are compared with the references above.
  for _, name, overrides, side, figures in list(documented())[::3]:
    if name in BETWEEN:
      continue
    params, macs, _ = counted(name, side, **overrides)
    assert f'{params:,} ' in figures, (name, overrides)
    assert f' {macs / 1e6:,.1f} M' in figures, (name, overrides)
    if name.startswith(('repvgg', 'mobileone')):
      params, macs, _ = counted(name, side, deployed=True)
      assert f' {params:,} ' in figures and f' {macs / 1e6:,.1f} M' in figures, name


@pytest.mark.parametrize('module', ['fbnet', 'mobilenet_v2', 'shufflenet_v1', 'shufflenet_v2'])
def test_figures_in_the_running_text_are_counted(module):
  name, side, overrides = {
    'fbnet': ('fbnetc_100', 224, {}), 'mobilenet_v2': ('mobile_half', 32, {}),
    'shufflenet_v1': ('shufflenet_v1_cifar', 32, {}),
    'shufflenet_v2': ('shufflenet_v2_x1_0', 32, {'stem': 'cifar', 'classes': 100})}[module]
  source = importlib.import_module(f'lightjax.models.{module}')
  text = f'{source.__doc__} {getattr(source, name).__doc__}'
  params, macs, _ = counted(name, side, **overrides)
  assert f'{params:,} params' in text
  assert f'{macs:,} MACs' in text
