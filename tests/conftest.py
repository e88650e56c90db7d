"""What every test shares: two devices, one cache of compiled functions, checked annotations, steady hypothesis."""
import os
import pathlib
import sys
import types

# Read by the compiler's runtime when jax is first imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import beartype
import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update('jax_num_cpu_devices', 2)
CACHE = pathlib.Path(os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')) / 'lightjax' / 'compiled'
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)

# An int is a float here, as it is for mypy: the hook takes its checker by name.
checker = types.ModuleType('lightjax_annotation_checker')
checker.check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
sys.modules[checker.__name__] = checker
# Flax's own modules are annotated with protocols that no checker can test, so that subclasses of them are left out; so
# is train.state, a pytree that also holds NumPy arrays, shapes or whatever else a tree is mapped to.
CHECKED = (
  'binarize', 'core', 'distill', 'graph', 'measure', 'prune', 'quantize', 'train.checkpoints', 'train.compression',
  'train.devices', 'train.health', 'train.loop', 'train.losses', 'train.optimizers', 'train.step', 'train.writers')
jaxtyping.install_import_hook([f'lightjax.{package}' for package in CHECKED], f'{checker.__name__}.check')

hypothesis.settings.register_profile(
  'lightjax', deadline=None, derandomize=True, database=None, max_examples=25,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile('lightjax')


@pytest.fixture(scope='session')
def devices():
  """The two virtual devices, for tests of sharded batches."""
  found = jax.devices()
  assert len(found) == 2
  return found
