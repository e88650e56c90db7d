"""Networks and kernels against PyTorch (channels_last) on the same cores, side by side in one run; ratios under 1 win.

Training steps and inference of the small networks at batch 64 and of three networks at 224 pixels at batch 16,
inference at batch 1, and the depthwise, grouped and 1x1 kernels alone, forward and backward. Both sides take turns,
each turn a few calls; figures are medians of wall time, a ratio is the median of those of the rounds.

PyTorch is an optional install: pip install torch torchvision.

Example:
  python -m experiments.benchmarks.against_pytorch --rounds=10 --output=experiments/results/benchmarks/pytorch.json
"""
from __future__ import annotations

import functools
import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import commands
from experiments.benchmarks import steps
from lightjax import interop, models
from lightjax.core import specs
from lightjax.core.transform import chain
from lightjax.nn import convolution
from lightjax.train import devices

try:
  import torch

  from experiments.benchmarks import pytorch_networks
except ImportError as _error:
  torch, _missing = None, str(_error)

_ONLY = flags.DEFINE_string('only', '', 'Regular expression: the comparisons to make, by the beginning of their names.')
_ROUNDS = flags.DEFINE_integer('rounds', 10, 'Rounds in which each side takes its turn.')
_DEVICES = flags.DEFINE_list('devices', ['1'], "JAX's side: virtual CPU devices that share a training batch.")
_CLOCK = flags.DEFINE_enum(
  'clock', 'wall', ['wall', 'cpu'], "Time that passed, or that the process's threads worked (steadier if it is busy).")
_OUTPUT = flags.DEFINE_string('output', None, 'JSON file to write the figures to.')

TRAINING_BATCH = {32: 64, 224: 16}
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
# Shortest turn of a side, in seconds: a call of less is repeated.
TURN = 0.02


class Comparison(NamedTuple):
  """One row: its name, and what makes the two calls; building is left until the row's turn comes."""
  name: str
  make: Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]


class Kernel(NamedTuple):
  """A convolution alone: input [b, h, w, c], output channels, window, stride, groups."""
  shape: tuple[int, int, int, int]
  features: int
  window: int
  stride: int
  groups: int


KERNELS = {
  'depthwise': [
    *(Kernel(shape, shape[-1], 3, stride, shape[-1])
      for shape in ((64, 32, 32, 96), (64, 16, 16, 192), (16, 14, 14, 576), (16, 56, 56, 144)) for stride in (1, 2)),
    Kernel((64, 16, 16, 192), 192, 5, 1, 192), Kernel((16, 14, 14, 576), 576, 5, 2, 576),
    Kernel((64, 8, 8, 384), 384, 7, 1, 384)],
  'grouped': [Kernel((64, 32, 32, 96), 96, 1, 1, 3), Kernel((64, 32, 32, 96), 96, 3, 1, 3),
              Kernel((64, 16, 16, 240), 240, 1, 1, 8)],
  '1x1': [Kernel((64, 32, 32, 96), 24, 1, 1, 1), Kernel((64, 16, 16, 32), 192, 1, 1, 1),
          Kernel((16, 14, 14, 576), 96, 1, 1, 1)],
}


def comparisons() -> Iterator[Comparison]:
  """All rows, in the order of the table."""
  for name, pair in pytorch_networks.PAIRS.items():
    batch = TRAINING_BATCH[pair.size]
    for count in map(int, _DEVICES.value):
      suffix = '' if count == 1 else f', {count} devices'
      yield Comparison(f'{name}, training, batch {batch}{suffix}', functools.partial(training, name, batch, count))
    yield Comparison(f'{name}, inference, batch {batch}', functools.partial(inference, name, batch))
    if pair.size == 224:
      yield Comparison(f'{name}, inference, batch 1', functools.partial(inference, name, 1))
  for kind, kernels in KERNELS.items():
    for kernel in kernels:
      what = (f'{kind} {kernel.window}x{kernel.window} stride {kernel.stride} {list(kernel.shape)} to '
              f'{kernel.features} in {kernel.groups} groups')
      yield Comparison(f'{what}, forward', functools.partial(alone, kernel, backward=False))
      yield Comparison(f'{what}, backward', functools.partial(alone, kernel, backward=True))


