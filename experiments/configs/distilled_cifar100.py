"""CIFAR-100, teacher and student of the distillation literature, with the recipe of CRD's and DKD's tables.

Source: Tian et al. 2020, arXiv:1910.10699, appendix, and RepDistiller's code: 240 epochs, batches of 64, rate 0.05
(0.01 for MobileNetV2 and the ShuffleNets) with steps of 0.1 at 150, 180 and 210, weight decay 5e-4, crop and flip; the
networks are those of its tables 1 and 2, under its names. Expected: resnet20 69.1 % alone and 70.7 % with KD; about a
day of a CPU core each. Deviation: validation is taken from train.
COMMAND: python -m experiments.run --config=experiments/configs/distilled_cifar100.py:resnet20,resnet56
  --config.distill.config=distilled_cifar100.py:resnet56 --config.distill.weight=0.9 --workdir=runs/resnet20
"""
from experiments import configuration, distillation_methods
from experiments.distillation_methods import Taps

# A name of the paper's tables -> the network here, its arguments, where it is tapped.
STAGES_2_TO_4 = Taps('stage4', 'stage3', 'stage[234]', 'stage[23]', 'stage[3]')
VGG = Taps('stage5', 'stage3', 'stage[12345]', 'stage[12]', 'stage[3]')
NETWORKS = {
  **{name: (name, {'shortcut': 'projection'}, Taps())
     for name in ('resnet20', 'resnet32', 'resnet56', 'resnet110')},
  **{name: (name, {}, Taps()) for name in ('resnet8x4', 'resnet32x4')},
  **{f'wrn-{depth}-{width}': (f'wrn_{depth}_{width}', {}, Taps()) for depth, width in ((16, 2), (40, 1), (40, 2))},
  **{name: (f'{name}_cifar', {}, VGG) for name in ('vgg8', 'vgg13')},
  'ResNet50': ('resnet50', {'stem': 'cifar'}, Taps('stage4', 'stage3', 'stage[1234]', 'stage[12]', 'stage[3]')),
  'MobileNetV2': ('mobile_half', {}, Taps('head', 'stage4', 'stage[2345]', 'stage[23]', 'stage[4]')),
  'ShuffleNetV1': ('shufflenet_v1_cifar', {}, STAGES_2_TO_4),
  'ShuffleNetV2': ('shufflenet_v2_x1_0', {'stem': 'cifar'}, STAGES_2_TO_4),
}


def get_config(arg: str = 'resnet20'):
  """The config of 'network', alone or as a teacher, or of 'student,teacher'; see experiments/configuration.py."""
  student, _, teacher = arg.partition(',')
  name, arguments, taps = NETWORKS[student]
  config = configuration.default()
  config.model.update(name=name, **arguments)
  config.data.update(name='cifar100', augment=('crop', 'flip'))
  config.batch_size, config.epochs = 64, 240
  peak = 0.01 if student in ('MobileNetV2', 'ShuffleNetV1', 'ShuffleNetV2') else 0.05
  config.learning_rate = dict(schedule='steps', peak=peak, warmup_epochs=0.0, at=(0.625, 0.75, 0.875), factor=0.1)
  config.weight_decay = 5e-4
  config.distill.update(weight=0.0)
  config.distill.update(distillation_methods.terms(taps, NETWORKS[teacher][2] if teacher else None))
  return config
