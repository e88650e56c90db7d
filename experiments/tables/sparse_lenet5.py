"""LeNet-5 on Fashion-MNIST: magnitude, SNIP, RigL and static masks at 90 and 98 %, at equal sparsity and equal MACs.

3 epochs, 3 seeds, all layers pruned. ERK leaves the small convolutions denser than the rest, so that at one sparsity it
has more of the MACs; `equal_macs(erk)` is ERK at the sparsity at which its MACs are the share of the weights that is
left. Needs Fashion-MNIST: from TFDS, or as idx files with --data_dir.
"""
from experiments import sparse_methods

BASE, SEEDS, METRIC = 'sparse_fashion_mnist.py:lenet5', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'params', 'nonzeros', 'nonzero macs', 'bytes', 'seconds')


def cells():
  """Dense, then each method at equal sparsity and at equal MACs."""
  yield {'method': 'dense', 'budget': '-', 'sparsity': 0.0}, {}
  for method in ('magnitude', 'SNIP', 'RigL', 'static'):
    for budget in ('erk', 'equal_macs(erk)'):
      for sparsity in (0.9, 0.98):
        changes = sparse_methods.overrides(method, sparsity=sparsity, budget=budget)
        yield {'method': method, 'budget': budget, 'sparsity': sparsity}, changes
