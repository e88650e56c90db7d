"""Distillation: losses of a student against its teacher, taps of features, and what such terms train beside it."""
from lightjax.distill import learners, losses, taps, terms

__all__ = ['learners', 'losses', 'taps', 'terms']
