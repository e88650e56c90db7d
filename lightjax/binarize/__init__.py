"""Binarization: weights of two or three levels as views, binary activations by interception, packed inference."""
from lightjax.binarize import binarizers, estimators, packed
from lightjax.binarize.activations import activations, binary_modules, frozen_interceptor
from lightjax.binarize.bop import bop
from lightjax.binarize.transforms import trained_ternary, weights

__all__ = [
  'activations', 'binarizers', 'binary_modules', 'bop', 'estimators', 'frozen_interceptor', 'packed',
  'trained_ternary', 'weights',
]
