"""Bias correction: the mean error that quantization leaves in a channel, taken off its bias."""
from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lightjax.quantize import program, simulation
from lightjax.quantize.program import Network
from lightjax.quantize.simulation import Quantized, Site

__all__ = ['correct']


def correct(network: Network, quantized: Quantized, inputs: Any) -> Quantized:
  """Biases for which rounding the kernel of a layer changes the mean of none of its channels.

    b + E[W x^] - E[W^ x^]

  with W^ the rounded kernel and x^ the inputs in the network that is quantized up to that layer, in execution order.

  Args:
    network: the float one that `quantized` was made from.
    quantized: to correct.
    inputs: calibration inputs, all at once; a tuple for a network of several inputs.
  Returns:
    The quantized network with other biases.
  Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2.
  Deviations from the paper: E[x] is measured on inputs, not computed from BatchNorm. What rounding and clipping the
    inputs themselves does to the mean is left as it is: rare activations that a range cuts off would shift all others.
  """

  def visit(site: Site) -> tuple[Any, Any]:
    lost = site.layer.kernel - site.kernel.decode()
    return site.kernel, site.layer.bias + _mean(program.Static(site.node), site.x_quantized, lost)

  return simulation.sweep(network, quantized, inputs, visit)


@functools.partial(jax.jit, static_argnums=0)
def _mean(static: program.Static, x: Any, kernel: Any) -> Any:
  """The mean of each channel of a layer with this kernel."""
  y = program.batched(lambda x: program.product(static.value, x, kernel))(x)
  return jnp.mean(y, axis=tuple(range(y.ndim - 1)))
