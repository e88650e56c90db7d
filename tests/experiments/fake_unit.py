"""A work unit that trains nothing: it sleeps, prints, fails or dies as its config says. Workers import it by name."""

import hashlib
import json
import math
import os
import signal
import time

NUMERICS = 3

CONFIG = """
from experiments import configuration

def get_config(arg=''):
  config = configuration.default()
  config.update({'method': 'a', 'sparsity': 0.0, 'behaviour': 'ok', 'teacher': '', 'nested': {'rate': 0.1}})
  return config
"""


def identify(config):
  return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode()).hexdigest()[:20]


def prerequisites(config):
  if not config.teacher:
    return {}
  teacher = config.copy_and_resolve_references()
  teacher.teacher, teacher.method, teacher.sparsity = '', 'teacher', 0.0
  teacher.behaviour = 'ok' if config.teacher == 'good' else 'fail'
  return {'teacher': teacher}


def result(root, identity):
  path = root / identity / 'result.json'
  if not path.is_file():
    return None
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError:
    return None


def run(config, root, progress):
  identity = identify(config)
  folder = root / identity
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / 'ran.txt').open('a') as file:
    file.write(f'{os.getpid()} {sorted(os.sched_getaffinity(0))} {time.monotonic()}\n')
  print('hello from', config.method, flush=True)
  os.write(2, b'hello from the descriptor\n')
  if config.behaviour == 'fail':
    raise ValueError('sparsity 1.5 is above 1')
  if config.behaviour == 'exit':
    os._exit(3)
  if config.behaviour == 'kill':
    os.kill(os.getpid(), signal.SIGKILL)
  if config.behaviour == 'kill once' and len((folder / 'ran.txt').read_text().splitlines()) == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  if config.behaviour == 'memory':
    raise MemoryError('Unable to allocate 8 PiB')
  if config.behaviour == 'nothing':
    return {}
  if config.behaviour == 'slow' or (config.behaviour == 'slow once' and not (folder / 'saved.txt').exists()):
    saved = []
    signal.signal(signal.SIGTERM, lambda *_: saved.append(1))
    for step in range(600):
      progress({'step': step, 'steps': 600, 'phase': 'train', 'loss': 1 / (1 + step)})
      time.sleep(0.05)
      if saved:
        (folder / 'saved.txt').write_text('saved')
        return {}  # as a unit that returns after saving might
  for step in range(0, 400, 10):
    progress({'step': step, 'steps': 400, 'phase': 'train', 'loss': 1 / (1 + step)})
  offset = sum(map(ord, config.method)) % 7 / 400
  top = 0.96 + offset - (0.02 + offset) * config.sparsity**4 + 0.002 * math.sin(17 * config.seed + 5 * config.sparsity)
  with (folder / 'metrics.jsonl').open('w') as file:
    for epoch in range(1, 21):
      for split in ('train', 'validation'):
        file.write(
          json.dumps(
            {
              'step': epoch * 10,
              'epoch': epoch,
              'split': split,
              'loss': (1.2 - top) * (1 + 9.0 / epoch),
              'accuracy': top - 0.3 / epoch**1.5,
            }
          )
          + '\n'
        )
  parameters = 266610
  kept = round(parameters * (1 - config.sparsity))
  made = {
    'id': identity,
    'scheme': 1,
    'numerics': NUMERICS,
    'name': config.method,
    'seed': config.seed,
    'metrics': {
      'test/accuracy': top,
      'validation/accuracy': top,
      'best/test/accuracy': top,
      'params': parameters,
      'nonzeros': kept,
      'macs': kept if config.method.startswith('b') else 266200,
      'bytes': kept * 2 + 900,
      'seconds': 12.5,
    },
    'layers': [
      {
        'path': f'dense{i}/kernel',
        'parameters': 1000,
        'nonzeros': round(1000 * max(0.02, 1 - config.sparsity * (1.05 - 0.1 * i))),
        'bits': 8 if config.method == 'b' else 32,
      }
      for i in range(3)
    ],
    'versions': {'jax': '0.10.1', 'jaxlib': '0.10.1', 'XLA_FLAGS': ''},
    'device': 'cpu x 2',
  }
  partial = folder / 'result.partial'
  partial.write_text(json.dumps(made))
  partial.rename(folder / 'result.json')
  return made
