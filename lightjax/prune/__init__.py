"""Pruning from four orthogonal pieces: a criterion, a pattern, a budget and a schedule."""
from lightjax.prune import budgets, criteria, patterns
from lightjax.prune.transforms import prune

__all__ = ['budgets', 'criteria', 'patterns', 'prune']
