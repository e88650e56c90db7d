"""LeNet-300-100 on Fashion-MNIST: eight ways to keep 20, 10, 5 and 2 % of the weights.

6 epochs, 3 seeds, all layers pruned. At equal sparsity: the same in each layer (uniform), and where a method ranks all
layers together, or shares them out by their shape (ERK), over the whole. At equal MACs is the same here, over the
whole: each weight of a dense layer is one multiply-add, so that the column `nonzero macs` says both. The lottery ticket
is one chain of rounds per budget, rewound to the initialization; SNIP and GraSP see the first 8 batches.

Expected: 88.6 % dense. Down to 90 % all but GraSP stay within a point of it, whatever the budget. The lottery ticket
is ahead of the dense network up to 95 %: each round trains for 6 epochs more. At 98 % the methods that choose before
training lose most under the uniform budget, which leaves the last layer 20 of 1,000 weights. STE ranked over all layers
at 98 % learns nothing: its first mask, of the initialization, takes all of `fc1`, whose 784 inputs make its weights the
smallest, and no gradient gets through an empty layer. GraSP, at its code's temperature of 200 and with seed 0, stays 1
to 2.5 points behind random masks under ERK: no layer is emptied, but what it keeps gathers on few units (at 98 % 49 of
the 300 of `fc1` have an input) and raises the gradient at the start; a fifth of the learning rate leaves 1 point. At
temperature 1 it is lower, and under the uniform budget fails. About 50 minutes on 2 cores. Needs Fashion-MNIST: from
TFDS, or as idx files with --data_dir.
"""
from experiments import lottery, sparse_methods

BASE, SEEDS, METRIC = 'sparse_fashion_mnist.py:lenet300', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'params', 'nonzeros', 'nonzero macs', 'bytes', 'seconds')
SPARSITIES = (0.8, 0.9, 0.95, 0.98)
ROUNDS = (0.4, 0.64, *SPARSITIES)  # each takes 40 to 60 % of what is left
# What share of the zeros each layer takes: the same, by its shape, or as one ranking over all layers gives it. Random
# scores ranked together are the uniform budget but for chance, so that sparse training has the first two.
BUDGETS = {
  'magnitude': ('uniform', 'global_'), 'STE': ('uniform', 'global_'), 'SNIP': ('uniform', 'global_'),
  'GraSP': ('uniform', 'global_'), 'static': ('uniform', 'erk'), 'SET': ('uniform', 'erk'), 'RigL': ('uniform', 'erk')}


def cells():
  """Dense, then each method under its budgets."""
  yield {'method': 'dense', 'budget': '-', 'sparsity': 0.0}, {}
  for method, budgets in BUDGETS.items():
    for budget in budgets:
      for sparsity in SPARSITIES:
        changes = sparse_methods.overrides(method, sparsity=sparsity, budget=budget)
        if method in ('SNIP', 'GraSP'):
          changes['criteria_batches'] = 8
        yield {'method': method, 'budget': budget, 'sparsity': sparsity}, changes
  for budget in ('uniform', 'global_'):
    chain = lottery.rounds(BASE, ROUNDS, fields={}, prune={'criterion': 'magnitude', 'budget': budget})
    for sparsity, changes in chain:
      if sparsity in SPARSITIES:
        yield {'method': 'lottery ticket', 'budget': budget, 'sparsity': sparsity}, changes
