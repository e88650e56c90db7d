"""Convolution kernels, layers and blocks that the networks are made of."""
