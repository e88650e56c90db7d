"""AdaRound: which weights to round up and which down, learned layer by layer from a layer's own outputs."""
from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lightjax.core.encoded import Integers
from lightjax.core.typing import Array
from lightjax.quantize import quantizers, simulation
from lightjax.quantize.program import Network, Node
from lightjax.quantize.simulation import Quantized, Site

__all__ = ['adaround', 'rectified_sigmoid']

# Stretch of the sigmoid, as in the paper.
ZETA, GAMMA = 1.1, -0.1


def rectified_sigmoid(v: Array) -> Array:
  """h(v) = clip(sigmoid(v) * (zeta - gamma) + gamma, 0, 1): 0 and 1 are reached.

  Source: Nagel et al. 2020, arXiv:2004.10568, eq. 23.
  """
  return jnp.clip(jax.nn.sigmoid(v) * (ZETA - GAMMA) + GAMMA, 0, 1)


def adaround(
    network: Network, quantized: Quantized, inputs: Any, *, key: Array, steps: int = 1000, positions: int = 2048,
    batch: int = 256, learning_rate: float = 3e-2, regularization: float = 0.3,
) -> Quantized:
  """Codes that are rounded up or down so that each layer's outputs are nearest to the float network's.

    min over v of  ||f(W x + b) - f(W~ x^ + b)||^2 + lambda sum(1 - |2 h(v) - 1|^beta),   W~ = s (floor(W / s) + h(v))

  with f the layer's clip, x^ its input in the network that is quantized up to there, and beta falling from 20 to 2
  in a straight line after the first fifth of the steps, which have no second term. The grids stay as they are.

  Args:
    network: the float one that `quantized` was made from.
    quantized: to round anew; its biases are kept.
    inputs: calibration inputs, all at once; a tuple for a network of several inputs.
    key: for the choice of positions and batches.
    steps: of Adam, for each layer.
    positions: of a layer's output that are drawn from all examples; all of them where there are fewer.
    batch: positions a step.
    learning_rate: of Adam.
    regularization: lambda, beside an error that is 1 for the codes as they are.
  Returns:
    The quantized network with other codes.
  Source: Nagel et al. 2020, arXiv:2004.10568, eq. 21 to 25.
  Deviations from the paper: 1,000 steps a layer instead of 10,000, on single positions drawn once instead of whole
    images; means in place of sums, and the error relative to what it was, so that one lambda fits all layers; a layer
    whose error on its positions does not become smaller keeps its codes.
  """
  count = 0

  def visit(site: Site) -> tuple[Integers, Any]:
    nonlocal count
    count += 1
    own = jax.random.fold_in(key, count)
    bias = quantized.network.layers[site.node.name].bias
    chosen = np.random.default_rng(np.asarray(jax.random.key_data(own)))
    exact, rough = _windows(site.node, np.asarray(site.x), np.asarray(site.x_quantized), site.layer.kernel.shape,
                            positions, chosen)
    kernel, scale, codes = (_grouped(site.node, each) for each in (
      site.layer.kernel, jnp.broadcast_to(site.kernel.scale, site.kernel.codes.shape), site.kernel.codes))
    groups, _, outputs = kernel.shape

    def clipped(y: Any, bias: Any) -> Any:
      low, high = (each.reshape(groups, outputs) for each in (site.layer.low, site.layer.high))
      return jnp.clip(y + bias.reshape(groups, outputs), low, high)

    wanted = clipped(jnp.einsum('pgk,gko->pgo', exact, kernel), site.layer.bias)
    bound = quantizers.limit(site.kernel.bits)
    arguments = rough, wanted, kernel, scale, codes, bias, site.layer.low, site.layer.high, own
    found = _fit(*arguments, bound=bound, steps=steps, batch=min(batch, len(rough)), learning_rate=learning_rate,
                 regularization=regularization)
    return site.kernel._replace(codes=_ungrouped(found, site.kernel.codes.shape).astype(jnp.int8)), bias

  return simulation.sweep(network, quantized, inputs, visit)


