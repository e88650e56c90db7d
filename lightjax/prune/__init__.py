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

Channels are chosen from pieces as well (an importance, a reduction over the members of a group, a normalizer, a cost)
and really removed: surgery makes the variables smaller and runs the same program on them.

  scores = channel_scores.scores(graph, variables, importance.l1, reduce=reductions.mean, normalize=normalizers.by_mean)
  kept = selection.choose(graph, scores, costs.macs(graph, apply, variables, x), ratio=0.5, multiple=8)
  smaller = surgery.remove(apply, graph, variables, kept)
"""
from lightjax.prune import (
  budgets,
  calibration,
  channel_masks,
  channel_scores,
  costs,
  criteria,
  importance,
  normalizers,
  patterns,
  post_training,
  reductions,
  regularizers,
  selection,
  statistics,
  surgery,
)
from lightjax.prune.transforms import Growth, prune

__all__ = [
  'Growth', 'budgets', 'calibration', 'channel_masks', 'channel_scores', 'costs', 'criteria', 'importance',
  'normalizers', 'patterns', 'post_training', 'prune', 'reductions', 'regularizers', 'selection', 'statistics',
  'surgery',
]
