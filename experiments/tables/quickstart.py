"""LeNet-300-100 on part of Fashion-MNIST: pruned, quantized, distilled, and all of it at once.

7,200 images to train on, 30 epochs, 3 seeds; the network without compression, 90 % of its weights pruned by magnitude
on a cubic schedule, 8-bit weights and activations, both, and a student of a tenth of its size with and without a
teacher. Bytes are those of the stored file. Expected: pruned + int8 at a twentieth of the dense file and within a
point of its accuracy; about two minutes on 2 cores.
"""
BASE, SEEDS, METRIC = 'lenet300.py', (0, 1, 2), 'test/accuracy'
COLUMNS = ('best/test/accuracy', 'params', 'nonzeros', 'macs', 'bytes', 'seconds')

INT8 = ('weights', 'activations')
TEACHER = {'distill.config': 'lenet300.py', 'distill.hyper.temperature': 4.0, 'distill.weight': 0.7}
STUDENT = {'model.hidden': (32, 16)}


def cells():
  """One row a method."""
  yield {'method': 'dense'}, {}
  yield {'method': 'magnitude pruning 90 %'}, {'compress.stages': ('prune',)}
  yield {'method': 'int8'}, {'compress.stages': INT8}
  yield {'method': 'pruned + int8'}, {'compress.stages': ('prune', *INT8)}
  yield {'method': 'small student'}, STUDENT
  yield {'method': 'small student, distilled'}, STUDENT | TEACHER
  yield {'method': 'pruned + int8 + distilled'}, {'compress.stages': ('prune', *INT8)} | TEACHER
