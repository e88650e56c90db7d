"""Prints a network's operations, the channels that are tied together, and totals; draws them if asked.

COMMAND: python -m experiments.inspect --model=resnet20 --image=32,32,3 --svg=resnet20.svg

Arguments of the network's constructor: --argument=classes=100
"""
from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import rich.console
import rich.table
from absl import flags

from experiments import commands, configuration, drawing
from lightjax import graph, models
from lightjax.core import specs, trees

_MODEL: flags.FlagHolder[str] = flags.DEFINE_string('model', '', 'Name of a network of lightjax.models.')
_ARGUMENTS = flags.DEFINE_multi_string('argument', [], "An argument of the network's constructor: name=value.")
_IMAGE = flags.DEFINE_list('image', ['224', '224', '3'], 'Height, width and channels of an image.')
_SVG = flags.DEFINE_string('svg', '', 'A file to draw the network into.')


def main() -> int:
  """Run the command."""
  arguments = {}
  for each in _ARGUMENTS.value:
    name, equals, value = each.partition('=')
    if not equals:
      raise specs.SpecError(f'--argument={each}: write name=value.')
    arguments[name] = configuration.parse_value(value)
  if len(_IMAGE.value) != 3 or not all(size.isdigit() and int(size) for size in _IMAGE.value):
    raise specs.SpecError(f'--image={",".join(_IMAGE.value)}: give height, width and channels, such as 32,32,3.')
  if not _MODEL.value:
    raise specs.SpecError('--model is missing: name a network of lightjax.models.')
  try:
    model = models.create(_MODEL.value, **arguments)
  except ValueError as error:
    raise specs.SpecError(str(error)) from None
  image = jax.ShapeDtypeStruct((1, *map(int, _IMAGE.value)), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  network = graph.trace(model.apply, variables, image)
  channels = graph.channels(model.apply, variables, image)
  console = rich.console.Console()
  if not console.is_terminal:
    console = rich.console.Console(width=200)
  console.print(_operations(network))
  console.print(_groups(channels))
  parameters = sum(leaf.size for leaf in trees.flatten(variables).values())
  prunable = sum(group.size for group in channels.prunable)
  console.print(
    f'{parameters:,} parameters, {network.macs:,} MACs; {prunable:,} units in {len(channels.prunable)} groups can be '
    f'removed, {len(channels.groups) - len(channels.prunable)} groups are pinned.', highlight=False)
  if _SVG.value:
    pathlib.Path(_SVG.value).write_text(drawing.svg(network, channels), encoding='utf-8')
    console.print(f'drawn: {_SVG.value}', highlight=False)
  return 0


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
  commands.launch(main)
