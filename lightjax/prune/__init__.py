"""Pruning from orthogonal pieces: a criterion, a pattern, a budget, a schedule, and what grows again.

  gradual magnitude   prune(criteria.magnitude, patterns.unstructured, budgets.uniform, schedules.cubic(...), every=100)
  SNIP                prune(criteria.snip, patterns.unstructured, budgets.global_, schedules.constant(0.9), every=1)
  SynFlow             the same with criteria.synflow, rounds=100
  static random       prune(criteria.random, patterns.unstructured, budgets.erk, schedules.constant(0.9), every=1)
  SET                 prune(criteria.magnitude, ..., schedules.periodic(0.9, begin=0, end=end), every=100,
                        first=criteria.random, growth=Growth(criteria.random, 0.3, end))
  RigL                the same with Growth(criteria.gradient_magnitude, 0.3, end)
  straight-through    prune(criteria.magnitude, ..., schedules.periodic(0.9, ...), every=1, straight_through=True)
  AC/DC               prune(criteria.magnitude, ..., schedules.alternating(0.9, begin, end, every=500), every=500)

`surgery` really removes channels: smaller variables, and the same program run on them.
"""
from lightjax.prune import budgets, calibration, criteria, patterns, post_training, surgery
from lightjax.prune.transforms import Growth, prune

__all__ = ['Growth', 'budgets', 'calibration', 'criteria', 'patterns', 'post_training', 'prune', 'surgery']
