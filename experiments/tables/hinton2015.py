"""Hinton et al. 2015 on MNIST: what a student learns from soft targets, of digits that it has never seen as well.

Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 3: 146 test errors of 10,000 of 784-800-800-10 alone, 74
distilled at T = 20 from 784-1200-1200-10 (67 errors). Without any 3 in the transfer set 206, and 109 with a better bias
of that class; with only 7s and 8s 4,730, and 1,320 with better biases. `teacher/test/accuracy` is the teacher's, and
`corrected/test/accuracy` that with one offset of those classes' logits, chosen on the validation set (the paper chooses
it on the test set). One teacher of 80 epochs with dropout, weight constraint and 2-pixel jitter, three students of 20
epochs; the teacher's logits are computed once. Needs MNIST: from TFDS, or as idx files with --data_dir.
"""
from experiments.engine.published import published

BASE, SEEDS, METRIC = 'distilled_mnist.py:distilled', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'corrected/test/accuracy', 'teacher/test/accuracy', 'params', 'seconds')


def _figure(method: str, **labels):
  (figure,) = published('kd', paper='Hinton 2015', method=method)
  return figure.labelled(**labels)


PUBLISHED = [
  _figure('no regularization', student='alone'),
  _figure('KD T=20 (soft targets only regularizer)', student='distilled', **{'transfer set': 'all'}),
  _figure('KD, transfer set without any 3, before bias fix', **{'transfer set': 'without 3'}),
  _figure('KD, transfer set only 7s and 8s', **{'transfer set': '7 and 8'}),
]


def cells():
  """The student alone, and distilled on all digits, without 3, and on 7 and 8 alone."""
  yield {'student': 'alone', 'transfer set': 'all'}, {}, {'base': 'distilled_mnist.py:student'}
  yield {'student': 'distilled', 'transfer set': 'all'}, {}
  yield {'student': 'distilled', 'transfer set': 'without 3'}, {
    'data.only': (0, 1, 2, 4, 5, 6, 7, 8, 9), 'correct_bias': (3,)}
  yield {'student': 'distilled', 'transfer set': '7 and 8'}, {'data.only': (7, 8), 'correct_bias': (7, 8)}
