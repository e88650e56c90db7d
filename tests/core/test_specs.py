import functools
import importlib
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightjax.core import schedules, specs
from lightjax.prune import criteria

PLAIN = st.recursive(
  st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(),
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=10,
)


@pytest.fixture
def own(tmp_path, monkeypatch):
  """Writes a module of the user's and imports it anew."""
  monkeypatch.syspath_prepend(tmp_path)

  def write(source):
    (tmp_path / 'own_criteria.py').write_text(source)
    importlib.invalidate_caches()
    sys.modules.pop('own_criteria', None)

  yield write
  sys.modules.pop('own_criteria', None)


def test_names_of_a_namespace_and_of_the_users_own_files_resolve(own):
  own('def cubed(weight):\n  return abs(weight) ** 3\n')
  assert specs.resolve('magnitude', criteria, field='criterion') is criteria.magnitude
  assert specs.resolve('own_criteria:cubed', criteria, field='criterion')(-2) == 8


@pytest.mark.parametrize('name, message', [
  ('magnitud', r"criterion='magnitud' is none of lightjax.prune.criteria \(nearest: 'magnitude'.*'module:function'"),
  ('jnp', 'is none of'),
  ('own_criteria:cubd', "'own_criteria' has no 'cubd'; nearest: 'cubed'"),
  ('own_criteria:POWER', "'own_criteria:POWER' is no function but int"),
  ('not_there:f', "cannot import 'not_there'.*PYTHONPATH"),
  (':f', "named 'module:function'"),
  ('own_criteria:', "named 'module:function'"),
])
def test_names_that_are_not_there_are_errors_with_a_way_out(own, name, message):
  own('POWER = 3\ndef cubed(weight):\n  return abs(weight) ** POWER\n')
  with pytest.raises(specs.SpecError, match=message):
    specs.resolve(name, criteria, field='criterion')


def method(weight, *rest, bits, decay=0.9):
  if bits > 8:
    raise ValueError(f'bits={bits} is too many.')
  return weight, rest, bits, decay


def test_call_passes_fields_and_what_the_function_takes_of_the_callers():
  assert specs.call(method, {'bits': 4}, 'w', field='quantize', decay=0.5, unknown=1) == ('w', (), 4, 0.5)
  assert specs.call(method, {'bits': 4, 'decay': 0.1}, 'w', field='quantize', decay=0.5) == ('w', (), 4, 0.1)
  more = specs.call(method, {'bits': 4}, 'w', 'more', 'and more', field='quantize')
  assert more == ('w', ('more', 'and more'), 4, 0.9)
  assert specs.call(lambda **fields: fields, {'any': 1}, field='open', other=2) == {'any': 1, 'other': 2}


@pytest.mark.parametrize('fields, message', [
  ({'bit': 4}, "quantize.bit: method has no such field; nearest: 'bits'"),
  ({'bits': 4, 'weight': 1}, 'quantize.weight: method has no such field'),
  ({}, 'quantize: method needs bits'),
  ({'bits': 9}, 'quantize: bits=9 is too many'),
])
def test_fields_are_checked_against_the_signature(fields, message):
  with pytest.raises(specs.SpecError, match=message):
    specs.call(method, fields, 'w', field='quantize')


@given(PLAIN)
def test_the_canonical_form_is_plain_equal_and_its_own(value):
  form = specs.canonical(value)
  assert form == value
  assert specs.canonical(form) == form
  assert json.loads(json.dumps(form)) == form
  assert len(specs.digest(value)) == 16


def test_equal_values_have_one_identity():
  assert specs.digest({'a': 1, 'b': (0.5, 2.0)}) == specs.digest({'b': [0.5, 2], 'a': 1.0})
  assert specs.digest({'a': 1}) != specs.digest({'a': 2})
  assert specs.digest({'a': True}) != specs.digest({'a': 1})
  assert specs.digest({'a': 1}) != specs.digest({'a': '1'})


def test_a_digest_is_a_plain_sha256_and_the_same_in_another_process():
  import hashlib
  value = {'b': 2.0, 'a': [None, 'x']}
  expected = hashlib.sha256(b'{"a": [null, "x"], "b": 2}').hexdigest()
  assert specs.digest(value, length=64) == expected
  code = f'from lightjax.core import specs; print(specs.digest({value!r}))'
  again = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert again.stdout.strip() == specs.digest(value) == expected[:16]


def inner_function():
  def inner():
    pass
  return inner


@pytest.mark.parametrize('value', [
  float('nan'), float('inf'), np.ones(2), object(), {1, 2}, lambda: 0, inner_function(), functools.partial(print, 1),
])
def test_values_without_a_canonical_form_are_refused(value):
  with pytest.raises(specs.SpecError, match=r'no .*value of a config'):
    specs.canonical({'field': value})


def test_a_named_function_is_its_name():
  assert specs.canonical(schedules.cubic) == 'lightjax.core.schedules:cubic'
  assert specs.canonical(np.float32) == 'numpy:float32'


def test_fields_at_their_default_leave_the_identity_alone():
  def receiver(a, *, b=1, c=(2.0, 3), transfer=lambda x: x):
    pass
  assert specs.without_defaults(receiver, {'a': 1, 'b': 1.0, 'c': [2, 3]}) == {'a': 1}
  assert specs.without_defaults(receiver, {'b': 2, 'transfer': 'relu', 'd': 0}) == {'b': 2, 'transfer': 'relu', 'd': 0}


def test_editing_a_function_of_the_users_makes_a_new_identity(own):
  def digest(source):
    own(source)
    return specs.source_digest('own_criteria:cubed', specs.resolve('own_criteria:cubed', criteria, field='criterion'))

  first = digest('def cubed(weight):\n  return abs(weight) ** 3\n')
  assert digest('OTHER = 1\n\ndef cubed(weight):\n  return abs(weight) ** 3\n') == first
  assert digest('def cubed(weight):\n  return abs(weight) ** 3.5  # edited\n') != first
  assert specs.source_digest('magnitude', criteria.magnitude) is None


@pytest.mark.parametrize('text, expected', [
  ('n_of_m(2, 4)', ((2, 4), {})), ('n_of_m(2, m=(4, 5))', ((2,), {'m': (4, 5)})), ('n_of_m(n_of_m)', None),
])
def test_a_name_with_arguments_is_a_call(text, expected):
  namespace = types.ModuleType('namespace')
  namespace.__all__ = ['n_of_m']
  namespace.n_of_m = lambda n=0, m=0: (n, m)
  found = specs.resolve_call(text, namespace, field='pattern')
  if expected is None:
    assert found == (namespace.n_of_m, 0)
  else:
    positional, named = expected
    assert found == namespace.n_of_m(*positional, **named)
  assert specs.resolve_call('n_of_m', namespace, field='pattern') is namespace.n_of_m


@pytest.mark.parametrize('text', ['n_of_m(', 'n_of_m(1 +)', 'n_of_m(1)(2', 'n_of_m(open("x"))', 'n_of_m(x=3)'])
def test_arguments_that_are_none_are_refused(text):
  namespace = types.ModuleType('namespace')
  namespace.__all__ = ['n_of_m']
  namespace.n_of_m = lambda n=0, m=0: (n, m)
  with pytest.raises(specs.SpecError, match='pattern'):
    specs.resolve_call(text, namespace, field='pattern')
