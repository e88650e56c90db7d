"""Which of our networks a reference implementation or a published figure is of, and why figures differ, as data.

Names of implementations are those of published/reference_counts.csv, published figures are the rows of
published/zoo.csv. A rule that is never needed is an error of `experiments.zoo`, and so is a figure that no rule speaks
of.
"""
from __future__ import annotations

from typing import NamedTuple


class Same(NamedTuple):
  """What is a network of ours.

  Attributes:
    pattern: regular expression for all of a name.
    network: name in lightjax.models, a template of `re.Match.expand`.
    arguments: of its constructor, 'name=value' separated by spaces, likewise.
  """
  pattern: str
  network: str
  arguments: str = ''


class Absent(NamedTuple):
  """What is none: the pattern of its name, and why."""
  pattern: str
  reason: str


class Deviation(NamedTuple):
  """Why a figure is another than ours.

  Attributes:
    figure: 'params' or 'MACs'.
    pattern: regular expression for all of the name that the figure has, as above.
    reason: completes 'ours differs because ...'.
  """
  figure: str
  pattern: str
  reason: str


IMPLEMENTATIONS = (
  Same(r'torchvision\.models\.(\w+)\(aux_logits=(\w+)\)', r'\1', r'aux_logits=\2'),
  Same(r'torchvision\.models\.(?!vit)(\w+)', r'\1'),
  Same(r'timm\.(\w+) \(reparameterized\)', r'\1', 'deployed=True'),
  Same(r'timm\.((?:resnet|densenet)\d+|inception_v3|semnasnet_\d+|mnasnet_small|ghostnet_\d+|regnet[xy]_\d+|'
       r'mobileone_s\d|repvgg_\w\d|convnext_\w+|fbnetc_100)', r'\1'),
  Same(r'timm\.legacy_xception', 'xception'),
  Same(r'timm\.mobilenetv1_100', 'mobilenetv1_100'),
  Same(r'timm\.mobilenetv1_125', 'mobilenetv1_100', 'width=1.25'),
  Same(r'timm\.mobilenetv2_(\d)(\d\d)', 'mobilenet_v2', r'width=\1.\2'),
  Same(r'timm\.mobilenetv2_110d', 'mobilenet_v2', 'width=1.1 depth=1.2 fixed_ends=True'),
  Same(r'timm\.mobilenetv2_120d', 'mobilenet_v2', 'width=1.2 depth=1.4 fixed_ends=True'),
  Same(r'timm\.mobilenetv3_small_050', 'mobilenet_v3_small', 'width=0.5 fixed_stem=True'),
  Same(r'timm\.(?:tf_)?mobilenetv3_(large|small)_minimal_100', r'mobilenet_v3_\1', 'minimalistic=True'),
  Same(r'timm\.(?:tf_)?mobilenetv3_(large|small)_(\d)(\d\d)', r'mobilenet_v3_\1', r'width=\2.\3'),
  Same(r'timm\.mnasnet_(\d)(\d\d)', 'mnasnet1_0', r'width=\1.\2'),
  Same(r'timm\.(?:tf_)?(efficientnet_(?:b|lite)\d)', r'\1'),
  Same(r'keras\.applications\.MobileNet\(alpha=(.*)\)', 'mobilenetv1_100', r'width=\1'),
  Same(r'keras\.applications\.MobileNetV2\(alpha=(.*)\)', 'mobilenet_v2', r'width=\1'),
  Same(r'keras\.applications\.MobileNetV3Large\(alpha=(.*),minimalistic=(.*)\)', 'mobilenet_v3_large',
       r'width=\1 minimalistic=\2'),
  Same(r'keras\.applications\.MobileNetV3Small\(alpha=(.*),minimalistic=(.*)\)', 'mobilenet_v3_small',
       r'width=\1 minimalistic=\2'),
  Same(r'keras\.applications\.ResNet(50|101|152)', r'resnet\1', 'variant=v1'),
  Same(r'keras\.applications\.DenseNet(\d+)', r'densenet\1'),
  Same(r'keras\.applications\.EfficientNetB(\d)', r'efficientnet_b\1'),
  Same(r'keras\.applications\.ConvNeXtTiny', 'convnext_tiny'),
  Same(r'keras\.applications\.Xception', 'xception'),
  Same(r'keras\.applications\.InceptionV3', 'inception_v3'),
  Same(r'own: LeNet-300-100 .*', 'lenet300'),
  Same(r'own: LeNet-5 Caffe .*', 'lenet5'),
  Same(r'own: LeNet-5 classic-like .*', 'lenet5_classic'),
  Same(r'own: Hinton MNIST net 784-(\d+)-(\d+)-10', 'lenet300', r'hidden=(\1,\2)'),
  Same(r'own: (?:BinaryConnect|BNN) MNIST MLP 3x(\d+)', 'binary_mlp', r'width=\1'),
  Same(r'own: BinaryConnect/BNN CIFAR-10 convnet', 'vgg_small'),
  Same(r'own: Caffe AlexNet .*', 'alexnet_caffe'),
  Same(r'own: LTH Conv-(\d).*', r'conv\1'),
  Same(r'own: MobileNetV1 alpha=(.*)', 'mobilenetv1_100', r'width=\1'),
  Same(r'own: CIFAR ResNet-(\d+) option B .*', r'resnet\1', 'shortcut=projection'),
  Same(r'own: PreActResNet-(\d+) CIFAR-10 .*', r'preact_resnet\1'),
  Same(r'own: PreActResNet-(\d+) CIFAR-100', r'preact_resnet\1', 'classes=100'),
  Same(r'own: DenseNet L=(\d+) k=(\d+) CIFAR-(\d+)', r'densenet\1', r'growth=\2 classes=\3'),
  Same(r'own: DenseNet-BC L=(\d+) k=(\d+) CIFAR-(\d+)', r'densenet_bc_\1', r'growth=\2 classes=\3'),
  Same(r'own: ShuffleNetV1 (.*)x g=(\d) .*', 'shufflenet_v1', r'groups=\2 width=\1'),
  Same(r'megvii-model/ShuffleNet-Series ShuffleNetV1 (.*)x g=(\d)', 'shufflenet_v1',
       r'groups=\2 width=\1 variant=megvii'),
  Same(r'akamaster/pytorch_resnet_cifar10 resnet(\d+) \(option A\)', r'resnet\1'),
  Same(r'HobbitLong/RepDistiller ResNet50 \(CIFAR-100\)', 'resnet50', 'stem=cifar classes=100'),
  Same(r'HobbitLong/RepDistiller (resnet\d+) \(CIFAR-100\)', r'\1', 'shortcut=projection classes=100'),
  Same(r'HobbitLong/RepDistiller (resnet\d+x4) \(CIFAR-100\)', r'\1', 'classes=100'),
  Same(r'HobbitLong/RepDistiller (wrn_\d+_\d+) \((?:CIFAR-)?(\d+)(?: classes)?\)', r'\1', r'classes=\2'),
  Same(r'HobbitLong/RepDistiller (vgg\d+) \(CIFAR-100\)', r'\1_cifar', 'classes=100'),
  Same(r'HobbitLong/RepDistiller MobileNetV2 \(CIFAR-100\)', 'mobile_half'),
  Same(r'HobbitLong/RepDistiller ShuffleV1 \(CIFAR-100\)', 'shufflenet_v1_cifar'),
  Same(r'HobbitLong/RepDistiller ShuffleV2 \(CIFAR-100\)', 'shufflenet_v2_x1_0', 'stem=cifar classes=100'),
  Same(r'Eric-mingjie/rethinking l1-norm vgg16 \(CIFAR-10\)', 'vgg16_cifar', 'pools=4 use_bias=False hidden=512'),
  Same(r'Eric-mingjie/rethinking l1-norm resnet(\d+) \(CIFAR-10\)', r'resnet\1'),
  Same(r'Eric-mingjie/rethinking network-slimming vgg19 \(cifar(\d+)\)', 'vgg19_cifar',
       r'pools=4 use_bias=False classes=\1'),
  Same(r'Eric-mingjie/rethinking network-slimming densenet40 \(CIFAR-10\)', 'densenet40', 'stem_features=24'),
  Same(r'Eric-mingjie/rethinking network-slimming preresnet164 \(CIFAR-10\)', 'preact_resnet164'),
)

