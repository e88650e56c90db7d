"""Configs: reading files, changing fields, and messages that name the field."""
import ml_collections
import pytest

from experiments import configuration
from lightjax.core.specs import SpecError


def test_a_config_of_the_package_is_found_by_name_and_by_path():
  one = configuration.load('lenet300.py')
  other = configuration.load(str(configuration.FOLDER / 'lenet300.py'))
  assert one.to_dict() == other.to_dict() and one.name == 'lenet300' and one.is_locked


def test_a_folder_of_ones_own_goes_first_and_arguments_are_passed(tmp_path):
  (tmp_path / 'lenet300.py').write_text(
    'from experiments import configuration\ndef get_config(arg=""):\n'
    '  config = configuration.default()\n  config.precision = arg\n  return config\n')
  assert configuration.load('lenet300.py:bfloat16', relative_to=tmp_path).precision == 'bfloat16'


def test_a_missing_file_names_the_nearest():
  with pytest.raises(SpecError, match=r"'lenet30.py': no such file.*'lenet300.py'"):
    configuration.load('lenet30.py')


def test_a_file_without_get_config_is_an_error(tmp_path):
  (tmp_path / 'empty.py').write_text('')
  with pytest.raises(SpecError, match='no function get_config'):
    configuration.load(str(tmp_path / 'empty.py'))


def test_an_override_is_a_copy(tiny):
  config = tiny()
  changed = configuration.override(config, [('compress.prune.sparsity', 0.5), ('epochs', 7)])
  assert (config.epochs, changed.epochs, changed.compress.prune.sparsity) == (3, 7, 0.5)
  assert changed.is_locked


@pytest.mark.parametrize('field, value, message', [
  ('compress.prune.sparsty', 0.5, "no field 'compress.prune.sparsty'; nearest: 'compress.prune.sparsity'"),
  ('epoch', 3, "nearest: 'epochs'"), ('nothing.at.all', 1, 'has no field'), ('epochs.more', 1, 'has no field'),
  ('epochs', 'many', "epochs='many'"), ('batch_size', 1.5, 'batch_size=1.5'), ('model.name', 3, 'model.name=3'),
])
def test_a_wrong_override_names_the_field(tiny, field, value, message):
  with pytest.raises(SpecError) as caught:
    configuration.override(tiny(), [(field, value)])
  assert message in str(caught.value)


def test_a_whole_number_serves_as_a_float(tiny):
  assert configuration.override(tiny(), [('learning_rate.peak', 1)]).learning_rate.peak == 1.0


def test_essential_fields_are_those_that_differ_from_their_default():
  config = configuration.default()
  assert configuration.essential(config) == {}
  config.epochs, config.weight_decay, config.name = 5, 0, 'x'
  config.model.update(name='lenet300')
  assert configuration.essential(config) == {'epochs': 5, 'model.name': 'lenet300'}


def test_differences_name_both_values():
  text = configuration.differences({'epochs': 3, 'same': 1}, {'seed': 2, 'same': 1})
  assert text == 'epochs: 3 against default, seed: default against 2'


def test_flatten_resolves_references():
  config = ml_collections.ConfigDict({'a': 2, 'b': {'c': (1, 2)}})
  config.b.d = config.get_ref('a')
  assert configuration.flatten(config) == {'a': 2, 'b.c': (1, 2), 'b.d': 2}


@pytest.mark.parametrize('text, value', [
  ('3', 3), ('1e-3', 1e-3), ("('prune',)", ('prune',)), ('magnitude', 'magnitude'), ('True', True), ('a b', 'a b')])
def test_values_of_a_command_line(text, value):
  assert configuration.parse_value(text) == value


def test_smoke_keeps_the_experiment_and_shortens_the_work(tiny):
  config = tiny(compress__stages=('prune', 'weights'), epochs=50)
  small = configuration.smoke(config)
  assert small.compress.stages == config.compress.stages and small.model == config.model
  assert (small.data.name, small.epochs, small.smoke) == ('synthetic', 1, True)
  assert config.epochs == 50 and not config.smoke
