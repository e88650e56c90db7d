"""The terms of the distillation papers as fields of `config.distill`, for networks with modules stage1 to stage3.

Weights are RepDistiller's and mdistiller's for CIFAR-100, carried over where a loss here averages as theirs does.
"""
from __future__ import annotations

from typing import Any

LAST, MIDDLE, STAGES = 'stage3', 'stage2', 'stage[123]'


def _at(tap: str, loss: str, weight: float, learner: str = 'none', **hyper: Any) -> dict[str, Any]:
  return dict(loss=loss, weight=weight, student=tap, teacher=tap, learner=learner, of='teacher', hyper=hyper)


TERMS: dict[str, dict[str, Any]] = {
  'decoupled': _at('', 'decoupled', 1.0, temperature=4.0, others=8.0),
  'dist': _at('', 'dist', 2.0),
  'standardized': _at('', 'standardized', 9.0),
  'virtual_teacher': {**_at('', 'virtual_teacher', 1.0), 'of': 'self'},
  'hints': _at(MIDDLE, 'hints', 100.0, 'linear'),
  'attention': _at(LAST, 'attention', 1000.0),
  'similarity': _at(LAST, 'similarity', 3000.0),
  'distance': _at(LAST, 'distance', 25.0),
  'angle': _at(LAST, 'angle', 50.0),
  'pkt': _at(LAST, 'pkt', 500.0),
  'correlation': _at(LAST, 'correlation', 100.0),
  'nst': _at(LAST, 'nst', 50.0),
  'variational': _at(LAST, 'variational', 1.0, 'variances'),
  'contrastive': _at(LAST, 'contrastive', 0.8, 'memory', dim=64, negatives=256),
  'review': _at(STAGES, 'review', 1.0, 'fusion', channels=16),
  'fsp': _at('stage[12]', 'fsp', 50.0, 'linear'),
  'depth': {**_at('stage[2]', 'soft_and_hard', 1.0, 'classifier', temperature=3.0, soft=0.5), 'of': 'self',
            'teacher': ''},
  'mutual': {**_at('', 'mutual', 1.0, 'peer'), 'of': 'self'},
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
