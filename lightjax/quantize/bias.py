"""Bias correction: the mean error that quantization leaves in a channel, taken off its bias."""
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lightjax.quantize import program, simulation
from lightjax.quantize.program import Network
from lightjax.quantize.simulation import Quantized, Site

__all__ = ['correct']


def correct(network: Network, quantized: Quantized, inputs: Any) -> Quantized:
  """Biases for which every channel of every quantized layer has the mean of the float network, before its clip.

    b + E[W x] - E[W^ x^]

  with the kernel and inputs of the network that is quantized up to that layer, in execution order, so that a layer's
  correction knows those before it.

  Args:
    network: the float one that `quantized` was made from.
    quantized: to correct.
    inputs: calibration inputs, all at once; a tuple for a network of several inputs.
  Returns:
    The quantized network with other biases.
  Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2 (empirical, appendix D).
  """

  def visit(site: Site) -> tuple[Any, Any]:
    exact, rough = (_mean(site, x, kernel) for x, kernel in (
      (site.x, site.layer.kernel), (site.x_quantized, site.kernel.decode())))
    return site.kernel, site.layer.bias + exact - rough

  return simulation.sweep(network, quantized, inputs, visit)


def _mean(site: Site, x: Any, kernel: Any) -> Any:
  def mean(x: Any, kernel: Any) -> Any:
    one = program.batched(lambda x: program.product(site.node, x, kernel))
    return jnp.mean(one(x), axis=tuple(range(x.ndim - 1)))

  return jax.jit(mean)(x, kernel)
