"""Networks of the zoo as programs, folded, and in integers. Numbers are drawn, as no weights are at hand here."""
import jax
import jax.numpy as jnp
import pytest

from lightjax.quantize import folding, integer, program, simulation

# One network a family; small images that its poolings leave something of.
FAMILIES = {
  'alexnet': 96, 'conv2': 32, 'convnext_atto': 64, 'densenet40': 32, 'efficientnet_b0': 64, 'efficientnet_lite0': 64,
  'fbnetc_100': 64, 'ghostnet_050': 64, 'googlenet': 64, 'inception_v3': 96, 'lenet5': 28, 'lenet300': 28,
  'mnasnet0_5': 64, 'mobilenet_v2': 64, 'mobilenet_v3_small': 64, 'mobilenetv1_100': 64, 'mobileone_s0': 64,
  'preact_resnet20': 32, 'regnetx_004': 64, 'regnety_002': 64, 'repvgg_a0': 64, 'resnet18': 64, 'resnet20': 32,
  'resnext50_32x4d': 64, 'shufflenet_v1': 64, 'shufflenet_v2_x0_5': 64, 'squeezenet1_1': 64, 'vgg8_cifar': 32,
  'vgg11_bn': 64, 'wrn_16_1': 32, 'xception': 96}
# Operations that integers do not know: ConvNeXt normalizes over channels.
FLOATS = {'convnext_atto'}


def check(built, steps_apart, *, in_float=False):
  apply, variables, images, network = built
  exact = jax.jit(apply)(variables, images)

  def near(logits):
    return float(jnp.abs(logits - exact).max() / jnp.abs(exact).max()) < 1e-4

  assert near(jax.jit(lambda x: program.run(network, x))(images))
  if 'batch_stats' in variables:
    assert near(jax.jit(apply)(folding.fold(apply, variables, images), images))
  quantized = simulation.quantize(network, simulation.calibrate(network, images))
  converted = integer.convert(quantized)
  assert bool(converted.floats) == in_float, converted.floats
  found = steps_apart(quantized, converted, images)
  assert max(found.values()) <= 1, {name: steps for name, steps in found.items() if steps > 1}
  simulated = jax.jit(lambda x: simulation.simulate(quantized, x))(images)
  assert (jax.jit(converted.apply)(images).argmax(-1) == simulated.argmax(-1)).all()
  kernels = sum(layer.kernel.size for layer in network.layers.values())
  assert sum(constants['kernel'].nbytes for constants in converted.constants.values() if 'kernel' in constants) == (
    kernels)


def test_a_network_agrees_with_its_simulation(zoo, steps_apart):
  check(zoo('resnet8', 16), steps_apart)


@pytest.mark.exhaustive
@pytest.mark.parametrize('name', FAMILIES)
def test_every_family_agrees_with_its_simulation(zoo, steps_apart, name):
  channels = 1 if name.startswith('lenet') else 3
  check(zoo(name, FAMILIES[name], channels), steps_apart, in_float=name in FLOATS)
