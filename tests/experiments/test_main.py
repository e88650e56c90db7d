"""The list of commands."""
import subprocess
import sys

from experiments import __main__ as listing


def test_every_command_has_a_line_and_none_is_imported():
  program = "import sys; from experiments import __main__ as m; m.main(); assert not {'jax', 'flax'} & set(sys.modules)"
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
  commands = dict(listing.commands())
  assert 'python -m experiments.table' in commands
  for command, line in commands.items():
    assert line, f'{command}: a docstring with a first line'
    assert command in done.stdout


def test_help_of_a_table_imports_no_jax():
  program = "import sys; from experiments import table; assert not {'jax', 'matplotlib', 'jinja2'} & set(sys.modules)"
  assert subprocess.run([sys.executable, '-c', program], check=True).returncode == 0
