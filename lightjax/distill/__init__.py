"""Distillation: losses of a student against its teacher."""
from lightjax.distill import losses

__all__ = ['losses']
