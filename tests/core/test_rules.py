import pytest

from lightjax.core import rules
from lightjax.core.typing import Layout

# Alphabetical, as a tree has them; the graph's order is stem, block, depth, fc, head.
PATHS = ('aux/kernel', 'block/kernel', 'block/bias', 'depth/kernel', 'fc/kernel', 'head/kernel', 'norm/scale',
         'stem/kernel')
LAYOUTS = {
  'aux/kernel': Layout('dense', (1,), 5),
  'block/kernel': Layout('conv', (3,), 1),
  'depth/kernel': Layout('conv', (3,), 2),
  'fc/kernel': Layout('dense', (1,), 3),
  'head/kernel': Layout('dense', (1,), 4),
  'stem/kernel': Layout('conv', (3,), 0),
}
MIDDLE = ('block/kernel', 'depth/kernel', 'fc/kernel', 'head/kernel')


def taken(patterns, **options):
  return {line.path: (line.by, line.rule) for line in rules.assign(patterns, PATHS, LAYOUTS, **options)}


def test_the_defaults_go_by_the_order_of_the_graph():
  assert rules.roles(PATHS, LAYOUTS) == {
    'block/bias': 'not_kernel', 'norm/scale': 'not_kernel', 'stem/kernel': 'first_conv', 'aux/kernel': 'last_dense'}
  assert rules.selected(PATHS, LAYOUTS) == MIDDLE


def test_roles_are_those_of_the_network_when_only_some_parameters_are_in_question():
  assert rules.roles(('block/kernel', 'fc/kernel', 'block/bias'), LAYOUTS) == {'block/bias': 'not_kernel'}


def test_a_default_is_lifted_by_leaving_it_out():
  assert rules.selected(PATHS, LAYOUTS, skip=('not_kernel', 'last_dense')) == (*MIDDLE, 'stem/kernel')
  assert rules.selected(PATHS, LAYOUTS, skip=()) == PATHS
  with pytest.raises(ValueError, match="skip='first_cnv' is no default; nearest: 'first_conv'"):
    rules.selected(PATHS, LAYOUTS, skip=('first_cnv',))


def test_the_first_match_wins_and_every_parameter_has_a_line():
  lines = taken(('(block|fc)/.*', '.*/kernel'))
  assert tuple(lines) == PATHS
  assert lines['block/kernel'] == lines['fc/kernel'] == ('(block|fc)/.*', 0)
  assert lines['depth/kernel'] == lines['head/kernel'] == ('.*/kernel', 1)
  assert lines['stem/kernel'] == ('default: first_conv', None)
  assert lines['block/bias'] == ('default: not_kernel', None)
  assert taken(('block/.*',))['fc/kernel'] == ('no rule', None)


def test_patterns_match_whole_paths():
  with pytest.raises(ValueError, match='matches no parameter'):
    taken(('block',))


def test_a_rule_that_matches_nothing_names_the_nearest():
  with pytest.raises(ValueError, match=r"rule 2 'blok/kernel' matches no parameter; nearest: 'block/kernel'"):
    taken(('.*/kernel', 'blok/kernel'))


def test_a_rule_that_matches_defaults_only_says_so_and_gives_the_remedy():
  message = r"only parameters that a default leaves alone \('stem/kernel': first_conv\); drop"
  with pytest.raises(ValueError, match=message):
    taken(('stem/.*', '.*/kernel'))
  assert taken(('stem/.*', '.*/kernel'), skip=('not_kernel',))['stem/kernel'] == ('stem/.*', 0)


def test_a_shadowed_rule_is_an_error():
  with pytest.raises(ValueError, match=r"rule 2 'block/kernel' comes too late"):
    taken(('.*/kernel', 'block/kernel'))
