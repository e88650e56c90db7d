"""Losses of distillation: ResNet-8 teaches a quarter of itself, 12,000 images of Fashion-MNIST.

One teacher, 15 epochs; students of 3 epochs, each with the labels' loss and the term of the paper named, its weight
that of the published CIFAR-100 recipe (not tuned here), but 1 for FitNet and FSP: at 100 and 50, and this rate, the
first stays at chance and the second diverges. Tf-KD, self-distillation and mutual learning have no teacher. Both the
last epoch and the best on validation are shown. Times are of one core while other work ran: they say nothing of one
method against another. Differences of a point or two are within what seeds make. Needs Fashion-MNIST: from TFDS, or as
idx files with --data_dir.
"""
from experiments.distillation_methods import ALONE, PAPERS

BASE, SEEDS, METRIC = 'distilled_fashion_mnist.py:student', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'teacher/test/accuracy', 'params', 'bytes', 'step_ms', 'seconds')

TOO_HEAVY = ('hints', 'fsp')
TEACHER = {'distill.config': 'distilled_fashion_mnist.py:teacher'}


def cells():
  """The student alone, then with each term."""
  yield {'method': 'student alone'}, {}
  yield {'method': 'KD'}, {'distill.weight': 0.9} | TEACHER
  for term, paper in PAPERS.items():
    lighter = {f'distill.{term}.weight': 1.0} if term in TOO_HEAVY else {}
    yield {'method': paper}, {'distill.terms': (term,)} | lighter | ({} if term in ALONE else TEACHER)
