"""The engine against fake units that sleep, fail, die and print."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import rich.console

from experiments import table
from experiments.engine import endings, rows, scheduling, tables, watching
from experiments.engine.errors import TableError

A, B = {'method': 'a'}, {'method': 'b'}


@pytest.fixture
def make(tmp_path, fake_unit):
  def run(path, **options):
    out = io.StringIO()
    console = rich.console.Console(file=out, width=160)
    options = {'jobs': 1, 'workdir': tmp_path / 'runs'} | options
    code = table.make_table(path, unit=fake_unit, console=console, **options)
    return code, out.getvalue()

  return run


def ran(tmp_path, name='runs'):
  """Every start of a unit: id to lines 'pid cores'."""
  return {path.parent.name: path.read_text().splitlines() for path in (tmp_path / name / 'units').glob('*/ran.txt')}


def made(tmp_path, name='fake'):
  return rows.read(tmp_path / 'runs' / 'tables' / name / 'rows.jsonl')


def test_every_cell_and_seed_runs_once_and_the_second_time_not_at_all(tmp_path, write_table, make):
  path = write_table([({'m': 'a'}, A), ({'m': 'b'}, B)])
  code, out = make(path)
  assert code == 0 and '6 to train' in out
  first = {path: path.stat().st_mtime_ns for path in (tmp_path / 'runs' / 'tables').rglob('*.*')}
  assert len(ran(tmp_path)) == 6
  code, out = make(path)
  assert code == 0 and '6 done, 0 to train' in out
  assert all(len(starts) == 1 for starts in ran(tmp_path).values())
  assert first == {path: path.stat().st_mtime_ns for path in first}  # neither rendered nor written again
  assert [(row['labels']['m'], row['seed']) for row in made(tmp_path)] == [(m, s) for m in 'ab' for s in range(3)]


def test_a_shared_teacher_is_trained_once_and_first(tmp_path, write_table, make):
  path = write_table([({'m': 'a'}, A | {'teacher': 'good'}), ({'m': 'b'}, B | {'teacher': 'good'})], seeds=(0,))
  code, out = make(path, jobs=2)
  assert code == 0 and '1 other units first' in out
  starts = ran(tmp_path)
  assert len(starts) == 3
  students = {row['id'] for row in made(tmp_path)}
  (teacher,) = starts.keys() - students
  order = {identity: float(lines[0].split('] ')[1]) for identity, lines in starts.items()}
  assert all(order[teacher] < order[student] for student in students)


def test_a_finished_student_needs_no_teacher(tmp_path, write_table, make, fake_unit):
  path = write_table([({'m': 'a'}, A | {'teacher': 'good'})], seeds=(0,))
  make(path)
  (student,) = (row['id'] for row in made(tmp_path))
  (teacher,) = ran(tmp_path).keys() - {student}
  (tmp_path / 'runs' / 'units' / teacher / 'result.json').unlink()
  _, out = make(path)
  assert '1 done, 0 to train' in out
  assert fake_unit.result(tmp_path / 'runs' / 'units', teacher) is None


@pytest.mark.parametrize(
  ('behaviour', 'message'),
  [
    ('fail', 'ValueError: sparsity 1.5 is above 1'),
    ('exit', 'exit code 3'),
    ('kill', 'SIGKILL'),
    ('nothing', 'without a valid result.json'),
  ],
)
def test_a_failed_unit_stops_no_other_and_is_tried_again(tmp_path, write_table, make, behaviour, message):
  path = write_table([({'m': 'bad'}, {'behaviour': behaviour}), ({'m': 'good'}, A)], seeds=(0, 1))
  code, out = make(path)
  assert code == 1
  assert [row['status'] for row in made(tmp_path)] == ['failed', 'failed', 'done', 'done']
  assert all(message in row['error'] for row in made(tmp_path)[:2])
  assert message in out and 'log.txt' in out
  code, out = make(path)
  assert '2 done, 2 to train' in out


@pytest.mark.parametrize(('behaviour', 'starts'), [('kill', 3), ('exit', 3), ('fail', 1), ('nothing', 1)])
def test_a_unit_whose_process_died_is_tried_again_with_a_bound(tmp_path, write_table, make, behaviour, starts):
  _, out = make(write_table([({'m': 'bad'}, {'behaviour': behaviour})], seeds=(0,)), retries=2)
  assert [len(lines) for lines in ran(tmp_path).values()] == [starts]
  assert ('try 3 of 3' in out) == (starts == 3)


def test_a_unit_that_died_once_is_done_at_its_second_try(tmp_path, write_table, make):
  code, out = make(write_table([({'m': 'a'}, {'behaviour': 'kill once'})], seeds=(0, 1)), jobs=2)
  assert code == 0 and [row['status'] for row in made(tmp_path)] == ['done', 'done']
  assert out.count('try 2 of 3') == 2 and 'try 3' not in out


def test_memory_that_ran_out_is_called_that(tmp_path, write_table, make):
  code, _ = make(write_table([({'m': 'big'}, {'behaviour': 'memory'})], seeds=(0,)))
  assert code == 1 and made(tmp_path)[0]['error'].startswith('out of memory (fewer --jobs')
  counters = tmp_path / 'vmstat'
  counters.write_text('oom_kill_disable 7\noom_kill 2\n')
  assert endings.out_of_memory_kills(counters) == 2 and endings.out_of_memory_kills(tmp_path / 'none') == 0
  assert endings.of_process(-9, kills=1).startswith('out of memory')
  assert 'memory' not in endings.of_process(-9, kills=0) + endings.of_process(-15, kills=1)


def test_parts_train_every_row_once_and_write_no_table(tmp_path, write_table, make):
  path = write_table([({'m': 'a'}, A), ({'m': 'b'}, B)])
  for index, expected in enumerate((2, 4, 5, 6)):
    code, _ = make(path, part=(index, 4))
    assert code == 0 and len(ran(tmp_path)) == expected
  assert all(len(lines) == 1 for lines in ran(tmp_path).values()) and made(tmp_path) == []
  make(path, train=False)
  assert [row['status'] for row in made(tmp_path)] == ['done'] * 6
  with pytest.raises(TableError, match='a part is no table'):
    make(path, part=(0, 2), results=tmp_path / 'results')
  for text in ('4/4', '1', '-1/2', '1/0'):
    with pytest.raises(TableError, match='want I/N'):
      table._part(text)


def test_a_table_is_watched_while_others_train_it(tmp_path, write_table, make, fake_unit):
  path = write_table([({'m': 'a'}, A), ({'m': 'b'}, B)], seeds=(0,))
  declared = tables.load(path)
  cells = iter(declared.cells)

  def train_one(_):
    fake_unit.run(tables.build(declared, next(cells), seed=0), tmp_path / 'runs' / 'units', lambda _: None)

  original = watching.watch
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(watching, 'watch', lambda look, **options: original(look, **options, pause=train_one))
    code, out = make(path, watch=0.0)
  assert code == 0 and made(tmp_path) == []  # who looks writes nothing
  assert [f'{done} of 2 rows done' in out for done in range(3)] == [True] * 3


def test_what_depends_on_a_failed_teacher_says_so(tmp_path, write_table, make):
  path = write_table([({'m': 'a'}, A | {'teacher': 'bad'}), ({'m': 'b'}, B)], seeds=(0,))
  code, _ = make(path)
  failed, done = made(tmp_path)
  assert code == 1 and done['status'] == 'done'
  assert failed['status'] == 'failed' and failed['error'].startswith('teacher of a, seed 0 failed: ValueError')
  assert failed['id'] not in ran(tmp_path)


def test_output_and_traceback_go_to_the_log_of_the_unit(tmp_path, write_table, make, capfd):
  make(write_table([({'m': 'bad'}, {'behaviour': 'fail'})], seeds=(0,)))
  (log,) = (tmp_path / 'runs' / 'units').glob('*/log.txt')
  text = log.read_text()
  assert 'hello from a' in text and 'hello from the descriptor' in text and 'Traceback' in text
  assert 'hello' not in ''.join(capfd.readouterr())


def test_workers_live_long_and_have_cores_of_their_own(tmp_path, write_table, make):
  cores = sorted(os.sched_getaffinity(0))
  make(write_table([({'m': index}, {'sparsity': index / 10}) for index in range(6)]), jobs=2)
  starts = [lines[0].split(' ', 1) for lines in ran(tmp_path).values()]
  assert len(starts) == 18 and len({pid for pid, _ in starts}) <= 2
  pinned = {pid: rest.split('] ')[0].strip('[') for pid, rest in starts}
  if len(cores) > 1 and len(pinned) == 2:
    first, second = (set(text.split(', ')) for text in pinned.values())
    assert not first & second


def test_plan_divides_all_cores_and_devices(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(8)))
  monkeypatch.setattr(scheduling, '_accelerators', lambda: ['0', '1', '2', '3'])
  monkeypatch.setattr(scheduling, '_has_tpu', lambda: False)
  assert [share.cores for share in scheduling.plan(3)] == [(0, 1), (2, 3, 4), (5, 6, 7)]
  assert [share.environment['CUDA_VISIBLE_DEVICES'] for share in scheduling.plan(2)] == ['0,1', '2,3']
  eight = scheduling.plan(8)
  assert sorted(share.environment['CUDA_VISIBLE_DEVICES'] for share in eight) == sorted('01230123')
  assert all(float(share.environment['XLA_PYTHON_CLIENT_MEM_FRACTION']) <= 0.5 for share in eight)
  assert 'CUDA_VISIBLE_DEVICES' in scheduling.plan(1)[0].environment
  monkeypatch.setattr(scheduling, '_has_tpu', lambda: True)
  with pytest.raises(TableError, match='TPU'):
    scheduling.plan(2)
  with pytest.raises(TableError, match='at least 1'):
    scheduling.plan(0)


def test_units_of_one_group_stay_at_one_worker_and_idle_workers_help():
  queue = scheduling._Queue()
  for group in (0, 1):
    for index in range(3):
      queue.add(scheduling.Unit(f'{group}{index}', None, '', (), group))
  assert queue.take(None, set()).id == '00'
  assert queue.take(None, {0}).id == '10'  # the other group while one is busy
  assert queue.take(0, {0, 1}).id == '01'
  assert queue.take(0, {0, 1}).id == '02'
  assert queue.take(0, {0, 1}).id == '11'  # its own is empty: it helps
  assert queue.take(1, {0, 1}).id == '12'
  assert queue.take(1, set()) is None


def test_cells_that_are_not_run_here_show_a_result_when_there_is_one(tmp_path, write_table, make):
  cells = [({'m': 'a'}, A), ({'m': 'big'}, B, {'run': False})]
  make(write_table(cells, seeds=(0,)), results=tmp_path / 'results')
  assert [row['status'] for row in made(tmp_path)] == ['done', 'not run']
  assert 'not run' in (tmp_path / 'results' / 'fake' / 'table.md').read_text()
  # Trained elsewhere, its rows committed: another work folder shows them, by their id.
  make(
    write_table([({'m': 'a'}, A), ({'m': 'big'}, B)], seeds=(0,)),
    workdir=tmp_path / 'elsewhere',
    results=tmp_path / 'results',
  )
  make(write_table(cells, seeds=(0,)), results=tmp_path / 'results')
  assert [row['status'] for row in made(tmp_path)] == ['done', 'done']


def test_seeds_can_be_trained_one_by_one(tmp_path, write_table, make):
  path = write_table([({'m': 'a'}, A)])
  make(path, seeds=[1])
  assert [row['status'] for row in made(tmp_path)] == ['not run', 'done', 'not run']
  make(path, seeds=[0, 7])
  assert [(row['seed'], row['status']) for row in made(tmp_path)] == [
    (0, 'done'),
    (1, 'done'),
    (2, 'not run'),
    (7, 'done'),
  ]
  make(path, train=False)
  assert len(ran(tmp_path)) == 3


def test_results_of_older_numerics_are_stale(tmp_path, write_table, make, fake_unit, monkeypatch):
  path = write_table([({'m': 'a'}, A)], seeds=(0,))
  make(path)
  assert not made(tmp_path)[0]['stale']
  monkeypatch.setattr(fake_unit, 'NUMERICS', fake_unit.NUMERICS + 1)
  _, out = make(path)
  assert made(tmp_path)[0]['stale'] and '†' in out


def test_a_thousand_cached_units_are_listed_quickly(tmp_path, write_table, make, fake_unit):
  path = write_table([({'m': index}, {'sparsity': index / 1000}) for index in range(50)], seeds=tuple(range(20)))
  declared = tables.load(path)
  for cell in declared.cells:
    for seed in declared.seeds:
      fake_unit.run(tables.build(declared, cell, seed=seed), tmp_path / 'runs' / 'units', lambda _: None)
  make(path, train=False)
  began = time.process_time()
  code, out = make(path)
  assert code == 0 and '1000 done, 0 to train' in out
  assert time.process_time() - began < 2


def test_a_unit_costs_a_few_looks_however_many_there_are(tmp_path, write_table, make, fake_unit, monkeypatch):
  original, looks = fake_unit.result, []
  monkeypatch.setattr(fake_unit, 'result', lambda root, identity: looks.append(1) or original(root, identity))
  path = write_table([({'m': index}, {'sparsity': index / 1000}) for index in range(60)], seeds=(0,))
  for seeds, count in (([0], 60), ([1], 60)):
    looks.clear()
    code, out = make(path, seeds=seeds, jobs=2)
    assert code == 0 and f'{count} to train' in out
    assert len(looks) <= 5 * count  # before, at its end, and for the table


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_lets_the_workers_save_and_the_same_command_resumes(tmp_path, write_table, make, number, code):
  path = write_table([({'m': 'a'}, A), ({'m': 'slow'}, {'behaviour': 'slow'})], seeds=(0,))
  program = textwrap.dedent(f"""
    import pathlib, sys
    sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
    import fake_unit
    sys.modules['experiments.unit'] = fake_unit
    import experiments
    experiments.unit = fake_unit
    from absl import app
    from experiments import table
    assert 'jax' not in sys.modules and 'matplotlib' not in sys.modules
    app.run(table.main, argv=['table', '--table={path}', '--workdir={tmp_path / 'runs'}', '--jobs=2'])
  """)
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True, env=environment)
  deadline = time.monotonic() + 30
  while len(ran(tmp_path)) < 2 and time.monotonic() < deadline:
    time.sleep(0.05)
  time.sleep(0.5)
  process.send_signal(number)
  out, _ = process.communicate(timeout=20)
  assert process.returncode == code, out
  pids = {int(lines[0].split()[0]) for lines in ran(tmp_path).values()}
  while any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids)
  assert len(list((tmp_path / 'runs' / 'units').glob('*/saved.txt'))) == 1
  if number != signal.SIGKILL:  # with it nobody is left to say so
    assert 'the same command resumes' in out
    assert [row['status'] for row in made(tmp_path)] == ['done', 'not run']


@pytest.mark.parametrize(
  ('cells', 'more', 'message'),
  [
    ([({'m': 1}, {'sparsty': 0.5})], '', 'sparsity'),
    ([({'m': 1}, {'seed': 'x'})], '', 'seed'),
    ([({'m': 1}, A), ({'m': 1}, B)], '', 'two cells are labelled'),
    ([({'m': 1}, A, {'rum': False})], '', "unknown option 'rum'; nearest: run"),
    ([({'m': 1}, A, {'base': 'fake_bass.py'})], '', 'fake_bass.py'),
    ([({'m': [1]}, A)], '', "label 'm' is a list"),
    ([({'m': 1}, A)], '1 / 0', r'fake.py:7: ZeroDivisionError'),
    ([({'m': 1}, A)], 'del SEEDS', 'declares no SEEDS'),
    ([({'m': 1}, A)], 'PUBLISHED = [Figure(0.5).labelled(m=2)]', 'label of no cell'),
  ],
)
def test_mistakes_in_a_table_are_one_sentence(write_table, make, cells, more, message):
  with pytest.raises(TableError, match=message):
    make(write_table(cells, more=more))


def test_an_unknown_table_names_the_nearest():
  with pytest.raises(TableError, match='unknown table; nearest: quickstart'):
    tables.load('quikstart')
  with pytest.raises(TableError, match='no such file'):
    tables.load('some/where.py')
