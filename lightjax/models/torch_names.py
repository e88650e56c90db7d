"""Names of the reference implementations' modules, as rules from ours to theirs."""
from __future__ import annotations

import re
from collections.abc import Iterable

Rules = Iterable[tuple[str, str]]


def torch_name(module: str, rules: Rules) -> str:
  """The reference's name of a module: the first rule whose pattern matches all of `module`.

  Args:
    module: path of one of our modules.
    rules: pairs (regular expression, template of `re.Match.expand`).
  Returns:
    Name of the module in the reference's state_dict.
  Raises:
    ValueError: no rule matches.
  Example:
    >>> torch_name('stage2/block0/norm1', [(r'stage(\\d)/block(\\d+)/norm(\\d)', r'layer\\1.\\2.bn\\3')])
    'layer2.0.bn1'
  """
  for pattern, template in rules:
    if match := re.fullmatch(pattern, module):
      return match.expand(template)
  raise ValueError(f'torch_name({module!r}): the reference has no such module.')