# Of zoo.csv, by 'family: architecture variant', where the reference implementation of the row does not say it.
PUBLISHED = (
  Same(r'MobileNetV1: MobileNetV1 shallow .*', 'mobilenetv1_100',
       'stages=((64,1,1),(128,2,2),(256,2,2),(512,1,2),(1024,2,2))'),
  Same(r'MnasNet-A1 \(TPU README\): MnasNet-A1 (.*)', 'semnasnet_100', r'width=\1'),
  Same(r'ShuffleNetV1: ShuffleNetV1 (.*)x g=(\d)(?: \(Table 5\))?', 'shufflenet_v1', r'groups=\2 width=\1'),
)

ABSENT = (
  Absent(r'timm\.resnet18d', 'the variants of ResNet with other stems are not built'),
  Absent(r'timm\.(?:fbnetv3_b|spnasnet_100|hardcorenas_a|nasnetalarge|mixnet_\w|tinynet_\w|lcnet_\d+|mobilevit_\w+)|'
         r'keras\.applications\.NASNetMobile|(?:NASNet|ProxylessNAS|SPNASNet|MixNet|MobileViT): .*',
         'the family is not built'),
  Absent(r'timm\.(?:deit|vit)_.*|torchvision\.models\.vit_.*|DeiT: .*', 'transformers are not built'),
  Absent(r'keras\.applications\.ResNet50V2|ResNet: ResNet-50 v2 preact',
         'pre-activation is built for CIFAR only'),
  Absent(r'MobileNetV1: MobileNetV1 \(full conv\) .*', 'a comparison with dense convolutions, no MobileNet'),
  Absent(r'MobileNetV3: MobileNetV3-\w+ 8-bit', 'the row has accuracies alone'),
  Absent(r'ShuffleNetV1: ShuffleNetV1 (?:0\.5x g=[248](?: \(Table 5\))?|0\.25x g=[248])',
         'the scaled channels are no multiple of the groups, and the paper does not say how it rounds'),
  Absent(r'ShuffleNetV1: .* (?:\+SE|shallow) .*', 'a variant of one comparison'),
  Absent(r'MnasNet: MnasNet-A[23]|MnasNet: MnasNet-search1', 'its table is not published with the reference code'),
  Absent(r'FBNet: FBNet-[AB]', 'no reference implementation to be equal to; C is built'),
)

