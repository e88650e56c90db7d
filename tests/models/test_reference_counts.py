"""Parameters, running statistics and MACs are those of the reference implementations, as integers."""
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
with TABLE.open() as file:
  ROWS = {row['impl']: row for row in csv.DictReader(file)}

TORCHVISION = [
  'resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'wide_resnet50_2', 'wide_resnet101_2', 'densenet121',
  'densenet161', 'densenet169', 'densenet201', 'squeezenet1_0', 'squeezenet1_1', 'vgg11', 'vgg11_bn', 'vgg13',
  'vgg13_bn', 'vgg16', 'vgg16_bn', 'vgg19', 'vgg19_bn', 'alexnet', 'regnet_x_400mf', 'regnet_y_400mf',
  'regnet_y_800mf', 'convnext_tiny', 'convnext_small', 'convnext_base',
]
TIMM = [
  'regnety_002', 'regnety_004', 'regnety_006', 'regnety_008', 'regnetx_004', 'convnext_atto', 'convnext_femto',
  'convnext_pico', 'convnext_nano',
]
WIDE = ('16_1', '16_2', '16_4', '16_8', '22_2', '28_10', '40_1', '40_2', '40_4')
DEPTHS = (8, 14, 20, 32, 44, 56, 110)
PRUNED_VGG = {'pools': 4, 'use_bias': False}

# Row of the table -> network and its arguments.
NETWORKS = {
  **{f'torchvision.models.{name}': (name, {}) for name in TORCHVISION},
  **{f'timm.{name}': (name, {}) for name in TIMM},
  **{f'torchvision.models.{name}(aux_logits={aux})': (name, {'aux_logits': aux})
     for name in ('googlenet', 'inception_v3') for aux in (False, True)},
  'timm.legacy_xception': ('xception', {}),
  'own: Caffe AlexNet (grouped conv, 227 crop)': ('alexnet_caffe', {}),
  'own: LeNet-5 classic-like (conv6@5 pad2,pool2,conv16@5,pool2,fc120,fc84,fc10; bias)': ('lenet5_classic', {}),
  'own: LTH Conv-2 (64,64,pool,fc256,256,10)': ('conv2', {}),
  'own: LTH Conv-4': ('conv4', {}),
  'own: LTH Conv-6': ('conv6', {}),
  **{f'akamaster/pytorch_resnet_cifar10 resnet{depth} (option A)': (f'resnet{depth}', {'shortcut': 'centered'})
     for depth in (20, 32, 44, 56, 110, 1202)},
  **{f'HobbitLong/RepDistiller resnet{depth} (CIFAR-100)': (
      f'resnet{depth}', {'classes': 100, 'shortcut': 'projection'}) for depth in DEPTHS},
  **{f'HobbitLong/RepDistiller resnet{depth}x4 (CIFAR-100)': (f'resnet{depth}x4', {'classes': 100})
     for depth in (8, 32)},
  'HobbitLong/RepDistiller ResNet50 (CIFAR-100)': ('resnet50', {'classes': 100, 'stem': 'cifar'}),
  **{f'HobbitLong/RepDistiller wrn_{size} ({classes} classes)': (f'wrn_{size}', {'classes': classes})
     for size, classes in (*((size, 10) for size in WIDE), ('16_4', 100))},
  **{f'HobbitLong/RepDistiller vgg{depth} (CIFAR-100)': (f'vgg{depth}_cifar', {'classes': 100})
     for depth in (8, 11, 13, 16, 19)},
  **{f'own: PreActResNet-{depth} CIFAR-10 (projection shortcut on preact, {block})': (f'preact_resnet{depth}', {})
     for depth, block in ((20, 'basic'), (110, 'basic'), (164, 'bottleneck'))},
  'own: PreActResNet-1001 CIFAR-10 (bottleneck)': ('preact_resnet1001', {}),
  **{f'own: DenseNet L={depth} k={growth} CIFAR-{classes}': (
      f'densenet{depth}', {'growth': growth, 'classes': classes})
     for depth, growth, classes in ((40, 12, 10), (40, 12, 100), (100, 12, 10), (100, 24, 10))},
  **{f'own: DenseNet-BC L={depth} k=12 CIFAR-{classes}': (f'densenet_bc_{depth}', {'classes': classes})
     for depth, classes in ((40, 10), (100, 10), (100, 100))},
  'own: DenseNet-BC L=250 k=24 CIFAR-10': ('densenet_bc_250', {}),
  'own: DenseNet-BC L=190 k=40 CIFAR-10': ('densenet_bc_190', {}),
  'Eric-mingjie/rethinking l1-norm vgg16 (CIFAR-10)': ('vgg16_cifar', {**PRUNED_VGG, 'hidden': 512}),
  'Eric-mingjie/rethinking network-slimming vgg19 (cifar10)': ('vgg19_cifar', PRUNED_VGG),
  'Eric-mingjie/rethinking network-slimming vgg19 (cifar100)': ('vgg19_cifar', {**PRUNED_VGG, 'classes': 100}),
}