@functools.partial(jax.jit, static_argnames=('bound', 'steps', 'batch', 'learning_rate', 'regularization'))
def _fit(
    x: Any, wanted: Any, kernel: Any, scale: Any, codes: Any, bias: Any, low: Any, high: Any, key: Any, *, bound: int,
    steps: int, batch: int, learning_rate: float, regularization: float,
) -> Any:
  """The codes of one layer: x [positions, groups, k], wanted [positions, groups, outputs], kernels [groups, k, o]."""
  groups, _, outputs = kernel.shape
  bias, low, high = (each.reshape(groups, outputs) for each in (bias, low, high))
  below = jnp.floor(kernel / scale)
  rest = jnp.clip(kernel / scale - below, 0.01, 0.99)
  start = -jnp.log((ZETA - GAMMA) / (rest - GAMMA) - 1)  # h(start) = rest
  optimizer = optax.adam(learning_rate)

  def error(codes: Any) -> Any:
    return jnp.mean(jnp.square(jnp.clip(jnp.einsum('pgk,gko->pgo', x, codes * scale) + bias, low, high) - wanted))

  nearest = error(codes)

  def step(index: Any, carry: Any) -> Any:
    v, state = carry
    places = jax.random.choice(jax.random.fold_in(key, index), x.shape[0], (batch,))
    progress = jnp.clip((index / steps - 0.2) / 0.8, 0, 1)
    beta = 20 - 18 * progress
    weight = jnp.where(index < 0.2 * steps, 0.0, regularization)

    def loss(v: Any) -> Any:
      h = rectified_sigmoid(v)
      rounded = jnp.clip(below + h, -bound, bound) * scale
      y = jnp.clip(jnp.einsum('pgk,gko->pgo', x[places], rounded) + bias, low, high)
      away = jnp.mean(1 - jnp.abs(2 * h - 1) ** beta)
      return jnp.mean(jnp.square(y - wanted[places])) / jnp.maximum(nearest, 1e-30) + weight * away

    updates, state = optimizer.update(jax.grad(loss)(v), state)
    return optax.apply_updates(v, updates), state

  v, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
  learned = jnp.clip(below + (rectified_sigmoid(v) >= 0.5), -bound, bound)
  return jnp.where(error(learned) < nearest, learned, codes)


def _windows(
    node: Node, x: np.ndarray, other: np.ndarray, shape: tuple[int, ...], positions: int, random: np.random.Generator,
) -> tuple[Array, Array]:
  """What a layer reads for some positions of its output, of two inputs: [positions, groups, inputs a group]."""
  if node.window is None:
    flat = [each.reshape(-1, 1, each.shape[-1]) for each in (x, other)]
    chosen = random.choice(len(flat[0]), min(positions, len(flat[0])), replace=False)
    return jnp.asarray(flat[0][chosen]), jnp.asarray(flat[1][chosen])
  strides, padding, dilation, groups = node.window
  spans = [spread * (size - 1) + 1 for spread, size in zip(dilation, shape[:2], strict=True)]
  counts = [(size + sum(pads) - span) // stride + 1 for size, pads, span, stride in zip(
    x.shape[1:3], padding, spans, strides, strict=True)]
  total = len(x) * counts[0] * counts[1]
  image, top, left = np.unravel_index(
    random.choice(total, min(positions, total), replace=False), (len(x), *counts))
  rows = (top * strides[0])[:, None] + dilation[0] * np.arange(shape[0])
  columns = (left * strides[1])[:, None] + dilation[1] * np.arange(shape[1])
  found = []
  for each in (x, other):
    padded = np.pad(each, ((0, 0), *padding, (0, 0)))
    windows = padded[image[:, None, None], rows[:, :, None], columns[:, None, :]]
    windows = windows.reshape(len(image), -1, groups, shape[2])
    found.append(jnp.asarray(np.moveaxis(windows, 2, 1).reshape(len(image), groups, -1)))
  return found[0], found[1]


def _grouped(node: Node, kernel: Any) -> Array:
  """[..., inputs a group, outputs] -> [groups, all inputs of a group, outputs a group]."""
  groups = 1 if node.window is None else node.window.groups
  return jnp.moveaxis(kernel.reshape(-1, groups, kernel.shape[-1] // groups), 1, 0)


def _ungrouped(codes: Array, shape: tuple[int, ...]) -> Array:
  """The inverse of `_grouped`."""
  return jnp.moveaxis(codes, 0, 1).reshape(shape)
