"""Quantization: weights as views, activations by interception, exact straight-through estimators."""
from lightjax.quantize import quantizers, ranges
from lightjax.quantize.activations import activations, frozen_interceptor
from lightjax.quantize.transforms import weights

__all__ = ['activations', 'frozen_interceptor', 'quantizers', 'ranges', 'weights']
