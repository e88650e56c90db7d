"""Prints a network's operations, the channels that are tied together, and totals; or where the bytes of a file go.

COMMAND: python -m experiments.inspect --model=resnet20 --image=32,32,3 --svg=resnet20.svg   (draws it as well)
COMMAND: python -m experiments.inspect runs/one/artifact.ljx

Arguments of the network's constructor: --argument=classes=100
"""
from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
from absl import flags

from experiments import commands, configuration, drawing
from lightjax import artifact, graph, models
from lightjax.core import specs, trees

_MODEL: flags.FlagHolder[str] = flags.DEFINE_string('model', '', 'Name of a network of lightjax.models.')
_ARGUMENTS = flags.DEFINE_multi_string('argument', [], "An argument of the network's constructor: name=value.")
_IMAGE = flags.DEFINE_list('image', ['224', '224', '3'], 'Height, width and channels of an image.')
_SVG = flags.DEFINE_string('svg', '', 'A file to draw the network into.')


def main(file: str = '') -> int:
  """Run the command; `file` is a stored network."""
  console = rich.console.Console()
  if not console.is_terminal:
    console = rich.console.Console(width=200)
  if file:
    if _MODEL.value:
      raise specs.SpecError(f'--model={_MODEL.value} and {file}: inspect a network or a file.')
    console.print(_bytes(artifact.load(file)))
    return 0
  arguments = {}
  for each in _ARGUMENTS.value:
    name, equals, value = each.partition('=')
    if not equals:
      raise specs.SpecError(f'--argument={each}: write name=value.')
    arguments[name] = configuration.parse_value(value)
  if len(_IMAGE.value) != 3 or not all(size.isdigit() and int(size) for size in _IMAGE.value):
    raise specs.SpecError(f'--image={",".join(_IMAGE.value)}: give height, width and channels, such as 32,32,3.')
  if not _MODEL.value:
    raise specs.SpecError('--model is missing: name a network of lightjax.models, or a stored file.')
  try:
    model = models.create(_MODEL.value, **arguments)
  except ValueError as error:
    raise specs.SpecError(str(error)) from None
  image = jax.ShapeDtypeStruct((1, *map(int, _IMAGE.value)), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  network = graph.trace(model.apply, variables, image)
  channels = graph.channels(model.apply, variables, image)
  console.print(_operations(network))
  console.print(_groups(channels))
  parameters = sum(leaf.size for leaf in trees.flatten(variables).values())
  prunable = sum(group.size for group in channels.prunable)
  console.print(
    f'{parameters:,} parameters, {network.macs:,} MACs; {prunable:,} units in {len(channels.prunable)} groups can be '
    f'removed, {len(channels.groups) - len(channels.prunable)} groups are pinned.', highlight=False)
  if _SVG.value:
    pathlib.Path(_SVG.value).write_text(drawing.svg(network, channels, title=_MODEL.value), encoding='utf-8')
    console.print(f'drawn: {_SVG.value}', highlight=False)
  return 0


def _bytes(stored: artifact.Stored) -> rich.table.Table:
  """The bytes of a file by layer and part, beside its weights; a weight that is not zero is kept."""
  parts = artifact.sizes.PARTS
  table = rich.table.Table('layer', 'weights', 'kept', *parts, 'total', 'bits a weight', title='bytes', box=None)
  for column in table.columns[1:]:
    column.justify = 'right'
  weights: dict[str, int] = {}
  kept: dict[str, int] = {}
  for path, leaf in trees.flatten(stored.variables).items():
    layer = path.rpartition('/')[0] or path
    weights[layer] = weights.get(layer, 0) + leaf.size
    kept[layer] = kept.get(layer, 0) + int(np.count_nonzero(leaf))

  def row(size: artifact.ArraySize, count: int, nonzero: int, total: int) -> list[str]:
    figures = [f'{getattr(size, part):,}' for part in parts]
    share = [f'{count:,}', f'{nonzero / count:.1%}'] if count else ['', '']
    return [size.path, *share, *figures, f'{total:,}', f'{8 * total / count:.3f}' if count else '']

  for size in stored.sizes.layers():
    table.add_row(*row(size, weights.get(size.path, 0), kept.get(size.path, 0), size.total))
  table.add_row('header', *[''] * (2 + len(parts)), f'{stored.sizes.header:,}', '')
  whole = artifact.ArraySize('file', *(stored.sizes.part(part) for part in parts))
  table.add_section()
  table.add_row(*row(whole, sum(weights.values()), sum(kept.values()), stored.sizes.total))
  return table


def _operations(network: graph.Trace) -> rich.table.Table:
  table = rich.table.Table('module', 'kind', 'output', 'kernel', 'params', 'MACs', title='operations', box=None)
  for column in table.columns[4:]:
    column.justify = 'right'
  for operation in network.operations:
    kernel = network.parameters[operation.parameter] if operation.parameter else None
    shape = kernel.shape if kernel is not None else ()
    table.add_row(
      operation.module, f'{operation.kind}/{operation.groups}' if operation.groups > 1 else operation.kind,
      '×'.join(map(str, operation.output_shape[1:])), '×'.join(map(str, shape)),
      f'{kernel.size:,}' if kernel is not None else '', f'{operation.macs:,}')
  return table


def _groups(channels: graph.ChannelGraph) -> rich.table.Table:
  table = rich.table.Table('group', 'units', 'made by', 'read by', 'with', 'pinned by', title='channels', box=None)
  for group in channels.groups:
    by_role: dict[str, list[str]] = {}
    for member in group.members:
      by_role.setdefault(member.role, []).append(trees.without_collection(member.path).rpartition('/')[0])
    others = dict.fromkeys(path.removeprefix('batch_stats/') for role in ('depthwise', 'norm')
                           for path in by_role.get(role, ()))
    table.add_row(
      group.name, str(group.size), *(_shortened(paths) for paths in (
        by_role.get('producer', []), by_role.get('consumer', []), list(others))), group.pinned or '')
  return table


def _shortened(paths: list[str], most: int = 3) -> str:
  """The first few and how many more."""
  return ', '.join(paths[:most]) + (f' and {len(paths) - most} more' if len(paths) > most else '')


if __name__ == '__main__':
  commands.launch(main, most_arguments=1)
