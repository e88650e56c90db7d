"""Binarization: weights of two or three levels as views, binary activations by interception, packed inference.

  BinaryConnect          weights(binarizers.binary_connect, clip=1.0)
  BNN                    chain(weights(binarizers.bnn, clip=1.0), activations(estimators.hard_tanh))
  XNOR-Net               chain(weights(binarizers.xnor, clip=1.0), activations(estimators.hard_tanh, scaled=True))
  DoReFa, one bit        chain(weights(binarizers.dorefa, clip=None), activations(estimators.unit))
  Bi-Real Net, ReActNet  chain(weights(binarizers.bi_real, clip=1.0), activations(estimators.polynomial))
  IR-Net                 chain(weights(binarizers.ir_net, clip=None, steps=n),
                           activations(estimators.error_decay, steps=n))
  TWN, TTQ               weights(binarizers.ternary, clip=None), trained_ternary()
  Bop                    weights(binarizers.bnn, clip=None) under the optimizer bop(1e-4, threshold=1e-8)
"""
from lightjax.binarize import binarizers, estimators, packed
from lightjax.binarize.activations import activations, binary_modules, frozen_interceptor
from lightjax.binarize.bop import bop
from lightjax.binarize.transforms import trained_ternary, weights

__all__ = [
  'activations', 'binarizers', 'binary_modules', 'bop', 'estimators', 'frozen_interceptor', 'packed',
  'trained_ternary', 'weights',
]
