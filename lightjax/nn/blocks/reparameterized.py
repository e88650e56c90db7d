"""Convolutions that train as several branches and deploy as one, of RepVGG and MobileOne.

Ding et al. 2021, arXiv:2101.03697; Vasu et al. 2023, arXiv:2206.04040.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from lightjax.core.typing import Variables
from lightjax.nn.layers import BatchNorm, Conv, ConvNorm


class ReparameterizedConv(nn.Module):
  """A sum of convolutions, each with BatchNorm, then an activation (RepVGG, figure 2b; MobileOne, figure 3).

    y = activation(branch0(x) + branch1(x) + ... + branch_1x1(x) + identity(x))

  `branch_1x1` is there for windows over 1, `identity` (BatchNorm alone) where input and output have the same shape.
  Deployed there is one convolution with bias, `conv`, that computes the same; see `merge`.

  Attributes:
    features: output channels.
    window: odd kernel size of the branches, pixels.
    strides: of all branches.
    groups: feature groups of all branches.
    branches: how many with the full window.
    activation: after the sum.
    squeeze_excite: makes that block, between sum and activation, called with `dtype` and `name`; None for none.
    deployed: whether the branches are one convolution.
    dtype: of the computation.
  """

  features: int
  window: int = 3
  strides: int = 1
  groups: int = 1
  branches: int = 1
  activation: Callable[[Array], Array] = nn.relu
  squeeze_excite: Callable[..., Any] | None = None
  deployed: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c'], train: bool = False) -> Float[Array, 'b ho wo d']:
    """The block on one batch."""
    if self.window % 2 == 0:
      raise ValueError(
          f'ReparameterizedConv: a window of {self.window} has no middle for the 1x1 branch; take an odd one.')
    y = self._merged(x) if self.deployed else self._branches(x, train)
    if self.squeeze_excite is not None:
      y = self.squeeze_excite(dtype=self.dtype, name='squeeze_excite')(y)
    return self.activation(y)

  def _merged(self, x: Array) -> Array:
    return Conv(
        self.features, (self.window, self.window), strides=self.strides, padding=self.window // 2,
        feature_group_count=self.groups, dtype=self.dtype, name='conv')(x)

  def _branches(self, x: Array, train: bool) -> Array:

    def conv_norm(window: int, name: str) -> Array:
      return ConvNorm(
          self.features, window, self.strides, self.groups, activation=None, dtype=self.dtype, name=name)(x, train)

    y = conv_norm(self.window, 'branch0')
    for index in range(1, self.branches):
      y += conv_norm(self.window, f'branch{index}')
    if self.window > 1:
      y += conv_norm(1, 'branch_1x1')
    if x.shape == y.shape:
      y += BatchNorm(use_running_average=not train, dtype=self.dtype, name='identity')(x)
    return y


def merge(model: nn.Module, variables: Variables) -> tuple[nn.Module, Variables]:
  """The network with each `ReparameterizedConv` as one convolution; in evaluation it computes what `model` does.

  A branch with kernel k and BatchNorm (gamma, beta, mean, var) is the convolution with kernel k s and bias
  beta - mean s, s = gamma / sqrt(var + epsilon); kernels and biases of the branches add up. 1x1 kernels stand in the
  middle of the window, the identity is the 1x1 kernel that passes each channel on.

  Args:
    model: a network with an attribute `deployed`, False.
    variables: its params and batch_stats.
  Returns:
    (deployed model, its variables); other parameters are the same arrays. `batch_stats` is left out if nothing in it
    remains.
  Raises:
    ValueError: the network has no attribute `deployed`, or is deployed already.
  Source: RepVGG, section 3.3, equations 3 and 4.
  """
  if getattr(model, 'deployed', None) is not False:
    raise ValueError(f'merge: {type(model).__name__} must have an attribute `deployed` that is False; nothing else has '
                     'branches to merge.')
  params, statistics = _merge_tree(variables['params'], variables['batch_stats'])
  merged = {**variables, 'params': params, 'batch_stats': statistics}
  if not statistics:
    del merged['batch_stats']
  return model.clone(deployed=True), merged


def _merge_tree(params: Mapping[str, Any], statistics: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  if 'branch0' in params:
    kept = {name: value for name, value in params.items() if not _is_branch(name)}
    return {**kept, 'conv': _merge_block(params, statistics)}, {}
  merged_params, merged_statistics = {}, dict(statistics)
  for name, value in params.items():
    if not isinstance(value, Mapping):
      merged_params[name] = value
      continue
    merged_params[name], remaining = _merge_tree(value, statistics.get(name, {}))
    if remaining:
      merged_statistics[name] = remaining
    else:
      merged_statistics.pop(name, None)
  return merged_params, merged_statistics


def _is_branch(name: str) -> bool:
  return name.startswith('branch') or name == 'identity'


def _merge_block(params: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Array]:
  shape = params['branch0']['conv']['kernel'].shape
  kernel, bias = jnp.zeros(shape), jnp.zeros(shape[-1:])
  for name in filter(_is_branch, params):
    if name == 'identity':
      norm, means, branch = params[name], statistics[name], _identity_kernel(shape)
    else:
      norm, means, branch = params[name]['norm'], statistics[name]['norm'], params[name]['conv']['kernel']
    scale = norm['scale'] * lax.rsqrt(means['var'] + BatchNorm.epsilon)
    around = [(shape[axis] - branch.shape[axis]) // 2 for axis in (0, 1)]
    kernel += jnp.pad(branch * scale, (*((each, each) for each in around), (0, 0), (0, 0)))
    bias += norm['bias'] - means['mean'] * scale
  return {'kernel': kernel, 'bias': bias}


def _identity_kernel(shape: tuple[int, ...]) -> Array:
  """The 1x1 kernel that passes each channel on: output o is input o mod i of its group of i."""
  *_, inputs, outputs = shape
  return (jnp.arange(inputs)[:, None] == jnp.arange(outputs) % inputs).astype(jnp.float32)[None, None]
