"""Distillation losses, one signature: (student, teacher, **hyper) -> loss [b].

They compute in float32, give the teacher no gradient and are averaged over the batch by the caller. `logits` compare
outputs, `features` what modules give, `relations` how the examples of a batch lie to each other. A weight multiplies
the mean over the batch; what a loss sums or averages within an example is in its docstring. A keyword `labels` is the
batch's; other arrays among the keywords are learned or kept, see `distill.learners`.
"""
from lightjax.distill.losses.features import attention, fsp, hints, nst, review, variational
from lightjax.distill.losses.logits import (
  decoupled,
  dist,
  mutual,
  soft_and_hard,
  standardized,
  temperature,
  virtual_teacher,
)
from lightjax.distill.losses.relations import angle, contrastive, correlation, distance, pkt, similarity

__all__ = [
  'angle', 'attention', 'contrastive', 'correlation', 'decoupled', 'dist', 'distance', 'fsp', 'hints', 'mutual', 'nst',
  'pkt', 'review', 'similarity', 'soft_and_hard', 'standardized', 'temperature', 'variational', 'virtual_teacher',
]
