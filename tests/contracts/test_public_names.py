"""Every public name of every package exists, is documented and annotated, and every example in a docstring runs."""
import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil

import pytest

import lightjax

MODULES = sorted(
  each.name for each in pkgutil.walk_packages(lightjax.__path__, 'lightjax.') if not each.name.endswith('__main__'))


# Packages whose `__all__` says of every argument what it is; models say it once, on the class.
EXPLAINED = (
  'artifact', 'binarize', 'distill', 'factorize', 'graph', 'measure', 'nn', 'prune', 'quantize', 'search', 'share')


def public(module):
  """(name, object) of a module's `__all__`; without one, of what is defined in it and has no underscore."""
  defined = [name for name, each in vars(module).items()
             if getattr(each, '__module__', '') == module.__name__ and not name.startswith('_')]
  return [(name, getattr(module, name)) for name in getattr(module, '__all__', defined)]


def functions(module):
  """The public functions that are defined in this very module."""
  return [(name, each) for name, each in public(module)
          if inspect.isroutine(inspect.unwrap(each)) and each.__module__ == module.__name__]


@pytest.fixture(params=MODULES)
def module(request):
  return importlib.import_module(request.param)


def test_packages_are_found():
  assert {'lightjax.core.transform', 'lightjax.prune.criteria', 'lightjax.nn.blocks'} <= set(MODULES)


def test_every_public_name_exists_once_and_is_no_private_one(module):
  names = list(getattr(module, '__all__', ()))
  assert [name for name in names if not hasattr(module, name)] == []
  assert len(names) == len(set(names))
  assert [name for name in names if name.startswith('_')] == []


def test_modules_functions_and_classes_have_a_docstring(module):
  assert module.__doc__, module.__name__
  for name, each in public(module):
    assert inspect.getdoc(each), f'{module.__name__}.{name}'


def test_public_functions_are_annotated(module):
  for name, function in functions(module):
    signature = inspect.signature(function)
    missing = [each.name for each in signature.parameters.values() if each.annotation is inspect.Parameter.empty]
    assert not missing, f'{module.__name__}.{name}: {missing}'
    assert signature.return_annotation is not inspect.Signature.empty, f'{module.__name__}.{name}'


def test_public_functions_document_the_arguments_that_they_name(module):
  """An `Args` names only arguments that are there, and, where there is one, all of them but those of `**`."""
  for name, function in functions(module):
    documented = documented_arguments(inspect.getdoc(function))
    taken = {str(each).split(':')[0].split('=')[0].strip() for each in inspect.signature(function).parameters.values()}
    assert not documented or documented == taken, f'{module.__name__}.{name}: {documented ^ taken}'


def test_public_functions_of_several_arguments_have_args_and_returns(module):
  if module.__name__.split('.')[1] not in EXPLAINED or not hasattr(module, '__all__'):
    return
  for name, function in functions(module):
    text, signature = inspect.getdoc(function), inspect.signature(function)
    if len(signature.parameters) > 1:
      assert 'Args:' in text, f'{module.__name__}.{name}'
      returns_nothing = signature.return_annotation in (None, 'None')
      assert returns_nothing or 'Returns:' in text or 'Yields:' in text, f'{module.__name__}.{name}'


def documented_arguments(text):
  """The names under `Args:`, stars included."""
  names, inside = set(), False
  for line in text.splitlines():
    if not line.startswith(' '):
      inside = line.startswith('Args')
    elif inside and line.startswith('  ') and not line.startswith('   ') and ':' in line:
      names |= {name.strip() for name in line.split(':')[0].split(',')}
  return names


def examples(module):
  """The doctests of a module, read from its source: checked annotations hide functions from doctest's own search."""
  tree = ast.parse(pathlib.Path(module.__file__).read_text())
  for node in ast.walk(tree):
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
      name = f'{module.__name__}.{getattr(node, "name", "__doc__")}'
      found = doctest.DocTestParser().get_doctest(ast.get_docstring(node) or '', dict(vars(module)), name, None, None)
      if found.examples:
        yield found


def test_examples_in_docstrings_run(module):
  for example in examples(module):
    failures = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=failures.append)
    assert result.failed == 0, ''.join(failures)


def test_examples_are_found():
  from lightjax.core import schedules, trees
  assert {each.name.rpartition('.')[2] for each in examples(schedules)} == {'alternating', 'cubic'}
  assert {each.name.rpartition('.')[2] for each in examples(trees)} == {'path_string', 'nearest'}
