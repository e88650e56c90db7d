"""Renders the table of all networks: parameters and MACs beside published figures and reference implementations.

Only shapes are traced. A figure of a reference implementation must be equal as an integer, a published one when ours is
rounded to the printed digits; where it is not, `zoo_networks.DEVIATIONS` says why. The command fails where a figure is
another and nothing says why, and where a published figure has neither a row nor a reason to have none.

COMMAND: python -m experiments.zoo [--models='mobilenet.*'] [--output=DIR]
"""
from __future__ import annotations

import csv
import decimal
import functools
import gc
import math
import multiprocessing
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags

from experiments import commands, configuration, zoo_networks
from experiments.engine import published
from experiments.engine.lines import NOTES, RECALLED
from experiments.engine.rows import dump, write_text
from lightjax import models
from lightjax.core import specs
from lightjax.graph.trace import trace
from lightjax.interop import preprocessing
from lightjax.measure import counts
from lightjax.train import devices

_MODELS = flags.DEFINE_string('models', '.*', 'Regular expression: only networks whose name it matches.')

FOLDER = pathlib.Path(__file__).parent / 'results' / 'zoo'

CUT_OFF = 'the published digits are cut off, not rounded'


class Network(NamedTuple):
  """A network with arguments, at an input size: what is counted once.

  Attributes:
    name: in lightjax.models.
    arguments: of its constructor that are not at their default, as text.
    size: height and width of its input, pixels.
  """
  name: str
  arguments: str
  size: int


class Figures(NamedTuple):
  """Trainable parameters, and MACs of one image."""
  params: int
  macs: int


@functools.cache
def rows_of(subject: str) -> tuple[dict[str, str], ...]:
  """The rows of a file of experiments/published."""
  with (published.FOLDER / f'{subject}.csv').open(encoding='utf-8', newline='') as file:
    return tuple(csv.DictReader(file))


def first(name: str, rules: Iterable[Any]) -> Any:
  """The first rule whose pattern matches all of a name, None if there is none."""
  return next((rule for rule in rules if re.fullmatch(rule.pattern, name)), None)


def title(row: Mapping[str, str]) -> str:
  """What a row of zoo.csv is called: 'family: architecture variant'."""
  return f'{row["family"]}: {row["arch"]} {row["variant"]}'.strip()


def arguments(text: str) -> dict[str, Any]:
  """Arguments of a constructor from the text of a rule.

  Example:
    >>> arguments('width=0.5 variant=megvii')
    {'width': 0.5, 'variant': 'megvii'}
  """
  pairs = (pair.partition('=') for pair in text.split())
  return {name: configuration.parse_value(value) for name, _, value in pairs}


def network_of(name: str, rule: zoo_networks.Same, size: str) -> Network:
  """The network that a name is of, by the rule that matches it; arguments at their default are left out."""
  found = re.fullmatch(rule.pattern, name)
  assert found is not None
  network = found.expand(rule.network)
  constructor = specs.resolve(network, models, field=f'zoo_networks, {name!r}')
  given = specs.without_defaults(constructor, arguments(found.expand(rule.arguments)))
  # No spaces within a value: they separate the arguments.
  text = ' '.join(f'{key}={value}'.replace(' ', '') for key, value in given.items())
  return Network(network, text, int(size or 32))


def plan(pattern: str = '.*') -> tuple[dict[Network, dict[str, list[dict[str, str]]]], dict[str, list[str]]]:
  """What is to be counted, with what is known of it.

  Args:
    pattern: regular expression for the names of networks.
  Returns:
    (networks, absent): for each network its rows of reference_counts.csv ('references') and of zoo.csv ('published');
    and what is no network of ours, by the reason.
  Raises:
    SpecError: a row of either file that no rule speaks of.
  """
  found: dict[Network, dict[str, list[dict[str, str]]]] = {}
  absent: dict[str, list[str]] = {}
  for subject, kind in (('reference_counts', 'references'), ('zoo', 'published')):
    for row in rows_of(subject):
      name = row['impl'] if kind == 'references' else title(row)
      reason, rule = first(name, zoo_networks.ABSENT), first(name, zoo_networks.PUBLISHED)
      if reason is None and rule is None:
        name = row['impl'] if kind == 'references' else row['ref_impl']
        rule = first(name, zoo_networks.IMPLEMENTATIONS)
      if reason is not None:
        absent.setdefault(reason.reason, []).append(name)
      elif rule is None:
        raise specs.SpecError(f'{subject}.csv: no rule of experiments/zoo_networks.py speaks of {name!r}.')
      else:
        network = network_of(name, rule, row['resolution'])
        found.setdefault(network, {'references': [], 'published': []})[kind].append(row)
  for name in set(models.names()) - {network.name for network in found}:
    found[Network(name, '', preprocessing.of(name).size)] = {'references': [], 'published': []}
  networks = sorted(
    found, key=lambda network: (models.names().index(network.name), network.arguments, -network.size))
  return {network: found[network] for network in networks if re.fullmatch(pattern, network.name)}, absent


