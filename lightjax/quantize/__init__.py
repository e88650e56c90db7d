"""Quantization from orthogonal pieces: a format, where the scale comes from, what shares one, exact estimators.

  int8 weights        weights(bits=8)                                    a scale a channel, from the largest weight
  per tensor          weights(bits=8, granularity=granularities.tensor)
  groups of inputs    weights(bits=4, granularity=granularities.group(64), scale=scales.mse)
  8-bit floats        weights(bits=8, format=formats.e4m3)
  LSQ                 chain(weights(bits=4, scale=scales.lsq), activations(bits=4, scale=scales.lsq))
  LSQ+, PACT          activations(bits=4, scale=scales.lsq_plus), activations(bits=4, scale=scales.pact)
  DoReFa, WRPN        chain(low_bit.dorefa_weights(bits=2), low_bit.unit_activations(bits=2)), ...
  folded BatchNorm    folded(weights(bits=8), freeze=steps)
"""
from lightjax.quantize import formats, granularities, learned, low_bit, quantizers, ranges, scales
from lightjax.quantize.activations import activations, frozen_interceptor
from lightjax.quantize.folded import folded
from lightjax.quantize.transforms import weights

__all__ = [
  'activations', 'folded', 'formats', 'frozen_interceptor', 'granularities', 'learned', 'low_bit', 'quantizers',
  'ranges', 'scales', 'weights',
]
