"""Pruning from four orthogonal pieces (criterion, pattern, budget, schedule), and surgery that removes channels."""
from lightjax.prune import budgets, criteria, patterns, surgery
from lightjax.prune.transforms import prune

__all__ = ['budgets', 'criteria', 'patterns', 'prune', 'surgery']