def figures(network: Network) -> Figures:
  """Parameters and MACs of a network, by shape only.

  One trace of `init` gives both, in half the time of `measure.count`, which needs two; that is for networks with
  auxiliary heads, which `init` runs and evaluation does not.
  """
  model = models.create(network.name, **arguments(network.arguments))
  shape = (network.size, network.size, 1 if network.size == 28 else 3)
  if getattr(model, 'aux_logits', False):
    counted = counts.count(model, shape)
    return Figures(counted.params, counted.macs)

  def init(_: Any, x: jax.Array) -> Any:
    rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
    return model.init_with_output(rngs, x)

  traced = trace(init, {}, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
  _, variables = traced.outputs
  return Figures(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params'])), traced.macs)


def count_all(networks: Sequence[Network]) -> dict[Network, Figures]:
  """`figures` of all networks, in as many processes as there are cores."""
  # The deep ones first, so that none of them is what the others wait for in the end; depths are in the names.
  deepest = sorted(networks, key=lambda network: -max(map(int, re.findall(r'\d+', network.name)), default=0))
  with futures.ProcessPoolExecutor(
      min(devices.cores(), len(networks)), multiprocessing.get_context('spawn'), _collect_rarely) as pool:
    return dict(zip(deepest, pool.map(figures, deepest), strict=True))


def _collect_rarely() -> None:
  """Traces make no garbage in circles to speak of, and looking for it costs a fifth of the time."""
  gc.freeze()
  gc.set_threshold(200_000, 100, 1000)


def compare(printed: str, ours: int) -> str:
  """How a published figure and ours go together.

  Args:
    printed: the published figure in millions, with the digits that were printed; '<25' for a bound. Zeros at the end
      of thousands are no digits: they were printed as billions.
    ours: counted.
  Returns:
    'equal' when ours rounded to the printed digits is the published one; 'cut off' when it has the same digits but
    was not rounded; otherwise by how much ours is more, '+3.1 %'.
  Example:
    >>> compare('4.2', 4_231_976), compare('300', 300_774_272), compare('3.4', 3_504_872)
    ('equal', 'cut off', '+3.1 %')
  """
  value, exact = decimal.Decimal(printed.removeprefix('<')), decimal.Decimal(ours) / 10**6
  more = f'{float(exact / value - 1):+.1%}'.replace('%', ' %')
  if printed.startswith('<'):
    return 'equal' if exact < value else more
  unit = decimal.Decimal(10) ** int(value.normalize().as_tuple().exponent if value >= 1000
                                    else value.as_tuple().exponent)
  for name, rounding in (('equal', decimal.ROUND_HALF_UP), ('cut off', decimal.ROUND_FLOOR)):
    if (exact / unit).to_integral_value(rounding) * unit == value:
      return name
  return more


def judged(network: Network, ours: Figures, known: Mapping[str, list[dict[str, str]]]) -> dict[str, Any]:
  """A row of the result: our figures, those of others, and where they are other ones the reason, '' for none."""
  def judge(name: str, figure: str, value: str, verdict: str) -> dict[str, str]:
    if verdict == 'equal':
      return {'value': value, 'verdict': verdict}
    if verdict == 'cut off':
      return {'value': value, 'verdict': verdict, 'reason': CUT_OFF}
    rule = first(name, (each for each in zoo_networks.DEVIATIONS if each.figure == figure))
    return {'value': value, 'verdict': verdict, 'reason': rule.reason if rule else ''}

  row: dict[str, Any] = {
    'network': network.name, 'arguments': network.arguments, 'size': network.size, 'params': ours.params,
    'MACs': ours.macs, 'references': [], 'published': []}
  for each in known['references']:
    values = {'params': each['params_trainable'], 'MACs': each['macs_conv_linear']}
    more = {figure: row[figure] - int(value) for figure, value in values.items() if value}
    row['references'].append({'name': each['impl']} | {
      figure: judge(each['impl'], figure, values[figure], f'{difference:+,}' if difference else 'equal')
      for figure, difference in more.items()})
  for each in known['published']:
    values = {'params': each['paper_params_M'], 'MACs': each['paper_macs_M']}
    if any(values.values()):
      row['published'].append({'name': title(each), 'recalled': each['confidence'] == 'recalled'} | {
        figure: judge(f'{title(each)} {each["resolution"]}', figure, value, compare(value, row[figure]))
        for figure, value in values.items() if value})
  return row


def unnamed(rows: Iterable[Mapping[str, Any]]) -> list[str]:
  """The figures that are other than ours without a reason, as text."""
  return [
    f'{row["network"]}({row["arguments"]}) at {row["size"]}: {row[figure]:,} {figure}, {other["name"]} has '
    f'{other[figure]["value"]}'
    for row in rows for other in (*row['references'], *row['published']) for figure in ('params', 'MACs')
    if figure in other and other[figure].get('reason') == '']


def needless(rows: Iterable[Mapping[str, Any]], absent: Mapping[str, Sequence[str]]) -> list[str]:
  """The rules of `zoo_networks` that no row needs, of a result of all networks, as text."""
  used = {figure['reason'] for row in rows for other in (*row['references'], *row['published'])
          for figure in other.values() if isinstance(figure, dict) and 'reason' in figure} | set(absent)
  return [f'{type(rule).__name__} {rule.pattern!r}' for rule in (*zoo_networks.DEVIATIONS, *zoo_networks.ABSENT)
          if rule.reason not in used]


def markdown(rows: Sequence[Mapping[str, Any]], absent: Mapping[str, Sequence[str]]) -> str:
  """The result as a table, a line for each published figure, reasons as footnotes.

  Args:
    rows: of `judged`.
    absent: reason to the names of what is no network of ours.
  Returns:
    The page.
  """
  reasons: dict[str, int] = {}

  def mark(figure: Mapping[str, str], unit: str = '') -> str:
    if figure['verdict'] == 'equal':
      return f'{figure["value"]}{unit}'
    number = reasons.setdefault(figure['reason'], len(reasons) + 1)
    verdict = '' if figure['verdict'] == 'cut off' else f' ({figure["verdict"]})'
    return f'{figure["value"]}{unit}{verdict} [{number}]'

  def reference(other: Mapping[str, Any]) -> str:
    library = re.split(r'[.:/ ]', other['name'].removeprefix('HobbitLong/'))[0]
    found = [f'{figure} {mark(other[figure])}' for figure in ('params', 'MACs')
             if figure in other and other[figure]['verdict'] != 'equal']
    return f'{library}: {", ".join(found)}' if found else library

  lines = []
  for row in rows:
    name = row['network'] + (f' `{row["arguments"]}`' if row['arguments'] else '')
    equal = ', '.join(dict.fromkeys(map(reference, row['references']))) or '-'
    ours = f'| {name} | {row["size"]} | {row["params"]:,} | {row["MACs"]:,} | {equal} |'
    lines += [
      f'{ours} {other["name"]}{" " + RECALLED if other["recalled"] else ""} | '
      + ' | '.join(mark(other[figure], ' M') if figure in other else '-' for figure in ('params', 'MACs')) + ' |'
      for other in row['published']] or [f'{ours} - | - | - |']
  about = (
    'Written by `python -m experiments.zoo`: trainable parameters (scales and biases of norms are in, running '
    'statistics are not) and multiply-adds of convolutions and dense layers for one image of the size, by shape '
    'only. A reference implementation that is named alone counts the same integers. A published figure without a '
    'number is equal when ours is rounded to its digits; in brackets stands by how much ours is more, and the '
    'number is the reason. '
    f'{RECALLED} {NOTES[RECALLED]}')
  notes = [f'{number}. {reason[0].upper()}{reason[1:]}.' for reason, number in reasons.items()]
  without = [
    f'- {reason[0].upper()}{reason[1:]}: {", ".join(dict.fromkeys(names))}.' for reason, names in absent.items()]
  return '\n'.join([
    '# All networks, beside what was published of them', '', _wrapped(about), '',
    '| network | input | params | MACs | reference | published by | params | MACs |',
    '|---|--:|--:|--:|---|---|--:|--:|', *lines, '', *map(_wrapped, notes),
    *(['', '## Published, and no network here', '', *map(_wrapped, without)] if absent else [])]) + '\n'


def _wrapped(text: str) -> str:
  return textwrap.fill(text, 120, subsequent_indent='  ' if text[0] in '-0123456789' else '', break_on_hyphens=False)


def main() -> int:
  """Run the command."""
  todo, absent = plan(_MODELS.value)
  if not todo:
    raise specs.SpecError(f'--models={_MODELS.value}: no network has such a name.')
  ours = count_all(list(todo))
  rows = [judged(network, ours[network], known) for network, known in todo.items()]
  complete = len({row['network'] for row in rows}) == len(models.names())
  output = pathlib.Path(flags.FLAGS.output or FOLDER)
  if flags.FLAGS.output or complete:
    write_text(output / 'rows.jsonl', dump(rows))
    write_text(output / 'table.md', markdown(rows, absent))
    print(f'written: {output}/ rows.jsonl, table.md: {len(rows)} rows')
  else:
    print(markdown(rows, {}))
  wrong = unnamed(rows) + (needless(rows, absent) if complete else [])
  for line in wrong:
    print(f'error: {line}; see experiments/zoo_networks.py', file=sys.stderr)
  return 1 if wrong else 0


if __name__ == '__main__':
  flags.DEFINE_string('output', '', 'Folder of the table; without it results/zoo for all networks, else the terminal.')
  commands.launch(main)
