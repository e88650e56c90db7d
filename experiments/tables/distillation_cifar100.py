"""CIFAR-100: thirteen pairs of networks and the losses of the distillation papers, beside CRD's and DKD's tables.

Tian et al. 2020, arXiv:1910.10699, tables 1 and 2 (RepDistiller), and Zhao et al. 2022, arXiv:2203.08679, tables 6 and
7. Networks of two families share no shape of features, so that only the losses stand there that need none. The runs are
complete and not trained here: 240 epochs each.
"""
from experiments.distillation_methods import PAPERS
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'distilled_cifar100.py:resnet20', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'teacher/test/accuracy', 'params', 'bytes', 'seconds')

ALIKE = (
  ('resnet56', 'resnet20'), ('resnet110', 'resnet20'), ('resnet110', 'resnet32'), ('resnet32x4', 'resnet8x4'),
  ('wrn-40-2', 'wrn-16-2'), ('wrn-40-2', 'wrn-40-1'), ('vgg13', 'vgg8'))
UNLIKE = (
  ('vgg13', 'MobileNetV2'), ('ResNet50', 'MobileNetV2'), ('ResNet50', 'vgg8'), ('resnet32x4', 'ShuffleNetV1'),
  ('resnet32x4', 'ShuffleNetV2'), ('wrn-40-2', 'ShuffleNetV1'))
# RKD is both of its parts.
OF_ANY_SHAPE = {'KD': (), 'RKD': ('distance', 'angle')} | {
  PAPERS[term]: (term,) for term in ('similarity', 'pkt', 'contrastive', 'decoupled')}
OF_EQUAL_SHAPE = {
  PAPERS[term]: (term,) for term in ('hints', 'attention', 'correlation', 'variational', 'fsp', 'nst', 'review')}
PAIRS = {**dict.fromkeys(ALIKE, OF_ANY_SHAPE | OF_EQUAL_SHAPE), **dict.fromkeys(UNLIKE, OF_ANY_SHAPE)}

NOT_IN_DKD = {('resnet110', 'resnet20'), ('ResNet50', 'vgg8')}

PUBLISHED = [
  figure.labelled(pair=f'{teacher} to {student}', method=figure.columns['method'])
  for (teacher, student), methods in PAIRS.items()
  for paper, theirs in (
    ('CRD (Tian 2020) / RepDistiller', {'Teacher', 'Student', *methods}),
    ('DKD (Zhao 2022)', {'DKD', 'ReviewKD'} & set(methods)))
  if paper.startswith('CRD') or (teacher, student) not in NOT_IN_DKD
  for figure in published('kd', paper=paper, dataset='CIFAR-100', teacher=teacher, student=student)
  if figure.columns['method'] in theirs]


def cells():
  """Teacher and student alone, then the student with each method."""
  for (teacher, student), methods in PAIRS.items():
    pair = f'{teacher} to {student}'
    yield {'pair': pair, 'method': 'Teacher'}, {}, {'base': f'distilled_cifar100.py:{teacher}', 'run': False}
    yield {'pair': pair, 'method': 'Student'}, {}, {'base': f'distilled_cifar100.py:{student}', 'run': False}
    for method, terms in methods.items():
      yield {'pair': pair, 'method': method}, {
        'distill.config': f'distilled_cifar100.py:{teacher}', 'distill.terms': terms,
        'distill.weight': 0.0 if terms else 0.9}, {
          'base': f'distilled_cifar100.py:{student},{teacher}', 'run': False}
