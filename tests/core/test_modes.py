import jax
import pytest

from lightjax.core import modes


def test_a_function_traced_in_one_mode_is_traced_again_in_the_other():
  seen = []

  @jax.jit
  def traced(x):
    seen.append(modes.current_convolution_mode())
    return x

  traced(1.0)
  with modes.convolution_mode('lax'):
    traced(1.0)
  traced(1.0)
  assert seen == ['fast', 'lax']


def test_an_unknown_mode_is_refused():
  with pytest.raises(ValueError, match=r"convolution_mode\('quick'\): the modes are \('fast', 'lax'\)"), \
      modes.convolution_mode('quick'):
    pass
