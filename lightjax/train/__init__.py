"""Training: state, step, loop, checkpoints; and any network under any transform, for loops of your own."""
from lightjax.train.compression import Compressed, bind, compress, mask_slots

__all__ = ['Compressed', 'bind', 'compress', 'mask_slots']
