"""Low rank from orthogonal pieces: a decomposition of kernels, and a rule for the ranks of all layers.

  SVD, 90 % of the energy      factorize(apply, variables, x, method='channel', ranks=ranks.energy(0.9))
  1x3 and 3x1, half the MACs   factorize(apply, variables, x, method='spatial', ranks=ranks.budget(0.5))
  Tucker-2, by the loss        factorize(apply, variables, x, method='tucker2', ranks=ranks.sensitivity(0.5), loss=loss)

The result is a network of smaller layers, a function and its variables, which trains, takes any transform and is
stored.
"""
from lightjax.factorize import decompositions, layers, ranks
from lightjax.factorize.surgery import Factorization, Factorized, factorize

__all__ = ['Factorization', 'Factorized', 'decompositions', 'factorize', 'layers', 'ranks']
