"""Which layers read one grid: residual sums and concatenations join, layers and functions of their own part."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from lightjax import models
from lightjax.graph import streams


def read(model, shape):
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  return streams(model.apply, variables, x)


def joined(reads):
  """Kernels that read one stream, as sets of more than one."""
  sets = {}
  for each in reads:
    sets.setdefault(each.stream, []).append(each.kernel.removesuffix('/kernel'))
  return {tuple(each) for each in sets.values() if len(each) > 1}


def test_every_input_of_a_resnets_block_is_on_the_grid_of_its_residual_stream():
  reads = read(models.create('resnet14'), (32, 32, 3))
  # With zero-padded identity shortcuts one stream runs from the stem to the classifier's pooling.
  assert joined(reads) == {tuple(f'stage{s}/block{b}/conv1' for s in (1, 2, 3) for b in (0, 1))}
  assert len(reads) == 14


def test_projections_begin_a_new_stream_and_read_what_their_block_reads():
  reads = read(models.create('resnet8', shortcut='projection'), (32, 32, 3))
  assert joined(reads) == {
    ('stage2/block0/conv1', 'stage2/block0/shortcut_conv'), ('stage3/block0/conv1', 'stage3/block0/shortcut_conv')} or \
    joined(reads) == {
      ('stage1/block0/conv1', 'stage2/block0/conv1', 'stage2/block0/shortcut_conv'),
      ('stage3/block0/conv1', 'stage3/block0/shortcut_conv')}


class Branches(nn.Module):
  """A concatenation of a ReLU's output and a max pool's; a gate; the two uses of a layer."""

  @nn.compact
  def __call__(self, x):
    a = nn.relu(nn.Conv(4, (1, 1), name='a')(x))
    b = nn.max_pool(nn.Conv(4, (1, 1), name='b')(x), (3, 3), (1, 1), 'SAME')
    both = jnp.concatenate([a, b], -1)
    y = nn.Conv(8, (1, 1), name='reads_both')(both)
    c = nn.Conv(4, (1, 1), name='reads_a')(a)
    gated = y * nn.sigmoid(nn.Conv(8, (1, 1), name='reads_y')(y))
    shared = nn.Conv(8, (1, 1), name='twice')
    return shared(shared(gated)).mean((1, 2)) @ jnp.ones((8, 4)) + c.mean((1, 2))


def test_concatenation_joins_and_a_gate_parts():
  reads = read(Branches(), (4, 4, 3))
  assert joined(reads) == {('a', 'b'), ('reads_both', 'reads_a')}
  assert [each.kernel for each in reads].count('twice/kernel') == 2


@pytest.mark.parametrize('name, count', [('mobilenet_v2', 52 + 1), ('squeezenet1_1', 26)])
def test_every_kernel_of_the_zoo_is_read(name, count):
  assert len(read(models.create(name), (64, 64, 3))) == count