# No implementation that is known counts what was printed, and it is not known what was.
UNEXPLAINED = 'not explained: the implementations count what ours has'
MORE_THAN_MACS = 'the table counts a little more than multiply-adds of convolutions and dense layers, at every size'
BIASES = 'its convolutions have biases'
SELECTORS = 'its channel selectors, one number a channel, are parameters, too'
STRIDES = "the paper's stride is on the first 1x1 convolution: see variant=v1"
NO_NORMS = 'scales and biases of BatchNorm are left out there'
EARLY = 'of an early version of the network, with another head'
NO_RULE = 'the paper does not say how it rounds the scaled channels'

DEVIATIONS = (
  Deviation('params', r'keras\.applications\.ResNet\d+', BIASES),
  Deviation('params', r'keras\.applications\.InceptionV3', 'its norms have no scales'),
  Deviation('params', r'Eric-mingjie/rethinking network-slimming (?:densenet40|preresnet164) .*', SELECTORS),
  Deviation('MACs', r'VGG: VGG-16 D .*', 'the convolutions alone have 15.3 G'),
  Deviation('MACs', r'ResNet: ResNet-(?:50|101|152) 224', STRIDES),
  Deviation('MACs', r'ResNet-CIFAR: ResNet-56 option A 32', 'that of the network with projection shortcuts'),
  Deviation('params', r'PreActResNet: PreActResNet-1001 .*', UNEXPLAINED),
  Deviation('params', r'DenseNet: DenseNet-169 .*', UNEXPLAINED),
  Deviation('params', r'Inception: GoogLeNet .*', 'BatchNorm, and 3x3 windows for 5x5, as in torchvision'),
  Deviation('MACs', r'Inception: GoogLeNet .*', 'BatchNorm, and 3x3 windows for 5x5, as in torchvision'),
  Deviation('params', r'Inception: Inception-v3 Keras .*', 'Keras, which it is of, counts 23,817,352 now'),
  Deviation('MACs', r'SqueezeNet: SqueezeNet 1\.0 .*', UNEXPLAINED),
  Deviation('params', r'MobileNetV1: MobileNetV1 alpha=0\.5 160', 'another table of the paper prints 1.3 M'),
  Deviation('params', r'MobileNetV1 \(slim 2018_02_22\): .*', UNEXPLAINED),
  Deviation('MACs', r'MobileNetV1 \(slim 2018_02_22\): MobileNetV1 alpha=0\.75 .*',
            'the paper prints 325 M at 224, as ours has'),
  Deviation('MACs', r'MobileNetV1 \(slim 2018_02_22\): MobileNetV1 alpha=0\.5 224', 'the paper prints 149 M'),
  Deviation('MACs', r'MobileNetV1 \(slim 2018_02_22\): MobileNetV1 alpha=0\.25 192',
            'a misprint, it seems: at the other sizes the table has what ours has'),
  Deviation('params', r'MobileNetV2 \(slim\): .*', NO_NORMS),
  Deviation('params', r'MobileNetV2: MobileNetV2 1\.0 224',
            "no implementation has so few; the authors' later table prints 3.47 M, without BatchNorm"),
  Deviation('params', r'MobileNetV2: MobileNetV2 1\.4 224',
            "no implementation has so many; the authors' later table prints 6.06 M, without BatchNorm"),
  Deviation('MACs', r'MobileNetV2: MobileNetV2 1\.4 224', "the authors' later table prints 582 M, as ours has"),
  Deviation('MACs', r'MobileNetV3: MobileNetV3-Large 1\.0 224', "the authors' later table prints 217 M, as ours has"),
  Deviation('params', r'MobileNetV3 \(slim\): MobileNetV3-Small (?:1\.0|0\.75) 224', EARLY),
  Deviation('MACs', r'MobileNetV3 \(slim\): MobileNetV3-Small (?:1\.0|minimalistic) 224', EARLY),
  Deviation('MACs', r'MobileNetV3(?: \(slim\))?: MobileNetV3-Small 0\.75 224', UNEXPLAINED),
  Deviation('MACs', r'ShuffleNetV1: ShuffleNetV1 0\.25x .*', NO_RULE),
  Deviation('MACs', r'ShuffleNetV1: ShuffleNetV1 1x g=4 224', UNEXPLAINED),
  Deviation('MACs', r'ShuffleNetV1: ShuffleNetV1 1x g=8 .*', 'the paper prints 137 M and 140 M for the same network'),
  Deviation('MACs', r'ShuffleNetV1: ShuffleNetV1 1\.5x g=3 .*',
            'that of a stem of 24 channels, which is not scaled: see variant=megvii'),
  Deviation('MACs', r'ShuffleNetV1 \(Megvii\): ShuffleNetV1 1\.0x g=3 .*', 'the paper prints 137 M, as ours has'),
  Deviation('MACs', r'ShuffleNetV2: .*', MORE_THAN_MACS),
  Deviation('MACs', r'MnasNet-A1 \(TPU README\): .*', MORE_THAN_MACS),
  Deviation('MACs', r'MnasNet: MnasNet-B1 1\.0 .*', UNEXPLAINED),
  Deviation('params', r'EfficientNet: EfficientNet-B2 .*', UNEXPLAINED),
  Deviation('MACs', r'EfficientNet: .*', UNEXPLAINED),
  Deviation('MACs', r'EfficientNet-Lite: .*', MORE_THAN_MACS),
  Deviation('MACs', r'GhostNet: GhostNet 1\.3x .*', UNEXPLAINED),
  Deviation('MACs', r'RegNet: .*', 'printed as billions with one digit'),
  Deviation('MACs', r'MobileOne: .*', UNEXPLAINED),
  Deviation('MACs', r'ConvNeXt: ConvNeXt-Atto .*', 'printed as billions with two digits'),
  Deviation('MACs', r'FBNet: FBNet-C .*', UNEXPLAINED),
  Deviation('params', r'Pruning-CIFAR: DenseNet-40 .*', 'that of the network with 16 channels in the stem'),
  Deviation('MACs', r'Pruning-CIFAR: DenseNet-40 .*',
            'half of the printed FLOPs; neither 16 nor 24 channels in the stem have it'),
  Deviation('MACs', r'Pruning-CIFAR: PreResNet-164 .*', 'half of the printed FLOPs, in which more is counted'),
  Deviation('params', r'LTH: LTH Conv-6 .*', 'the layers that the paper states have what ours has'),
)