def training(name: str, batch: int, count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
  """A step of SGD with momentum on one fixed batch: ours and PyTorch's."""
  pair = pytorch_networks.PAIRS[name]
  shape = (batch, pair.size, pair.size, pair.channels)
  model = models.create(pair.network, **pair.overrides)
  ours = steps.training_step(model, chain(), shape, device_count=count)
  network = pytorch_networks.build(name).train()
  images = _tensor(shape)
  labels = torch.randint(0, 10, (batch,))
  optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

  def theirs() -> None:
    optimizer.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()

  return ours, theirs


def inference(name: str, batch: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
  """Logits of one batch in evaluation mode, from the same weights where the layout is known."""
  pair = pytorch_networks.PAIRS[name]
  shape = (batch, pair.size, pair.size, pair.channels)
  network = pytorch_networks.build(name).eval()
  images = _tensor(shape)
  inputs = jnp.asarray(images.permute(0, 2, 3, 1).numpy())
  if pair.comparable:
    arrays = {key: value.numpy() for key, value in network.state_dict().items()}
    model, variables = interop.from_torch(pair.network, arrays, **pair.overrides)
  else:
    model = models.create(pair.network, **pair.overrides)
    variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), inputs)
  apply = jax.jit(model.apply)

  def ours() -> jax.Array:
    return jax.block_until_ready(apply(variables, inputs))

  def theirs() -> Any:
    with torch.inference_mode():
      return network(images)

  if pair.comparable:
    wanted = theirs().numpy()
    error = float(np.abs(np.asarray(ours()) - wanted).max() / np.abs(wanted).max())
    if error > 1e-3:
      raise specs.SpecError(f'{name}: the two sides are not the same network, relative error {error:.1e}.')
  return ours, theirs


def alone(kernel: Kernel, *, backward: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
  """One convolution, or both its gradients."""
  padding = kernel.window // 2
  images = _tensor(kernel.shape)
  weight = torch.randn(kernel.features, kernel.shape[-1] // kernel.groups, kernel.window, kernel.window)
  weight = weight.to(memory_format=torch.channels_last)
  x, w = jnp.asarray(images.permute(0, 2, 3, 1).numpy()), jnp.asarray(weight.permute(2, 3, 1, 0).numpy())

  def forward(x: jax.Array, w: jax.Array) -> jax.Array:
    return convolution.conv(x, w, strides=kernel.stride, padding=padding, groups=kernel.groups)

  def convolve() -> Any:
    return torch.nn.functional.conv2d(images, weight, None, kernel.stride, padding, 1, kernel.groups)

  if not backward:
    compiled = jax.jit(forward)

    def theirs() -> Any:
      with torch.inference_mode():
        return convolve()

    return lambda: jax.block_until_ready(compiled(x, w)), theirs

  images.requires_grad_()
  weight.requires_grad_()
  outcome = convolve()
  cotangent = torch.randn_like(outcome)
  gradients = jax.jit(lambda x, w, cotangent: jax.vjp(forward, x, w)[1](cotangent))
  given = jnp.asarray(cotangent.permute(0, 2, 3, 1).numpy())
  return (lambda: jax.block_until_ready(gradients(x, w, given)),
          lambda: torch.autograd.grad(outcome, (images, weight), cotangent, retain_graph=True))


def _tensor(shape: tuple[int, int, int, int]) -> Any:
  """Noise in PyTorch's order of axes, channels last in memory."""
  generator = np.random.default_rng(0)
  return torch.from_numpy(generator.standard_normal(shape, np.float32)).permute(0, 3, 1, 2)


def time_turns(
  sides: tuple[Callable[[], Any], Callable[[], Any]], rounds: int, clock: Callable[[], float]
) -> list[tuple[float, float]]:
  """Seconds a call of either side in each round, after warming up."""
  calls = []
  for side in sides:
    for _ in range(2):
      side()
    began = clock()
    side()
    calls.append(max(1, round(TURN / (clock() - began))))
  seconds = []
  for _ in range(rounds):
    turn = []
    for side, count in zip(sides, calls, strict=True):
      began = clock()
      for _ in range(count):
        side()
      turn.append((clock() - began) / count)
    seconds.append((turn[0], turn[1]))
  return seconds


def main() -> int:
  """Run the command."""
  if torch is None:
    raise specs.SpecError(f'this benchmark needs PyTorch ({_missing}): pip install torch torchvision')
  devices.configure()
  torch.set_num_threads(devices.cores())
  rows = []
  print(f'{"lightjax against PyTorch " + torch.__version__:90} {"ours":>10} {"theirs":>10}  ratio')
  for comparison in comparisons():
    if not re.match(_ONLY.value, comparison.name):
      continue
    seconds = time_turns(comparison.make(), _ROUNDS.value, CLOCKS[_CLOCK.value])
    ours, theirs = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = statistics.median(one / other for one, other in seconds)
    rows.append({'comparison': comparison.name, 'ours_ms': 1e3 * ours, 'theirs_ms': 1e3 * theirs, 'ratio': ratio})
    print(f'{comparison.name:90} {1e3 * ours:7.2f} ms {1e3 * theirs:7.2f} ms  {ratio:5.2f}', flush=True)
    jax.clear_caches()
    if _OUTPUT.value:
      steps.write(_OUTPUT.value, rows, rounds=_ROUNDS.value, clock=_CLOCK.value, pytorch=torch.__version__)
  return 0


if __name__ == '__main__':
  commands.launch(main)
