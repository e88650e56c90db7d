"""The launchers print what they would run, and run it: against stand-ins for the programs of the clusters."""
import ast
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = 'experiments/configs/lenet300.py'
NEEDED = {
  'local': (), 'slurm': (), 'tpu': ('--zone=z', '--project=p', '--bucket=gs://b/runs'),
  'kubernetes': ('--image=i', '--claim=c')}


def launch(name, *arguments, path=None, **environment):
  given = os.environ | environment | ({} if path is None else {'PATH': f'{path}:{os.environ["PATH"]}'})
  return subprocess.run([ROOT / 'launch' / name, *NEEDED[name], *arguments], capture_output=True, text=True, env=given)


def shown(name, *arguments):
  done = launch(name, '--dry-run', *arguments)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture
def program(tmp_path):
  """Writes a program into a folder for PATH; every call of it is a line of `calls`."""
  folder = tmp_path / 'bin'
  folder.mkdir()

  def write(name, body):
    path = folder / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
    path.chmod(0o755)
    return path

  return write


@pytest.mark.parametrize('name', NEEDED)
def test_a_launcher_has_one_of_two_things_to_run_and_says_what_is_wrong(name):
  for arguments in ((), ('--table=a', '--config=b'), ('--tabel=a',), ('--table=a', 'b')):
    done = launch(name, '--dry-run', *arguments)
    assert done.returncode == 2 and 'error: ' in done.stderr and not done.stdout
  text = launch(name, '--help').stdout
  assert f'launch/{name} --table=' in text and 'Needed' in text and 'esults' in text


@pytest.mark.parametrize('name', NEEDED)
def test_a_dry_run_shows_the_whole_command(name):
  table = shown(name, '--table=quickstart', '--', '--seeds=0,1')
  assert 'experiments.table' in table and '--table=quickstart' in table and '--seeds=0,1' in table
  config = shown(name, f'--config={CONFIG}', '--config.epochs=5')
  assert 'experiments.run' in config and f'--config={CONFIG}' in config and '--config.epochs=5' in config
  assert '--part' not in config


def test_launchers_import_nothing_of_the_project():
  tree = ast.parse((ROOT / 'launch' / 'kubernetes').read_text())
  imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
  assert {alias.name.split('.')[0] for node in imports for alias in node.names} <= sys.stdlib_module_names
  assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
  for name in ('arguments', 'local', 'slurm', 'tpu'):
    assert subprocess.run(['bash', '-n', ROOT / 'launch' / name]).returncode == 0


def test_local_runs_what_it_shows_with_the_exit_code_of_it(program, tmp_path):
  python = program('python', 'exit 143')
  arguments = (f'--python={python}', '--table=quickstart', '--jobs=3', f'--workdir={tmp_path}/a b', '--', '--seeds=0,1')
  done = launch('local', *arguments)
  assert done.returncode == 143
  line = f'-m experiments.table --table=quickstart --jobs=3 --workdir={tmp_path}/a b --seeds=0,1\n'
  assert (tmp_path / 'calls').read_text() == f'python {line}'
  assert shown('local', *arguments) == done.stdout
  assert shown('local', '--table=quickstart').count('--jobs=') == 1


def test_the_batch_script_has_a_job_a_part():
  script = shown('slurm', '--table=quickstart', '--parts=4', '--gpus=1', '--partition=short', '--workdir=/runs')
  assert subprocess.run(['bash', '-n'], input=script, text=True).returncode == 0
  lines = script.splitlines()
  for line in ('--array=0-3', '--gpus=1', '--partition=short', '--requeue', '--output=/runs/slurm/%x_%A_%a.log'):
    assert f'#SBATCH {line}' in lines
  assert lines[0] == '#!/bin/bash' and max(i for i, line in enumerate(lines) if line.startswith('#SBATCH')) < next(
    i for i, line in enumerate(lines) if line.startswith('cd '))
  assert '--part=$SLURM_ARRAY_TASK_ID/4 --workdir=/runs' in script
  alone = shown('slurm', f'--config={CONFIG}', '--workdir=/runs')
  assert '--array' not in alone and 'SLURM_ARRAY_TASK_ID' not in alone and '/%x_%j.log' in alone


@pytest.mark.parametrize(('ending', 'queued'), [('exit 0', False), ('exit 1', False), ('exit 143', True)])
def test_the_batch_script_queues_again_what_was_stopped_and_nothing_else(program, tmp_path, ending, queued):
  python = program('python', ending)
  program('sbatch', 'SLURM_ARRAY_TASK_ID=2 SLURM_JOB_ID=7 bash "$1"')
  program('srun', 'exec "$@"')
  program('scontrol', '')
  arguments = (f'--python={python}', '--table=quickstart', '--parts=3', f'--workdir={tmp_path}/runs')
  done = launch('slurm', *arguments, path=tmp_path / 'bin')
  assert done.returncode == int(ending.split()[1])
  calls = (tmp_path / 'calls').read_text()
  assert f'python -m experiments.table --table=quickstart --jobs=1 --part=2/3 --workdir={tmp_path}/runs' in calls
  assert ('scontrol requeue 7' in calls) == queued
  script = (tmp_path / 'runs' / 'slurm' / 'quickstart.sbatch').read_text()
  assert script == shown('slurm', *arguments)


