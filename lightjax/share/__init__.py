"""Weight sharing: the weights of a layer take the values of a small codebook, which is trained.

  Deep Compression   chain(prune(...), share(starts.linear, bits=(('conv.*', 8), ('.*', 5))))
  one codebook       share(starts.k_means_plus_plus, bits=4, together=True)
  fewer bits stored  share(starts.linear, bits=5, entropy=0.05, every=100)
"""
from lightjax.share import clustering, starts
from lightjax.share.transforms import share

__all__ = ['clustering', 'share', 'starts']
