"""Spaces: every candidate is counted once, is a spec of a network, and moves within the space."""
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as drawn

from lightjax import models
from lightjax.core import specs
from lightjax.measure import counts
from lightjax.search import Choice, Space, spaces

SPACE = Space('s', (Choice('a', (1, 2, 3)), Choice('b', ('x',)), Choice('c', (0.0, 0.5))), dict)


def test_a_space_is_all_combinations_each_once():
  compression = spaces.compression(('fc1/kernel', 'fc2/kernel'), ratios=(0, 0.5), bits=(2, 4))
  for space in (SPACE, spaces.mobile28(), compression):
    candidates = list(space)
    assert len(set(candidates)) == len(candidates) == space.count
    assert len({specs.digest(space.spec(candidate)) for candidate in candidates}) == space.count
    assert [space.candidate(space.options(candidate)) for candidate in candidates] == candidates


@given(drawn.integers(0, 2**32 - 1))
def test_moves_stay_in_the_space_and_repeat_by_seed(seed):
  def moves():
    generator = np.random.default_rng(seed)
    first, second = SPACE.sample(generator), SPACE.sample(generator)
    return first, second, SPACE.mutate(first, generator), SPACE.crossover(first, second, generator)

  first, second, mutant, child = moves()
  assert moves() == (first, second, mutant, child)
  assert {first, second, mutant, child} <= set(SPACE)
  assert sum(one != other for one, other in zip(first, mutant, strict=True)) == 1
  assert all(each in pair for each, pair in zip(child, zip(first, second, strict=True), strict=True))


def test_samples_are_alike_likely():
  generator = np.random.default_rng(0)
  seen = [SPACE.sample(generator) for _ in range(6000)]
  counted = np.array([seen.count(candidate) for candidate in SPACE])
  assert ((counted - 1000) ** 2 / 1000).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


@pytest.mark.parametrize('place', [0, 119, 239])
def test_specs_of_mobile28_are_networks_with_these_options(place):
  space = spaces.mobile28()
  candidate = list(space)[place]
  options, model = space.options(candidate), models.create(**space.spec(candidate))
  early, late = model.blocks()[0], model.blocks()[2]
  assert (early[0].window, late[0].window) == (options['window'], options['late window'])
  assert len(model.blocks()[1]) == len(late) == options['blocks']
  assert (late[0].squeeze > 0) == options['squeeze-excite'] and not early[0].squeeze
  seen = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x)[0], jax.ShapeDtypeStruct((2, 28, 28, 1), 'float32'))
  assert seen.shape == (2, 10)


def test_the_default_network_has_the_counts_that_its_file_states():
  counted = counts.count(models.create('mobile_stages'), (28, 28, 1))
  assert f'{counted.params:,} params, {counted.macs:,} MACs' in models.mobile_stages.__globals__['__doc__']
  # By hand: stem, three stages of inverted residuals (3x), the last 1x1, the classifier.
  macs = 28**2 * 16 * 9
  places, channels = 28**2, 16
  for features, blocks, strides in ((16, 1, 1), (24, 2, 2), (40, 2, 2)):
    for block in range(blocks):
      hidden = 48 if channels == 16 else 72 if channels == 24 else 120
      macs += places * channels * hidden
      places //= strides**2 if block == 0 else 1
      macs += places * (9 * hidden + hidden * features)
      channels = features
  assert counted.macs == macs + places * 40 * 128 + 1280


@pytest.mark.parametrize('wrong,says', [
  (lambda: SPACE.options((3, 0, 0)), r'\(3, 0, 0\) is no candidate'),
  (lambda: SPACE.options((0, 0)), 'is no candidate'),
  (lambda: SPACE.candidate({'a': 4, 'b': 'x', 'c': 0}), 'a=4 is none of'),
  (lambda: SPACE.candidate({'a': 1, 'd': 'x'}), "no choice 'd'"),
  (lambda: SPACE.candidate({'a': 1, 'b': 'x'}), "no option for 'c'"),
  (lambda: Space('s', (Choice('a', (1, 1.0)),), dict), 'all different'),
  (lambda: Space('s', (), dict), 'one or more'),
  (lambda: spaces.compression(('fc',)), 'one or more')])
def test_what_is_no_space_and_no_candidate_is_refused(wrong, says):
  with pytest.raises(ValueError, match=says):
    wrong()


@settings(max_examples=20)
@given(drawn.integers(0, 239))
def test_a_stored_spec_is_the_same_spec(place):
  import json
  space = spaces.mobile28()
  spec = space.spec(list(space)[place])
  assert specs.canonical(json.loads(json.dumps(spec))) == specs.canonical(spec)