def test_a_batch_script_that_gets_sigterm_waits_until_the_run_has_saved(program, tmp_path):
  python = program('python', f'trap "sleep 0.5; touch {tmp_path}/saved; exit 143" TERM\ntouch {tmp_path}/began\n'
                   'while :; do sleep 0.05; done')
  program('srun', 'exec "$@"')
  program('scontrol', '')
  script = tmp_path / 'script'
  script.write_text(shown('slurm', f'--config={CONFIG}', f'--python={python}', f'--workdir={tmp_path}'))
  environment = os.environ | {'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}', 'SLURM_JOB_ID': '7'}
  process = subprocess.Popen(['bash', script], env=environment)
  deadline = time.monotonic() + 30
  while not (tmp_path / 'began').exists() and time.monotonic() < deadline:
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  assert process.wait(30) == 143 and (tmp_path / 'saved').exists()
  assert 'scontrol requeue 7' in (tmp_path / 'calls').read_text()


# A slice is there after its creation; the first ssh to slice 0 is cut, as when a slice is taken back.
GCLOUD = '''
state=STATE/$(echo "$*" | grep -o 'quickstart-[0-9]' | head -1)
case "$*" in
  *queued-resources\\ create*) echo ACTIVE > $state ;;
  *describe*) cat $state ;;
  *delete*) rm $state ;;
  *ssh\\ quickstart-0*) [ -e STATE/cut ] || { touch STATE/cut; echo SUSPENDED > $state; exit 255; } ;;
  *ssh\\ quickstart-1*) exit 2 ;;
esac
'''


def test_a_slice_that_is_taken_back_is_asked_for_again_and_goes_on(program, tmp_path):
  program('gcloud', GCLOUD.replace('STATE', str(tmp_path)))
  done = launch('tpu', '--table=quickstart', '--slices=2', '--seconds=1', path=tmp_path / 'bin')
  assert done.returncode == 2, done.stderr  # slice 1 has a wrong command: tried once
  assert 'quickstart-0: stopped (code 255), try 1 of 20' in done.stdout
  calls = (tmp_path / 'calls').read_text()
  counts = [[calls.count(f'{word} quickstart-{slice}') for slice in (0, 1)]
            for word in ('queued-resources create', 'tpu-vm ssh', 'queued-resources delete')]
  assert counts == [[2, 1], [2, 1], [2, 1]]
  assert '--part=0/2' in calls and '--part=1/2' in calls and '--spot' in calls
  assert 'rsync --recursive gs://b/runs/quickstart-0 runs' in calls


def test_slices_of_several_hosts_are_refused():
  done = launch('tpu', '--table=quickstart', '--type=v4-16', '--dry-run')
  assert done.returncode == 2 and 'several hosts' in done.stderr


def test_what_a_worker_of_a_slice_runs_is_a_script():
  output = shown('tpu', '--table=quickstart')
  line = next(line for line in output.splitlines() if 'tpu-vm ssh' in line)
  script = subprocess.run(
    ['bash', '-c', f'gcloud() {{ printf %s "${{@: -1}}"; }}; {line}'], capture_output=True, text=True).stdout
  assert script.startswith('--command=set -u\n') and script.endswith('exit $code')
  assert subprocess.run(['bash', '-n'], input=script.removeprefix('--command='), text=True).returncode == 0


def test_the_manifest_is_an_indexed_job_whose_stopped_pods_are_no_failures():
  made = json.loads(shown('kubernetes', '--table=my_tables/Quick_Start.py', '--parts=3', '--gpus=1', '--namespace=n'))
  assert (made['apiVersion'], made['kind']) == ('batch/v1', 'Job')
  assert made['metadata'] == {'name': 'lightjax-quick-start', 'namespace': 'n', 'labels': {'app': 'lightjax'}}
  spec = made['spec']
  assert (spec['completionMode'], spec['completions'], spec['parallelism']) == ('Indexed', 3, 3)
  pod = spec['template']['spec']
  (container,) = pod['containers']
  assert pod['restartPolicy'] == 'Never'  # what a podFailurePolicy asks for
  assert f'--part=$({container["env"][0]["name"]})/3' in container['command']
  assert {mount['name'] for mount in container['volumeMounts']} == {volume['name'] for volume in pod['volumes']}
  assert container['resources']['limits']['nvidia.com/gpu'] == '1'
  actions = {code: rule['action'] for rule in spec['podFailurePolicy']['rules'] if 'onExitCodes' in rule
             for code in rule['onExitCodes']['values']}
  assert actions == {129: 'Ignore', 130: 'Ignore', 143: 'Ignore', 2: 'FailIndex'}


def test_a_jobset_is_the_same_job_once():
  job = json.loads(shown('kubernetes', '--table=quickstart', '--parts=3'))
  made = json.loads(shown('kubernetes', '--table=quickstart', '--parts=3', '--jobset'))
  assert (made['apiVersion'], made['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  assert made['spec']['replicatedJobs'] == [{'name': 'cells', 'replicas': 1, 'template': {'spec': job['spec']}}]


def test_the_job_is_valid_against_the_schema_of_kubernetes():
  validate = pytest.importorskip('kubernetes_validate', reason='kubernetes-validate, which has the schemas, is missing')
  for arguments in (('--table=quickstart', '--parts=3', '--gpus=1'), (f'--config={CONFIG}',)):
    validate.validate(json.loads(shown('kubernetes', *arguments)), '1.31', strict=True)


def test_kubectl_gets_the_manifest(program, tmp_path):
  program('kubectl', f'cat > {tmp_path}/applied')
  done = launch('kubernetes', '--table=quickstart', path=tmp_path / 'bin')
  assert done.returncode == 0 and done.stdout == 'kubectl apply -f -\n'
  assert (tmp_path / 'applied').read_text() + '\n' == shown('kubernetes', '--table=quickstart')
