"""The picture of a network: well-formed, with each operation's row and each group's line where they belong."""
import itertools
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import pytest

from experiments import drawing
from lightjax import graph, models

NAMESPACE = '{http://www.w3.org/2000/svg}'


@pytest.fixture(scope='module', params=['resnet8', 'shufflenet_v1_cifar'])
def drawn(request):
  """(trace, coupling, root of the SVG)."""
  model = models.create(request.param)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  network, channels = (make(model.apply, variables, image) for make in (graph.trace, graph.channels))
  return network, channels, xml.etree.ElementTree.fromstring(drawing.svg(network, channels, title='a < b'))


def test_every_operation_has_a_row_of_its_own(drawn):
  network, _, root = drawn
  height = {text.text: float(text.get('y')) for text in root.iter(f'{NAMESPACE}text') if text.text}
  rows = [height[operation.module] for operation in network.operations]
  assert {round(after - before) for before, after in itertools.pairwise(rows)} == {drawing.ROW}
  assert 'a < b:' in {part.text for part in root.iter(f'{NAMESPACE}tspan')}


def test_every_group_has_a_line_and_no_two_share_a_place(drawn):
  _, channels, root = drawn
  lines = [(group.find(f'{NAMESPACE}title').text, group.find(f'{NAMESPACE}line'))
           for group in root.iter(f'{NAMESPACE}g') if group.find(f'{NAMESPACE}title') is not None]
  assert sorted(title.partition(':')[0] for title, _ in lines) == sorted(group.name for group in channels.groups)
  for title, line in lines:
    assert ('pinned' in title) == (line.get('stroke-dasharray') is not None)
  spans = sorted((float(line.get('x1')), float(line.get('y1')), float(line.get('y2'))) for _, line in lines)
  for (x, _, end), (other_x, start, _) in itertools.pairwise(spans):
    assert x != other_x or end < start


def test_the_streams_dots_are_at_the_layers_that_make_and_read_it(drawn):
  network, channels, root = drawn
  name = channels.groups[0].name
  group = next(each for each in root.iter(f'{NAMESPACE}g')
               if each.find(f'{NAMESPACE}title') is not None and each.find(f'{NAMESPACE}title').text.startswith(name))
  marks = [(float(each.get('cy')), each.get('fill') == 'white') for each in group.iter(f'{NAMESPACE}circle')]
  kernels = {f'params/{operation.parameter}': row for row, operation in enumerate(network.operations)}
  made = {kernels[member.path] for member in channels.groups[0].members if member.role == 'producer'}
  read = {kernels[member.path] for member in channels.groups[0].members if member.role == 'consumer'} - made
  first = marks[0][0]
  rows = {round((y - first) / drawing.ROW) + min(made): is_ring for y, is_ring in marks}
  assert {row for row, is_ring in rows.items() if not is_ring} == made
  assert {row for row, is_ring in rows.items() if is_ring} == read
