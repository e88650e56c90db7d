"""lightjax: efficient networks and compression as pure functions, for JAX research.

    compressed, own = lightjax.compress(model, variables, chain(prune(...), quantize.weights(bits=8)), x)

See README.md for the first commands and WORKSPACE.md for how to extend it.
"""
from lightjax.train.compression import compress

__all__ = ['compress']
