"""Weights of other libraries: reading their files, turning them into variables and back, preparing their images.

    model, variables = from_torch('mobilenet_v2', read_weights('mobilenet_v2-b0353104.pth'))
    logits = model.apply(variables, prepare(Image.open('photograph.jpg'), IMAGENET)[None])
"""
from lightjax.interop.errors import WeightsError
from lightjax.interop.files import read_weights
from lightjax.interop.preprocessing import IMAGENET, PREPROCESSING, Preprocessing, prepare
from lightjax.interop.state_dicts import from_torch, reference, to_torch

__all__ = [
  'IMAGENET', 'PREPROCESSING', 'Preprocessing', 'WeightsError', 'from_torch', 'prepare', 'read_weights',
  'reference', 'to_torch',
]
