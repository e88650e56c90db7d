import jax
import numpy as np
import pytest

from lightjax.core import rngs


def data(key):
  return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_trap_15_names_numbers_and_their_order_give_keys_of_their_own():
  root = rngs.root(0)
  folded = [
    (), ('augment',), ('dropout',), ('augment', 0), ('augment', 1), (0, 'augment'), ('fc1/kernel', 1),
    ('fc2/kernel', 1)]
  assert len({data(rngs.fold(root, *names)) for names in folded}) == len(folded)


def test_a_stream_is_a_function_of_seed_name_and_step_alone():
  assert data(rngs.fold(rngs.root(3), 'view', 7)) == data(rngs.fold(rngs.fold(rngs.root(3), 'view'), 7))
  traced = jax.jit(lambda step: rngs.fold(rngs.root(3), 'view', step))
  assert data(traced(7)) == data(rngs.fold(rngs.root(3), 'view', 7))
  assert data(rngs.root(3)) != data(rngs.root(4))


@pytest.mark.parametrize('default', ['threefry2x32', 'rbg'])
def test_the_bits_do_not_depend_on_the_default_generator(default):
  with jax.default_prng_impl(default):
    assert data(rngs.root(5)) == (0, 5)
