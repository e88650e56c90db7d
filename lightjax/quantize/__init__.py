"""Quantization from orthogonal pieces: a format, where the scale comes from, what shares one, exact estimators.

  int8 weights        weights(bits=8)                                    a scale a channel, from the largest weight
  per tensor          weights(bits=8, granularity=granularities.tensor)
  groups of inputs    weights(bits=4, granularity=granularities.group(64), scale=scales.mse)
  8-bit floats        weights(bits=8, format=formats.e4m3)
  LSQ                 chain(weights(bits=4, scale=scales.lsq), activations(bits=4, scale=scales.lsq))
  LSQ+, PACT          activations(bits=4, scale=scales.lsq_plus), activations(bits=4, scale=scales.pact)
  DoReFa, WRPN        chain(low_bit.dorefa_weights(bits=2), low_bit.unit_activations(bits=2)), ...
  folded BatchNorm    folded(weights(bits=8), freeze=steps)

A trained network is quantized without labels, as a program of operations that integers can carry out:

  network = lowering.lower(apply, variables, images)                   BatchNorm and clips folded into layers
  network = equalization.equalize(network)                             cross-layer equalization; absorb
  quantized = simulation.quantize(network, simulation.calibrate(network, *batches), weight_bits=8)
  quantized = rounding.adaround(network, quantized, images, key=key)   AdaRound
  quantized = bias.correct(network, quantized, images)                 bias correction
  report.by_layer(network, quantized, images)                          what each layer suffers; report.sensitivity
  integer.convert(quantized).apply(images)                             int8 codes, int32 sums, integer rescaling
  artifact.save(path, network=spec, **storage.stored(quantized))       and storage.restored
"""
from lightjax.quantize import (
  bias,
  equalization,
  fixed_point,
  folding,
  formats,
  granularities,
  integer,
  learned,
  low_bit,
  lowering,
  program,
  quantizers,
  ranges,
  report,
  rounding,
  scales,
  simulation,
  storage,
)
from lightjax.quantize.activations import activations, frozen_interceptor
from lightjax.quantize.folded import folded
from lightjax.quantize.transforms import weights

__all__ = [
  'activations', 'bias', 'equalization', 'fixed_point', 'folded', 'folding', 'formats', 'frozen_interceptor',
  'granularities', 'integer', 'learned', 'low_bit', 'lowering', 'program', 'quantizers', 'ranges', 'report', 'rounding',
  'scales', 'simulation', 'storage', 'weights',
]
