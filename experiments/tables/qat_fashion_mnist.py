"""ResNet-8 and MobileNetV2-0.35 on Fashion-MNIST with 8, 4 and 2 bits, trained from the float network.

3 seeds, each from the float network of its seed (4 epochs). W8A8 has BatchNorm folded before rounding and its
statistics frozen for the last 30 % of an epoch. W4A4 and W2A2 are LSQ for 2 epochs, with 8 bits in the first and the
last layer, at 2 bits also in the depthwise layers of MobileNetV2. Bytes are those of the stored file. Expected: W8A8
within 0.3 points of float, W4A4 within 1, W2A2 within 3. Needs Fashion-MNIST: from TFDS, or as idx files with
--data_dir. About an hour on 2 cores.
"""
SEEDS, METRIC = (0, 1, 2), 'test/accuracy'
BASE = 'quantized_fashion_mnist.py:resnet8'
COLUMNS = ('best/test/accuracy', 'params', 'macs', 'bytes', 'seconds')

INNER = ('not_kernel', 'first_conv', 'last_dense')


def cells():
  """Each network in float, then with fewer and fewer bits."""
  for network in ('resnet8', 'mobilenet_v2'):
    base = {'base': f'quantized_fashion_mnist.py:{network}'}
    yield {'network': network, 'bits': 'float'}, {}, {'base': f'channels_fashion_mnist.py:{network}'}
    yield {'network': network, 'bits': 'W8A8'}, {'epochs': 1}, base
    yield {'network': network, 'bits': 'W4A4, LSQ'}, _lsq(4), base
    depthwise = ('.*/depthwise/.*',) if network == 'mobilenet_v2' else ()
    yield {'network': network, 'bits': 'W2A2, LSQ'}, _lsq(2, outer=depthwise), base


def _lsq(bits: int, *, outer: tuple[str, ...] = ()):
  """Trained steps of all layers but the first, the last and those that `outer` names, which have 8 bits."""
  changes = {
    'compress.stages': ('weights', 'activations', 'outer_weights', 'outer_activations'),
    'compress.weights.fold': False, 'compress.weights.freeze': 1.0}
  for stage in ('weights', 'activations'):
    changes |= {
      f'compress.{stage}.bits': bits, f'compress.{stage}.scale': 'lsq', f'compress.{stage}.skip': INNER,
      f'compress.{stage}.rules': (*((pattern, False) for pattern in outer), ('.*', True)),
      f'compress.outer_{stage}.rules': (
        *((pattern, True) for pattern in outer), ('stem/.*', True), ('classifier/.*', True))}
  return changes
