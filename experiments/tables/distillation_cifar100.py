"""CIFAR-100: three pairs of networks and the losses of the distillation papers, beside CRD's and DKD's tables.

Tian et al. 2020, arXiv:1910.10699, table 1 (RepDistiller), and Zhao et al. 2022, arXiv:2203.08679, table 6. The runs
are complete and not trained here: 240 epochs each.
"""
from experiments.distillation_methods import PAPERS
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'distilled_cifar100.py:resnet20', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'teacher/test/accuracy', 'params', 'bytes', 'seconds')

PAIRS = (('resnet56', 'resnet20'), ('resnet110', 'resnet32'), ('resnet32x4', 'resnet8x4'))
# RKD is both of its parts.
METHODS = {'KD': (), 'RKD': ('distance', 'angle')} | {
  PAPERS[term]: (term,) for term in (
    'hints', 'attention', 'similarity', 'correlation', 'variational', 'pkt', 'fsp', 'nst', 'contrastive', 'review',
    'decoupled')}

PUBLISHED = [
  figure.labelled(pair=f'{teacher} to {student}', method=figure.columns['method'])
  for teacher, student in PAIRS
  for paper, methods in (
    ('CRD (Tian 2020) / RepDistiller', {'Teacher', 'Student', *METHODS}), ('DKD (Zhao 2022)', {'DKD', 'ReviewKD'}))
  for figure in published('kd', paper=paper, dataset='CIFAR-100', teacher=teacher, student=student)
  if figure.columns['method'] in methods]


def cells():
  """Teacher and student alone, then the student with each method."""
  for teacher, student in PAIRS:
    pair = f'{teacher} to {student}'
    yield {'pair': pair, 'method': 'Teacher'}, {}, {'base': f'distilled_cifar100.py:{teacher}', 'run': False}
    yield {'pair': pair, 'method': 'Student'}, {}, {'base': f'distilled_cifar100.py:{student}', 'run': False}
    for method, terms in METHODS.items():
      yield {'pair': pair, 'method': method}, {
        'distill.config': f'distilled_cifar100.py:{teacher}', 'distill.terms': terms,
        'distill.weight': 0.0 if terms else 0.9}, {'base': f'distilled_cifar100.py:{student}', 'run': False}