# Traced in about ten seconds each; their families count in the shallower ones.
DEEP = ('resnet1202', 'preact_resnet1001', 'densenet_bc_250', 'densenet_bc_190', 'densenet100')

DOCUMENTED = [
  'alexnet', 'conv_cifar', 'convnext', 'densenet', 'preact_resnet', 'regnet', 'resnet', 'resnet_cifar', 'vgg',
  'vgg_cifar', 'wide_resnet',
]


@functools.cache
def counted(name, side, **overrides):
  counts = count(models.create(name, **overrides), (side, side, 1 if side == 28 else 3))
  return counts.params, counts.macs, counts.statistics


@pytest.mark.parametrize('impl', [
  pytest.param(impl, id=impl.replace(' ', '_'), marks=[pytest.mark.exhaustive] if name in DEEP else [])
  for impl, (name, _) in NETWORKS.items()
])
def test_counts_are_those_of_the_reference(impl):
  row, (name, overrides) = ROWS[impl], NETWORKS[impl]
  columns = ('params_trainable', 'macs_conv_linear', 'norm_running_stats')
  found = counted(name, int(row['resolution'] or 32), **overrides)
  wanted = [int(row[column]) if row[column] else None for column in columns]
  assert [each if known is not None else None for each, known in zip(found, wanted, strict=True)] == wanted


@pytest.mark.parametrize('depth,macs', [(50, 3_857_973_248), (101, 7_570_194_432), (152, 11_282_415_616)])
def test_the_papers_strides_give_the_papers_macs(depth, macs):
  # Keras has these strides; its convolutions have biases, which are no MACs.
  assert int(ROWS[f'keras.applications.ResNet{depth}']['macs_conv_linear']) == macs
  params = int(ROWS[f'torchvision.models.resnet{depth}']['params_trainable'])
  assert counted(f'resnet{depth}', 224, variant='v1')[:2] == (params, macs)


def test_network_slimming_counts_its_channel_selectors():
  # One parameter a channel in front of each norm; they multiply nothing that is counted.
  row = ROWS['Eric-mingjie/rethinking network-slimming densenet40 (CIFAR-10)']
  params = int(row['params_trainable']) - int(row['norm_params']) // 2
  assert counted('densenet40', 32, stem_features=24)[:2] == (params, int(row['macs_conv_linear']))


@pytest.mark.parametrize('module', DOCUMENTED)
def test_figures_in_the_docstrings_are_counted(module):
  found = re.findall(
      r'^  ([a-z]\w+) (.*)$', importlib.import_module(f'lightjax.models.{module}').__doc__, re.MULTILINE)
  rows = {label: figures for label, figures in found if label in models.names()}
  assert len(rows) > 1
  for label, figures in rows.items():
    if label in DEEP:  # what is counted of them is above
      continue
    small = module.endswith('cifar') or module in ('preact_resnet', 'wide_resnet') or '32, 10' in figures
    side = 227 if label == 'alexnet_caffe' else 32 if small else 224
    hundred = label.endswith('x4') or module == 'vgg_cifar'
    params, macs, _ = counted(label, side, **({'classes': 100} if hundred else {}))
    assert {f'{params:,}', f'{macs:,}'} <= set(re.split(r'  +| at ', figures.strip())), label
