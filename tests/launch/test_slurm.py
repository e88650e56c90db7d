"""launch/slurm against a real Slurm: one node, started here in a folder of its own, where it is installed.

Debian: apt-get install slurm-wlm munge. Root starts it, since slurmd runs jobs of other users.
"""
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from experiments.engine import rows

ROOT = pathlib.Path(__file__).parents[2]
FAKES = ROOT / 'tests' / 'experiments'
PROGRAMS = ('munged', 'mungekey', 'slurmctld', 'slurmd', 'sbatch', 'srun', 'scontrol', 'squeue')
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f'{os.environ["PATH"]}:/usr/sbin') is None]
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(bool(MISSING), reason=f'no Slurm here: {", ".join(MISSING)} not found'),
  pytest.mark.skipif(hasattr(os, 'geteuid') and os.geteuid() != 0, reason='only root can start slurmd')]

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""

# Stands for the interpreter: `-m experiments.table` with units that train nothing.
PYTHON = """#!/bin/bash
export PYTHONPATH={path}
exec {python} -c "
import sys
import fake_unit
sys.modules['experiments.unit'] = fake_unit
import experiments
experiments.unit = fake_unit
from absl import app
from experiments import table
app.run(table.main, argv=['table', *sys.argv[3:]], flags_parser=table._parse)
" "$@"
"""


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
  """A running Slurm of one node with four cores; its folder."""
  folder = tmp_path_factory.mktemp('slurm')
  for name in ('state', 'spool'):
    (folder / name).mkdir()
  ports = []
  for _ in range(2):
    with socket.socket() as free:
      free.bind(('', 0))
      ports.append(free.getsockname()[1])
  (folder / 'slurm.conf').write_text(CONFIGURATION.format(host=socket.gethostname(), ports=ports, folder=folder))
  monkeypatch.setenv('SLURM_CONF', str(folder / 'slurm.conf'))
  monkeypatch.setenv('PATH', f'{os.environ["PATH"]}:/usr/sbin')
  subprocess.run(['mungekey', f'--keyfile={folder}/munge.key'], check=True)
  daemons = []
  for command in (
      ['munged', '--foreground', '--force', f'--key-file={folder}/munge.key', f'--socket={folder}/munge.socket',
       f'--pid-file={folder}/munge.pid', f'--seed-file={folder}/munge.seed', f'--log-file={folder}/munge.log'],
      ['slurmctld', '-D'], ['slurmd', '-D']):
    with (folder / f'{command[0]}.out').open('w') as output:
      daemons.append(subprocess.Popen(command, stdout=output, stderr=output))
    time.sleep(1.0)
  try:
    wait_for(lambda: 'idle' in ask('sinfo', '--noheader', '--format=%t'), folder)
    yield folder
  finally:
    subprocess.run(['scancel', '--user=root'], capture_output=True)
    time.sleep(1.0)
    for daemon in reversed(daemons):
      daemon.terminate()
      daemon.wait(60)


def ask(*command):
  return subprocess.run(command, capture_output=True, text=True).stdout


def wait_for(condition, folder, *, seconds=240):
  deadline = time.monotonic() + seconds
  while not condition():
    logs = {path.name: path.read_text()[-2000:] for path in folder.glob('*.out')}
    assert time.monotonic() < deadline, f'{ask("squeue")}\n{ask("scontrol", "show", "job")}\n{logs}'
    time.sleep(0.5)


def test_a_table_of_four_cells_is_preempted_once_and_equals_the_local_one(slurm, tmp_path):
  (tmp_path / 'fake_base.py').write_text(textwrap.dedent("""
    from experiments import configuration

    def get_config(arg=''):
      config = configuration.default()
      config.update({'method': 'a', 'sparsity': 0.0, 'behaviour': 'ok', 'teacher': ''})
      return config
    """))
  table = tmp_path / 'fake.py'
  table.write_text('"""Four cells."""\nBASE, SEEDS, METRIC = "fake_base.py", (0,), "test/accuracy"\n\n\ndef cells():\n'
                   '  for method in "abc":\n    yield {"m": method}, {"method": method}\n'
                   '  yield {"m": "d"}, {"method": "d", "behaviour": "slow once"}\n')
  python = tmp_path / 'python'
  python.write_text(PYTHON.format(path=f'{ROOT}:{FAKES}', python=sys.executable))
  python.chmod(0o755)

  def run(launcher, workdir, *options):
    done = subprocess.run(
      [ROOT / 'launch' / launcher, f'--table={table}', f'--python={python}', f'--workdir={tmp_path / workdir}',
       *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

  run('slurm', 'there', '--parts=4', '--cpus=1', '--memory=100M', '--time=10', '--partition=low')
  units = tmp_path / 'there' / 'units'

  def at_the_slow_one():
    return len(list(units.glob('*/result.json'))) == 3 and len(list(units.glob('*/ran.txt'))) == 4

  wait_for(at_the_slow_one, slurm)
  urgent = tmp_path / 'urgent'
  urgent.write_text('#!/bin/bash\nsleep 1\n')
  subprocess.run(['sbatch', '--partition=high', '--ntasks=4', '--output=/dev/null', str(urgent)], check=True)
  wait_for(lambda: not ask('squeue', '--noheader').strip(), slurm)

  assert len(list(units.glob('*/saved.txt'))) == 1  # it was stopped by SIGTERM, and went on
  assert sorted(len(path.read_text().splitlines()) for path in units.glob('*/ran.txt')) == [1, 1, 1, 2]
  (tmp_path / 'here' / 'units').mkdir(parents=True)
  for path in units.glob('*/saved.txt'):  # here nothing stops it: it need not be slow
    (tmp_path / 'here' / 'units' / path.parent.name).mkdir()
    shutil.copy(path, tmp_path / 'here' / 'units' / path.parent.name)
  run('local', 'here', '--jobs=1')
  run('local', 'there', '--jobs=1', '--', '--notrain')
  there, here = (rows.read(tmp_path / name / 'tables' / 'fake' / 'rows.jsonl') for name in ('there', 'here'))
  assert len(here) == 4 and all(row['status'] == 'done' for row in here)
  assert there == here
