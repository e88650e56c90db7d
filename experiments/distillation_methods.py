"""The terms of the distillation papers as fields of `config.distill`.

Weights are RepDistiller's and mdistiller's for CIFAR-100, carried over where a loss here averages as theirs does.
"""
from __future__ import annotations

from typing import Any, NamedTuple


class Taps(NamedTuple):
  """Modules of a network by path rules, for networks with stage1 to stage3.

  Attributes:
    last: the features before the classifier.
    middle: what a hint is about.
    stages: all stages.
    early: two stages, whose flow FSP compares.
    exits: where self-distillation attaches classifiers.
  """

  last: str = 'stage3'
  middle: str = 'stage2'
  stages: str = 'stage[123]'
  early: str = 'stage[12]'
  exits: str = 'stage[2]'


THREE_STAGES = Taps()


def terms(student: Taps = THREE_STAGES, teacher: Taps | None = None) -> dict[str, dict[str, Any]]:
  """The terms by name, each as the fields of one in `config.distill`.

  Args:
    student: where the student is tapped.
    teacher: where the teacher is; None: at the modules of the same names.
  Returns:
    Name of the term -> its fields.
  """
  teacher = teacher or student

  def at(where: str, loss: str, weight: float, learner: str = 'none', **hyper: Any) -> dict[str, Any]:
    taps = (getattr(network, where) if where else '' for network in (student, teacher))
    return dict(zip(('student', 'teacher'), taps, strict=True)) | dict(
      loss=loss, weight=weight, learner=learner, of='teacher', hyper=hyper)

  return {
    'decoupled': at('', 'decoupled', 1.0, temperature=4.0, others=8.0),
    'dist': at('', 'dist', 2.0),
    'standardized': at('', 'standardized', 9.0),
    'virtual_teacher': {**at('', 'virtual_teacher', 1.0), 'of': 'self'},
    'hints': at('middle', 'hints', 100.0, 'linear'),
    'attention': at('last', 'attention', 1000.0),
    'similarity': at('last', 'similarity', 3000.0),
    'distance': at('last', 'distance', 25.0),
    'angle': at('last', 'angle', 50.0),
    'pkt': at('last', 'pkt', 500.0),
    'correlation': at('last', 'correlation', 100.0),
    'nst': at('last', 'nst', 50.0),
    'variational': at('last', 'variational', 1.0, 'variances'),
    'contrastive': at('last', 'contrastive', 0.8, 'memory', dim=64, negatives=256),
    'review': at('stages', 'review', 1.0, 'fusion', channels=16),
    'fsp': at('early', 'fsp', 50.0, 'linear'),
    'depth': {**at('exits', 'soft_and_hard', 1.0, 'classifier', temperature=3.0, soft=0.5), 'of': 'self',
              'teacher': ''},
    'mutual': {**at('', 'mutual', 1.0, 'peer'), 'of': 'self'},
  }


# Terms that need no teacher.
ALONE = ('virtual_teacher', 'depth', 'mutual')

# What the papers call them.
PAPERS = {
  'decoupled': 'DKD', 'dist': 'DIST', 'standardized': 'logit standardization', 'virtual_teacher': 'Tf-KD',
  'hints': 'FitNet', 'attention': 'AT', 'similarity': 'SP', 'distance': 'RKD distance', 'angle': 'RKD angle',
  'pkt': 'PKT', 'correlation': 'CC', 'nst': 'NST', 'variational': 'VID', 'contrastive': 'CRD', 'review': 'ReviewKD',
  'fsp': 'FSP', 'depth': 'self-distillation through depth', 'mutual': 'deep mutual learning',
}
